"""Which language answers when a concept's neurons are forced, and is it the neurons? Text beside all controls.

    python -m experiments.steer

pre-trains a small model on the embedded corpus, finds the experts of a concept in one language, forces them while
the model writes, at an early and a late checkpoint, and ends with `runs/steer/report.html`. The same on published
checkpoints:

    python -m experiments.steer --model=bigscience/bloom-560m-intermediate \\
        --revisions=global_step10000,global_step400000 --tokenizer=bigscience/bloom-560m --concepts=FOLDER \\
        --source_language=spa --concept=dog --judge=library --workdir=runs/steer_bloom

Beside the forced texts stand those of the same seeds unforced, unforced at the temperature that makes them as unlikely,
with random neurons of the same layers and sites that move the residual stream as far, with experts of another concept,
with experts that two languages share and those of one alone, and with fewer and more experts. Then each language's own
neurons are switched on. The same command on the same --workdir goes on where it stopped.
"""

import sys
from pathlib import Path

from absl import flags

from experiments import _sources
from experiments._checkpoints import refuse_present
from experiments._embedded import pretrained
from experiments._main import run
from experiments._sources import NAMED, named
from xlingjax.analyses.results import write_tree
from xlingjax.analyses.sources import Source
from xlingjax.analyses.steering import SteerSettings, steer
from xlingjax.analyses.steering.settings import POSITIONS, SWITCHES, VALUES
from xlingjax.corpora import Corpus, mini_world
from xlingjax.errors import InputError
from xlingjax.report.steer_page import steer_summary, write_steer_report

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(_sources)
_S = SteerSettings("", "")

flags.DEFINE_string("workdir", "runs/steer", "folder of the run; resumes what is there")
flags.DEFINE_string("source_language", "spa", "in which the experts are found, as the corpus names it")
flags.DEFINE_string("concept", "animals", "whose experts are forced")
flags.DEFINE_string("other_language", None, "whose experts are set apart as shared and its own; the first other one by "
                    "default")
flags.DEFINE_string("other_concept", None, "of the control; the first other concept of the same group by default")
flags.DEFINE_list("ks", [], "of the dose response; 1 to 2,000 by default")
flags.DEFINE_enum("value", _S.value, list(VALUES), "what neurons are forced to: a quantile or the mean of their "
                  "responses to positive sentences, zero, or their own value plus or times --amount")
flags.DEFINE_float("amount", _S.amount, "of --value=add (standard deviations) and --value=scale (a factor)")
flags.DEFINE_enum("positions", _S.positions, list(POSITIONS), "where: every token, the prompt, generated tokens, or "
                  "from the last prompt token on")
flags.DEFINE_string("prompts", None, "file with a prompt a line; by default texts begin from nothing")
flags.DEFINE_integer("seeds", _S.seeds, "texts a condition and prompt")
flags.DEFINE_integer("max_new_tokens", _S.max_new_tokens, "tokens of a text")
flags.DEFINE_float("temperature", _S.temperature, "of generation; 0 takes the likeliest token")
flags.DEFINE_integer("top_k", _S.top_k, "0 = all tokens")
flags.DEFINE_float("top_p", _S.top_p, "1 = all tokens")
flags.DEFINE_enum("switch", _S.switch, list(SWITCHES), "neurons of each language that are switched on: by both ends of "
                  "average precision, or by the entropy of activation")
flags.DEFINE_enum("judge", "ngrams", ["ngrams", "library"], "of languages: trained on the corpus, or py3langid")
flags.DEFINE_integer("batch_rows", _S.batch_rows, "texts written at once")
flags.DEFINE_integer("seed", 0, "of pre-training, splits, ties, controls and noise")
flags.DEFINE_integer("pretrain_steps", 1024, "steps of the embedded corpus's model")

EARLY = 256  # the first checkpoint of the embedded model that is steered
SENTENCES = 1200  # of the probe in each language: half of them find experts, a quarter trains judges


def embedded(workdir: Path) -> tuple[tuple[Source, ...], Corpus]:
    """Pre-trains on the embedded corpus; an early and the last checkpoint, and its probe sentences."""
    refuse_present(NAMED, "needs --model, the checkpoints to steer")
    corpus = mini_world("probe", sentences=SENTENCES)
    corpus = corpus.language(*FLAGS.languages) if FLAGS.languages else corpus
    return pretrained(workdir, say, lambda steps: sorted({min(EARLY, steps[-1]), steps[-1]})), corpus


def read_prompts(name: str | None) -> tuple[str, ...]:
    if name is None:
        return ()
    path = Path(name)
    if not path.is_file():
        raise InputError(f"--prompts={name} is no file; give one with a prompt a line")
    lines = tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise InputError(f"--prompts={name} holds no prompt; give one a line, or leave the flag out")
    return lines


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    workdir = Path(FLAGS.workdir)
    bad = [k for k in FLAGS.ks if not k.isdigit()]
    if bad:
        raise InputError(f"--ks has {bad[0]!r}; give whole numbers")
    settings = SteerSettings(
        FLAGS.concept, FLAGS.source_language, FLAGS.other_language, FLAGS.other_concept, FLAGS.k,
        tuple(map(int, FLAGS.ks)) or None, FLAGS.value, FLAGS.amount, FLAGS.positions, tuple(FLAGS.sites) or None,
        FLAGS.pool, read_prompts(FLAGS.prompts), FLAGS.seeds, FLAGS.max_new_tokens, FLAGS.temperature, FLAGS.top_k,
        FLAGS.top_p, FLAGS.switch, FLAGS.batch_rows, FLAGS.batch_tokens, FLAGS.dtype, seed=FLAGS.seed)
    found, corpus = embedded(workdir) if FLAGS.model is None else named()
    tree = steer(found, corpus, settings, workdir / "steer", judge=FLAGS.judge, tokenizer=FLAGS.tokenizer, say=say)
    write_tree(workdir / "result.nc", tree)
    page = write_steer_report(tree, workdir)
    print("\n".join(steer_summary(tree)))
    print(f"report: {page}")


if __name__ == "__main__":
    run(main)
