"""Do languages represent translations alike, in which layer, and when? Thirteen measures beside shuffled translations.

    python -m experiments.align

pre-trains a small model on the embedded corpus, measures the alignment of its languages at every checkpoint, and ends
with `runs/align/report.html`. The same on published checkpoints and a parallel corpus (treebanks with parallel ids such
as PUD, a SIB-200 table, or a table with columns id, lang and text):

    python -m experiments.align --model=EleutherAI/pythia-160m --revisions=step1000,step143000 --parallel=pud \\
        --workdir=runs/align_pythia

With --trace=RESULT.nc, of experiments.trace on some of the languages, the measures are compared with the overlap of
experts. The same command on the same --workdir goes on where it stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import xarray as xr
from absl import flags

from experiments import _checkpoints
from experiments._checkpoints import checkpoints, refuse_present
from experiments._embedded import UNSEEN, pretrained
from experiments._main import run
from experiments._results import read_result
from xlingjax.analyses.alignment import POOLS, AlignSettings, align
from xlingjax.analyses.results import write_tree
from xlingjax.analyses.sources import Source
from xlingjax.corpora import Corpus, mini_world, read_conllu, read_parallel, read_sib200
from xlingjax.errors import InputError
from xlingjax.report.align_page import align_summary, write_align_report

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_checkpoints)
_S = AlignSettings()

flags.DEFINE_string("workdir", "runs/align", "folder of the run; resumes what is there")
flags.DEFINE_string("parallel", None, "parallel corpus: folder of treebanks, SIB-200 table, or id-lang-text table")
flags.DEFINE_list("languages", [], "languages; all by default")
flags.DEFINE_list("unseen", [], "languages that training did not see; Swahili in the embedded corpus")
flags.DEFINE_enum("pool", _S.pool, list(POOLS), "how tokens become one vector: mean weighted by position, mean, last")
flags.DEFINE_integer("sentences", _S.sentences, "of each language, at most")
flags.DEFINE_integer("shuffles", _S.shuffles, "pairings of the null")
flags.DEFINE_integer("tuned", _S.tuned, "steps of a tuned lens through which layers are read; 0 = the logit lens")
flags.DEFINE_string("trace", None, "result.nc of experiments.trace, whose expert overlap is compared")
flags.DEFINE_integer("seed", _S.seed, "of pre-training, of drawn documents and of shuffles")
flags.DEFINE_integer("pretrain_steps", 512, "steps of the embedded corpus's model")

NAMED = (*_checkpoints.NAMED, "parallel")


def embedded(workdir: Path) -> tuple[tuple[Source, ...], Corpus]:
    """Pre-trains on the embedded corpus; its checkpoints and its probe sentences."""
    refuse_present(NAMED, "needs --model, the checkpoints to compare")
    corpus = mini_world("probe")
    corpus = corpus.language(*FLAGS.languages) if FLAGS.languages else corpus
    return pretrained(workdir, say, lambda steps: steps), corpus


def named() -> tuple[tuple[Source, ...], Corpus]:
    """The checkpoints and the corpus that flags name."""
    if FLAGS.model and FLAGS.parallel is None:
        raise InputError("--model needs --parallel: a folder of treebanks, a SIB-200 table or an id-lang-text table")
    return checkpoints(), read_corpus(FLAGS.parallel)


def read_corpus(name: str) -> Corpus:
    """A folder of treebanks, a SIB-200 table, or a table of translations, by what is there."""
    path, languages = Path(name), FLAGS.languages or None
    if not path.exists():
        raise InputError(f"--parallel={name} does not exist; give a folder of treebanks or a table")
    if path.is_dir():
        return read_conllu(sorted(path.glob("*.conllu*")), languages=languages, parallel=True)
    return read_sib200(path, languages) if path.name.startswith("sib200") else read_parallel(path, languages)


def expert_overlap(languages: Sequence[str]) -> xr.DataArray:
    """Overlap of experts between languages at the last checkpoint of --trace, mean over concepts of all groups."""
    experts = read_result("trace", "trace")["experts"]
    assert isinstance(experts, xr.DataTree)
    groups = [node.to_dataset(inherit=False) for node in experts.children.values()]
    means = [one["overlap_mean"].isel(checkpoint=-1, adjustment=0).sel(k=one.attrs["k"]) for one in groups]
    overlap = sum(means[1:], start=means[0]) / len(means)
    common = [name for name in overlap["language"].values if name in languages]
    if len(common) < 3:
        raise InputError(f"--trace={FLAGS.trace} has {', '.join(common) or 'none'} of the languages "
                         f"{', '.join(languages)}; give a trace with three of them or more")
    return overlap


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    workdir = Path(FLAGS.workdir)
    unseen = tuple(FLAGS.unseen) or (UNSEEN if FLAGS.model is None else ())
    settings = AlignSettings(FLAGS.pool, FLAGS.sentences, FLAGS.shuffles, unseen, FLAGS.tuned, FLAGS.dtype,
                             FLAGS.batch_tokens, FLAGS.seed)
    if FLAGS.trace is not None:
        read_result("trace", "trace")  # what cannot be used is said before anything is computed
    found, corpus = embedded(workdir) if FLAGS.model is None else named()
    overlap = None if FLAGS.trace is None else expert_overlap(corpus.language_names)
    tree = align(found, corpus, settings, workdir / "align", tokenizer=FLAGS.tokenizer, say=say)
    write_tree(workdir / "result.nc", tree)
    page = write_align_report(tree, workdir, overlap)
    print("\n".join(align_summary(tree)))
    print(f"report: {page}")


if __name__ == "__main__":
    run(main)
