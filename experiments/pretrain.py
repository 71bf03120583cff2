"""Pre-trains a small multilingual language model and keeps it at powers of two steps.

    python -m experiments.pretrain --workdir=runs/world

trains a 0.5M-parameter decoder on the embedded corpus. On your own text, German left out:

    python -m experiments.pretrain --workdir=runs/text --corpus=text/a.tsv.xz,text/b.tsv.xz \\
        --languages=eng,fra,spa,rus,tur,hin,fas,ita,deu --leave_out=deu --vocabulary=10000 \\
        --layers=6 --width=192 --heads=6 --length=128 --batch_tokens=4096 --steps=4096 \\
        --learning_rate=2e-3

The same command on the same folder resumes, to the bytes of an unbroken run. In the folder:
`checkpoints/<step>/`, which `xl.load_model(workdir, revision="<step>")` reads, and `metrics.jsonl`,
the loss of every language at every checkpoint.
"""

import sys

from absl import flags

from experiments._main import run
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.running_text import read_text
from xlingjax.corpora.world import mini_world
from xlingjax.errors import InputError
from xlingjax.training.loop import pretrain, read_metrics
from xlingjax.training.optimiser import SCHEDULES, OptimiserSettings
from xlingjax.training.settings import Settings
from xlingjax.training.shapes import OBJECTIVE, small_config

FLAGS = flags.FLAGS
_S, _O = Settings(), OptimiserSettings()

flags.DEFINE_string("workdir", None, "folder of the run; resumes what is there", required=True)
flags.DEFINE_integer("seed", _S.seed, "of parameters, batches and held-out documents")
flags.DEFINE_list(
    "corpus", ["mini_world"], "mini_world, or files and folders of running text (.txt, .tsv)"
)
flags.DEFINE_float(
    "dose", 0.15, "share of nouns that mini_world's languages have in common, 0 to 0.3"
)
flags.DEFINE_list("languages", [], "languages to use; all by default")
flags.DEFINE_list("leave_out", [], "languages never trained on, evaluated all the same")
flags.DEFINE_float(
    "temperature", _S.temperature, "languages are sampled by tokens ** temperature, 0 to 1"
)
flags.DEFINE_enum(
    "family", "bloom", list(OBJECTIVE), "the model; xlm_roberta is an encoder trained as masked LM"
)
flags.DEFINE_enum(
    "objective", None, ["causal", "masked"], "what is predicted; by default what fits the family"
)
flags.DEFINE_integer("layers", 4, "blocks of the model")
flags.DEFINE_integer("width", 96, "units of the residual stream")
flags.DEFINE_integer("heads", 4, "attention heads; divides --width")
flags.DEFINE_integer("vocabulary", _S.vocabulary, "pieces of the tokenizer that is trained first")
flags.DEFINE_integer("steps", _S.steps, "updates")
flags.DEFINE_integer("batch_tokens", _S.batch_tokens, "tokens in one step; a multiple of --length")
flags.DEFINE_integer("length", _S.length, "tokens in one row")
flags.DEFINE_float("learning_rate", _O.learning_rate, "highest, after warm-up")
flags.DEFINE_integer("warm_up", _O.warm_up, "steps of linear rise")
flags.DEFINE_enum("schedule", _O.schedule, list(SCHEDULES), "learning rate after warm-up")
flags.DEFINE_float("weight_decay", _O.weight_decay, "of weight matrices and embeddings")
flags.DEFINE_float("held_out", _S.held_out, "share of the documents held out for evaluation")
flags.DEFINE_integer(
    "evaluated", _S.evaluated, "most held-out tokens a language, at each checkpoint"
)
flags.DEFINE_integer(
    "checkpoint_every",
    _S.checkpoint_every,
    "a checkpoint every so many steps, beside the powers of two; 0 = none",
)
flags.DEFINE_integer("save_every", _S.save_every, "steps between saves of the training state")


def read_corpus() -> Corpus:
    """The training text that the flags name."""
    languages = FLAGS.languages or None
    if FLAGS.corpus == ["mini_world"]:
        return mini_world("train", dose=FLAGS.dose, languages=languages)
    if "mini_world" in FLAGS.corpus:
        raise InputError("--corpus mixes mini_world with files; give one of them")
    return read_text(FLAGS.corpus, languages=languages)


def main() -> None:
    if not 0 < FLAGS.length <= FLAGS.batch_tokens or FLAGS.batch_tokens % FLAGS.length:
        raise InputError(
            f"--batch_tokens={FLAGS.batch_tokens} is no multiple of --length={FLAGS.length}"
        )
    settings = Settings(
        steps=FLAGS.steps,
        rows=FLAGS.batch_tokens // FLAGS.length,
        length=FLAGS.length,
        objective=FLAGS.objective or OBJECTIVE[FLAGS.family],
        vocabulary=FLAGS.vocabulary,
        temperature=FLAGS.temperature,
        leave_out=tuple(FLAGS.leave_out),
        held_out=FLAGS.held_out,
        evaluated=FLAGS.evaluated,
        checkpoint_every=FLAGS.checkpoint_every,
        save_every=FLAGS.save_every,
        seed=FLAGS.seed,
        optimiser=OptimiserSettings(
            learning_rate=FLAGS.learning_rate,
            warm_up=FLAGS.warm_up,
            schedule=FLAGS.schedule,
            weight_decay=FLAGS.weight_decay,
        ),
    )
    config = small_config(
        FLAGS.family, FLAGS.layers, FLAGS.width, FLAGS.heads, max(512, FLAGS.length)
    )
    checkpoints = pretrain(
        read_corpus(),
        config,
        settings,
        FLAGS.workdir,
        family=FLAGS.family,
        show=lambda text: print(text, file=sys.stderr),
    )
    lines = [line for line in read_metrics(FLAGS.workdir) if "held_out_loss" in line]
    languages = list(lines[-1]["held_out_loss"])
    print("held-out loss, nats per target")
    print(f"{'step':>8}", *(f"{language:>8.8}" for language in languages))
    for line in lines:
        print(
            f"{line['step']:>8}",
            *(f"{line['held_out_loss'][language]:8.3f}" for language in languages),
        )
    print(f"{len(checkpoints)} checkpoints in {checkpoints[-1].folder.parent}")


if __name__ == "__main__":
    run(main)
