"""Which latents of a dictionary are plural, or past, in how many languages, and do later layers need them?

    python -m experiments.features

pre-trains a small model on the embedded corpus, trains a dictionary (sparse autoencoder) on the residual stream of its
first and last checkpoint, finds the latents of every grammatical value in every language, counts how many languages
share them beside three chances, takes them away beside all controls, steers with them, and ends with
`runs/features/report.html`. The same on published checkpoints and treebanks:

    python -m experiments.features --model=EleutherAI/pythia-160m --revisions=step1000,step143000 --treebanks=pud \\
        --texts=text.tsv --layer=6 --latents=8192 --k=32 --steps=20000 --workdir=runs/features_pythia

--texts is what the dictionary is trained on (tables with columns lang and text), by default the sentences of the
treebanks. The same command on the same --workdir goes on where it stopped.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from absl import flags

from experiments import _checkpoints
from experiments._checkpoints import checkpoints, refuse_present
from experiments._embedded import pretrained
from experiments._main import run
from xlingjax.analyses.features.run import DictionarySettings, as_corpus, last_checkpoint, trace_features
from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.analyses.features.steering import SteeringSettings
from xlingjax.analyses.features.summary import summary
from xlingjax.analyses.results import write_tree
from xlingjax.analyses.sources import Source
from xlingjax.corpora import Corpus, mini_world, mini_world_pairs, mini_world_words, read_text
from xlingjax.corpora.minimal_pairs import MinimalPairs, read_pairs
from xlingjax.corpora.words import Treebank, read_words
from xlingjax.errors import InputError
from xlingjax.report.feature_page import write_feature_report
from xlingjax.sae.config import KINDS
from xlingjax.sae.settings import TrainSettings

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_checkpoints)
_S, _D = FeatureSettings(), DictionarySettings()
FEATURES = ("Number", "Tense", "Gender", "Case", "Person", "Polarity")
EMBEDDED = ("Number", "Tense")

flags.DEFINE_string("workdir", "runs/features", "folder of the run; resumes what is there")
flags.DEFINE_string("treebanks", None, "folder of CoNLL-U files, LANGUAGE.conllu[.xz]; the embedded corpus by default")
flags.DEFINE_list("texts", [], "tables of text that dictionaries are trained on; the treebanks' sentences by default")
flags.DEFINE_list("languages", [], "languages; all by default")
flags.DEFINE_list("features", None, "grammatical features, as treebanks name them; by default "
                  f"{', '.join(FEATURES)}, of the embedded corpus {', '.join(EMBEDDED)}")
flags.DEFINE_string("site", _D.site, "what the dictionary reads")
flags.DEFINE_integer("layer", _D.layer, "of the site; -1 = the middle one")
flags.DEFINE_enum("kind", _D.kind, list(KINDS), "of dictionary")
flags.DEFINE_integer("latents", _D.latents, "of the dictionary")
flags.DEFINE_integer("k", _D.k, "active latents of a token, of kinds that take it")
flags.DEFINE_float("sparsity", _D.sparsity, "weight of the penalty, of kinds that have one")
flags.DEFINE_integer("steps", 1500, "of a dictionary's training")
flags.DEFINE_integer("step_tokens", _D.batch_tokens, "tokens of such a step")
flags.DEFINE_integer("top", _S.k, "latents of a language's top")
flags.DEFINE_integer("minimum", _S.minimum, "words with a value, and without, that a language needs; of two parts of "
                     "the documents each")
flags.DEFINE_integer("words", _S.words, "of either side and each part of the documents, at most")
flags.DEFINE_integer("attributed", 12, "words of either side that attribute latents to the last layer; 0 = none")
flags.DEFINE_integer("pairs", 40, "minimal pairs of each language and feature, at most; 0 = none")
flags.DEFINE_bool("steer", True, "steer what the last checkpoint writes")
flags.DEFINE_integer("seed", 0, "of pre-training, dictionaries, documents and controls")
flags.DEFINE_integer("pretrain_steps", 512, "steps of the embedded corpus's model")

NAMED = (*_checkpoints.NAMED, "treebanks", "texts")
SENTENCES = 900  # of the embedded probe in each language


class Inputs(NamedTuple):
    """What an experiment is about."""

    found: tuple[Source, ...]
    texts: Corpus
    bank: Treebank
    pairs: MinimalPairs | None


def embedded(workdir: Path) -> Inputs:
    """The first and the last checkpoint of pre-training on the embedded corpus; words of its probe."""
    refuse_present(NAMED, "needs --model, the checkpoints to ask")
    languages = tuple(FLAGS.languages) or None
    bank = mini_world_words("probe", languages=languages, sentences=SENTENCES, tasks=FLAGS.features or EMBEDDED)
    found = pretrained(workdir, say, lambda steps: list(dict.fromkeys([steps[0], steps[-1]])))
    made = mini_world_pairs("probe", languages=languages, sentences=SENTENCES) if FLAGS.pairs else None
    return Inputs(found, mini_world("train", languages=languages), bank, made)


def named() -> Inputs:
    """The checkpoints, texts and treebanks that flags name."""
    if FLAGS.treebanks is None:
        raise InputError("--model needs --treebanks, a folder of CoNLL-U files whose words show grammatical features")
    path = Path(FLAGS.treebanks)
    if not path.exists():
        raise InputError(f"--treebanks={path} does not exist; give a folder of CoNLL-U files")
    languages = FLAGS.languages or None
    bank = read_words(path, FLAGS.features or FEATURES, languages)
    texts = as_corpus(bank)
    if FLAGS.texts:
        texts = read_text([Path(name) for name in FLAGS.texts], languages=languages)
    return Inputs(checkpoints(), texts, bank, read_pairs(path, languages=languages) if FLAGS.pairs else None)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    workdir = Path(FLAGS.workdir)
    quick = FLAGS.steps // 10
    trained = DictionarySettings(
        FLAGS.site, FLAGS.layer, FLAGS.kind, FLAGS.latents, FLAGS.k, FLAGS.sparsity, batch_tokens=FLAGS.step_tokens,
        seed=FLAGS.seed, train=TrainSettings(
            steps=FLAGS.steps, warm_up=quick, decay=2 * quick, sparsity_warm_up=2 * quick, threshold_from=2 * quick,
            dead_after=max(1, FLAGS.steps // 5 * FLAGS.step_tokens)))
    settings = FeatureSettings(
        k=FLAGS.top, minimum=FLAGS.minimum, words=FLAGS.words, attributed=FLAGS.attributed, steps=8, exact=8,
        batch_tokens=FLAGS.batch_tokens, seed=FLAGS.seed)
    inputs = embedded(workdir) if FLAGS.model is None else named()
    tree = trace_features(
        inputs.found, inputs.texts, inputs.bank, trained, settings, workdir / "features",
        pairs=None if inputs.pairs is None else inputs.pairs.few(FLAGS.pairs, FLAGS.seed),
        steering=SteeringSettings(seed=FLAGS.seed) if FLAGS.steer else None, dtype=FLAGS.dtype,
        tokenizer=FLAGS.tokenizer, say=say)
    write_tree(workdir / "result.nc", tree)
    said = summary(last_checkpoint(tree))
    page = write_feature_report(tree, workdir, said)
    print("\n".join(said))
    print(f"report: {page}")


if __name__ == "__main__":
    run(main)
