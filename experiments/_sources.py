"""The flags by which several experiments are told their checkpoints, their corpus and their neurons."""

import dataclasses
from pathlib import Path

from absl import flags

from experiments import _checkpoints
from experiments._checkpoints import checkpoints
from xlingjax.analyses.sources import Source
from xlingjax.analyses.trace.settings import TraceSettings
from xlingjax.corpora import Corpus, read_concepts, read_conllu, read_sib200
from xlingjax.errors import InputError

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_checkpoints)
_T = TraceSettings()

flags.DEFINE_string("concepts", None, "folder of concepts, SIB-200 table, or folder of treebanks")
flags.DEFINE_list("languages", [], "languages to trace; all by default")
flags.DEFINE_list("sites", [], "where neurons are; the outputs of the model's linear maps by default")
flags.DEFINE_enum("pool", _T.pool, ["max", "mean", "last"], "how a sentence's tokens become one response")
flags.DEFINE_integer("k", None, "neurons in an expert set; by default 500 in 221,184, at least 20")

NAMED = (*_checkpoints.NAMED, "concepts")


def named() -> tuple[tuple[Source, ...], Corpus]:
    """The checkpoints and the corpus that flags name."""
    if FLAGS.model and FLAGS.concepts is None:
        raise InputError("--model needs --concepts: a folder of concepts, a SIB-200 table or treebanks")
    return checkpoints(), read_corpus(FLAGS.concepts)


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
