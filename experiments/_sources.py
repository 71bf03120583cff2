"""The flags by which several experiments are told their checkpoints, their corpus and their neurons."""

import dataclasses
from pathlib import Path

from absl import flags

from xlingjax.analyses.trace.settings import TraceSettings
from xlingjax.analyses.trace.sources import Source, expand, sources
from xlingjax.corpora import Corpus, read_concepts, read_conllu, read_sib200
from xlingjax.errors import InputError

FLAGS = flags.FLAGS
_T = TraceSettings()

flags.DEFINE_string("model", None, "hub repository or folder with checkpoints; "
                    "by default a small model is pre-trained on the embedded corpus")
flags.DEFINE_list("revisions", [], "tags or branches of --model, or sub-folders of it")
flags.DEFINE_list("subfolders", [], "folders of one revision of --model")
flags.DEFINE_string("template", None, "name of a revision with {step}, filled in from --step_list")
flags.DEFINE_list("step_list", [], "steps for --template")
flags.DEFINE_string("tokenizer", None, "repository or folder of the tokenizer; by default --model's")
flags.DEFINE_string("concepts", None, "folder of concepts, SIB-200 table, or folder of treebanks")
flags.DEFINE_list("languages", [], "languages to trace; all by default")
flags.DEFINE_float("tokens_per_step", None, "tokens of one training step, where the hub does not say")
flags.DEFINE_list("sites", [], "where neurons are; the outputs of the model's linear maps by default")
flags.DEFINE_enum("pool", _T.pool, ["max", "mean", "last"], "how a sentence's tokens become one response")
flags.DEFINE_integer("k", None, "neurons in an expert set; by default 500 in 221,184, at least 20")
flags.DEFINE_enum("dtype", _T.dtype, ["float32", "bfloat16", "float16", "float64"], "of the forward pass")
flags.DEFINE_integer("batch_tokens", _T.batch_tokens, "the most tokens of a batch")

NAMED = ("revisions", "subfolders", "template", "step_list", "tokenizer", "concepts", "tokens_per_step")


def named() -> tuple[tuple[Source, ...], Corpus]:
    """The checkpoints and the corpus that flags name."""
    if not FLAGS.model:
        raise InputError("--model is empty; name a repository or a folder, or leave it out")
    if FLAGS.concepts is None:
        raise InputError("--model needs --concepts: a folder of concepts, a SIB-200 table or treebanks")
    revisions = [name for name in FLAGS.revisions if name]
    if FLAGS.template is not None:
        bad = [step for step in FLAGS.step_list if not step.isdigit()]
        if bad or not FLAGS.step_list:
            raise InputError(f"--step_list is {','.join(FLAGS.step_list)!r}; give whole numbers for --template")
        revisions += expand(FLAGS.template, [int(step) for step in FLAGS.step_list])
    elif FLAGS.step_list:
        raise InputError("--step_list needs --template, for example --template=global_step{step}")
    found = sources(FLAGS.model, revisions, FLAGS.subfolders, FLAGS.tokens_per_step)
    return found, read_corpus(FLAGS.concepts)


def refuse_present(names: tuple[str, ...], why: str) -> None:
    for name in names:
        if FLAGS[name].present:
            raise InputError(f"--{name} {why}")


def read_corpus(name: str) -> Corpus:
    """A concept folder, a SIB-200 table, or a folder of treebanks, by what is there."""
    path, languages = Path(name), FLAGS.languages or None
    if not path.exists():
        raise InputError(f"--concepts={name} does not exist; give a folder or a SIB-200 table")
    if path.is_file():
        return read_sib200(path, languages)
    if any(path.glob("*.conllu*")):
        corpus = read_conllu(sorted(path.glob("*.conllu*")), languages=languages, parallel=True)
        # All features are one group: most have one value that every treebank marks, and an interval
        # over concepts needs several.
        return dataclasses.replace(corpus, groups=("feature",) * len(corpus.concepts))
    corpus = read_concepts(path)
    return corpus.language(*languages) if languages else corpus
