"""What layers know of words, and whether it works across languages: probes on treebanks, beside their controls.

    python -m experiments.words

pre-trains a small model on the embedded corpus, probes its words at three checkpoints, and ends with
`runs/words/report.html`. For every task (parts of speech, features as Universal Dependencies name them, word order) and
language a linear probe is trained at every layer on words of some documents and tested on others, in all languages. The
same on published checkpoints and treebanks:

    python -m experiments.words --model=FOLDER --revisions=step0,step512 --treebanks=pud --workdir=runs/words_pud

The same command on the same --workdir goes on where it stopped.
"""

import sys
from pathlib import Path

from absl import flags

from experiments import _checkpoints
from experiments._checkpoints import checkpoints, refuse_present
from experiments._embedded import pretrained
from experiments._main import run
from xlingjax.analyses.results import write_tree
from xlingjax.analyses.sources import Source
from xlingjax.analyses.word_probe import ALIGNMENTS, WordProbeSettings, probe_words
from xlingjax.corpora import mini_world_words
from xlingjax.corpora.words import Treebank, read_words
from xlingjax.errors import InputError
from xlingjax.report.word_page import word_summary, write_word_report

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_checkpoints)
_S = WordProbeSettings()
TASKS = ("upos", "Number", "Gender", "Tense", "order:nsubj", "order:obj")
EMBEDDED = ("upos", "Number", "Gender", "Tense", "Case")  # each language there has one order of words

flags.DEFINE_string("workdir", "runs/words", "folder of the run; resumes what is there")
flags.DEFINE_string("treebanks", None, "folder of CoNLL-U files, LANGUAGE.conllu[.xz]; the embedded corpus by default")
flags.DEFINE_list("tasks", None, "\"upos\", features, and \"order:\" with a relation: before or after its head; by "
                  f"default {', '.join(TASKS)}, of the embedded corpus {', '.join(EMBEDDED)}")
flags.DEFINE_list("languages", [], "languages; all by default")
flags.DEFINE_integer("words", _S.words, "of each language and task, at most")
flags.DEFINE_integer("minimum", _S.minimum, "words that a class needs in a language")
flags.DEFINE_enum("align", _S.align, list(ALIGNMENTS), "a word is its first token, or the mean of its tokens")
flags.DEFINE_float("held_out", _S.held_out, "share of the documents that probes are tested on")
flags.DEFINE_integer("seed", _S.seed, "of pre-training, of words, documents and control labels")
flags.DEFINE_integer("pretrain_steps", 512, "steps of the embedded corpus's model")

NAMED = (*_checkpoints.NAMED, "treebanks")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def embedded(workdir: Path) -> tuple[tuple[Source, ...], Treebank, str]:
    """The first, a middle and the last checkpoint of pre-training, and the words of the probe sentences."""
    refuse_present(NAMED, "needs --model, the checkpoints to probe")
    bank = mini_world_words(languages=FLAGS.languages or None, tasks=FLAGS.tasks or EMBEDDED)
    keep = lambda steps: list(dict.fromkeys([steps[0], steps[len(steps) // 2], steps[-1]]))
    return pretrained(workdir, say, keep), bank, "the embedded corpus"


def named() -> tuple[tuple[Source, ...], Treebank, str]:
    """The checkpoints and the treebanks that flags name."""
    if FLAGS.treebanks is None:
        raise InputError("--model needs --treebanks: a folder of CoNLL-U files")
    path = Path(FLAGS.treebanks)
    if not path.exists():
        raise InputError(f"--treebanks={path} does not exist; give a folder of CoNLL-U files")
    return checkpoints(), read_words(path, FLAGS.tasks or TASKS, FLAGS.languages or None), path.name


def main() -> None:
    settings = WordProbeSettings(FLAGS.words, FLAGS.minimum, FLAGS.held_out, FLAGS.align, seed=FLAGS.seed,
                                 batch_tokens=FLAGS.batch_tokens)
    workdir = Path(FLAGS.workdir)
    found, bank, corpus = embedded(workdir) if FLAGS.model is None else named()
    tree = probe_words(found, bank, settings, workdir / "words", dtype=FLAGS.dtype, tokenizer=FLAGS.tokenizer, say=say)
    tree.attrs["corpus"] = corpus
    write_tree(workdir / "result.nc", tree)
    page = write_word_report(tree, workdir)
    print("\n".join(word_summary(tree)))
    print(f"report: {page}")


if __name__ == "__main__":
    run(main)
