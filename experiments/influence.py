"""Which training sequences made the model say this, and do sequences of other languages count?

    python -m experiments.influence

pre-trains a small model on the embedded corpus, fits EK-FAC factors at its first and last checkpoint, scores the
training sequences for queries in all languages, ranks translations among other sentences of their length, and ends
with `runs/influence/report.html`. The same for published checkpoints, a sample of their training text and parallel
sentences:

    python -m experiments.influence --model=bigscience/bloom-560m-intermediate \\
        --revisions=global_step10000,global_step400000 --tokenizer=bigscience/bloom-560m --texts=TEXT.tsv \\
        --parallel=FOLDER_OF_TREEBANKS --workdir=runs/influence_bloom

Factors, gradients of queries and scores are kept in the workdir: the same command on the same --workdir goes on where
it stopped.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from absl import flags

from experiments import _checkpoints
from experiments._checkpoints import checkpoints, refuse_present
from experiments._embedded import UNSEEN, pretrained
from experiments._main import run
from xlingjax.analyses.influence import InfluenceSettings, Queries, read_queries, trace_influence
from xlingjax.analyses.influence.summary import summary
from xlingjax.analyses.results import write_tree
from xlingjax.analyses.sources import Source
from xlingjax.corpora import Corpus, mini_world, read_conllu, read_parallel, read_text
from xlingjax.errors import InputError
from xlingjax.influence.factors import LABELS, FactorSettings
from xlingjax.influence.matrices import GROUPS
from xlingjax.report.influence_page import write_influence_report

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_checkpoints)
_S, _F = InfluenceSettings(), FactorSettings()

flags.DEFINE_string("workdir", "runs/influence", "folder of the run; resumes what is there")
flags.DEFINE_list("texts", [], "tables of training text, a sequence a row; the embedded corpus by default")
flags.DEFINE_string("parallel", None, "translated sentences that training has not seen: a folder of treebanks, or a "
                    "table with columns id, lang and text")
flags.DEFINE_string("queries", None, "table with columns language, prompt, completion and, shared by translations, id; "
                    "by default sentences of --parallel, their first half the prompt")
flags.DEFINE_list("languages", [], "languages; all by default")
flags.DEFINE_integer("asked", _S.asked, "sentences of --parallel that are queries, in every language")
flags.DEFINE_integer("pairs", _S.pairs, "sentences of --parallel that translations are ranked on")
flags.DEFINE_integer("distractors", _S.distractors, "sentences of its length that a translation is ranked among")
flags.DEFINE_integer("permutations", _S.permutations, "draws of the null")
flags.DEFINE_integer("fitted", _S.fitted, "training sequences that factors are fitted on")
flags.DEFINE_integer("length", _S.length, "most tokens of a sequence")
flags.DEFINE_integer("candidates", _S.candidates, "sequences scored for a query, those that share the rarest tokens "
                     "with it or, with --components, the nearest by stored gradients; 0 = all")
flags.DEFINE_integer("components", _S.components, "of each matrix's gradients that are kept on disk to find "
                     "candidates; 0 = none")
flags.DEFINE_integer("rank", _S.rank, "of query gradients while all sequences are scored; 0 = whole")
flags.DEFINE_integer("rescored", _S.rescored, "best and worst sequences of a query scored again with whole gradients")
flags.DEFINE_integer("shown", _S.shown, "of these, shown on the page")
flags.DEFINE_list("matrices", list(_F.groups), f"whose gradients count: {', '.join(GROUPS)}")
flags.DEFINE_enum("labels", _F.labels, list(LABELS), "of the factors: drawn from the model, or the true next tokens")
flags.DEFINE_integer("covariance_blocks", _F.blocks, "diagonal blocks of each covariance; several make the eigenbases "
                     "of wide matrices affordable")
flags.DEFINE_integer("seed", 0, "of pre-training, sampled labels, distractors and permutations")
flags.DEFINE_integer("pretrain_steps", 1024, "steps of the embedded corpus's model")

NAMED = (*_checkpoints.NAMED, "texts", "parallel")
SENTENCES = 1500  # of the embedded training text in each language, that are scored


class Inputs(NamedTuple):
    """What an experiment is about."""

    found: tuple[Source, ...]
    texts: Corpus
    parallel: Corpus


def embedded(workdir: Path) -> Inputs:
    """The first and the last checkpoint of pre-training on the embedded corpus, and its probe sentences."""
    refuse_present(NAMED, "needs --model, the checkpoints to ask")
    languages = tuple(FLAGS.languages) or None
    probe = mini_world("probe", languages=languages)
    trained = [name for name in probe.language_names if name not in UNSEEN]
    found = pretrained(workdir, say, lambda steps: list(dict.fromkeys([steps[0], steps[-1]])))
    return Inputs(found, mini_world("train", languages=trained, sentences=SENTENCES), probe)


def named() -> Inputs:
    """The checkpoints and texts that flags name."""
    if not FLAGS.texts:
        raise InputError("--model needs --texts, tables of the text that it was trained on or of a sample")
    if FLAGS.parallel is None:
        raise InputError("--model needs --parallel, translated sentences: a folder of treebanks or a table")
    languages, path = FLAGS.languages or None, Path(FLAGS.parallel)
    if not path.exists():
        raise InputError(f"--parallel={path} does not exist; give a folder of CoNLL-U files or a table")
    parallel = read_conllu(sorted(path.glob("*.conllu*")), languages=languages, parallel=True) if path.is_dir() \
        else read_parallel(path, languages)
    return Inputs(checkpoints(), read_text([Path(name) for name in FLAGS.texts]), parallel)


def queries() -> Queries | None:
    if FLAGS.queries is None:
        return None
    if not Path(FLAGS.queries).is_file():
        raise InputError(f"--queries={FLAGS.queries} is no file; give a table of language, prompt and completion")
    return read_queries(FLAGS.queries)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    workdir = Path(FLAGS.workdir)
    factors = FactorSettings(tuple(FLAGS.matrices), FLAGS.labels, FLAGS.covariance_blocks,
                             batch_tokens=FLAGS.batch_tokens, seed=FLAGS.seed)
    settings = InfluenceSettings(
        factors, FLAGS.fitted, FLAGS.length, FLAGS.candidates, FLAGS.rank, FLAGS.rescored, FLAGS.shown,
        asked=FLAGS.asked, pairs=FLAGS.pairs, distractors=FLAGS.distractors, permutations=FLAGS.permutations,
        components=FLAGS.components, batch_tokens=FLAGS.batch_tokens, dtype=FLAGS.dtype, seed=FLAGS.seed)
    asked = queries()
    inputs = embedded(workdir) if FLAGS.model is None else named()
    tree = trace_influence(inputs.found, inputs.texts, inputs.parallel, settings, workdir / "influence", queries=asked,
                           tokenizer=FLAGS.tokenizer, say=say)
    write_tree(workdir / "result.nc", tree)
    said = summary(tree)
    page = write_influence_report(tree, workdir, said)
    print("\n".join(said))
    print(f"report: {page}")


if __name__ == "__main__":
    run(main)
