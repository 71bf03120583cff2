"""Influence in a model of real text: PUD's sentences as queries, its own training text as what might have taught them.

    python -m experiments.real_influence --data=DATA --pretrained=runs/real_text/seed0/pretrain

takes a model of `experiments.real_text` (Italian was left out of its training) and asks it, at three checkpoints, which
of its training texts made it complete sentences of PUD as it does, and whether a sentence's translation counts for more
than other sentences of its length. DATA holds `text/` and `pud/`. The command is printed as it is run and can be run by
hand; the same command on the same --workdir goes on where it stopped. What it printed, and how to read it:
`experiments/real_influence.md`.
"""

from pathlib import Path

from absl import flags

from experiments._main import run, run_commands
from experiments._real import PUD, TEXTS
from xlingjax.errors import InputError

FLAGS = flags.FLAGS

flags.DEFINE_string("data", None, "folder with text/ and pud/", required=True)
flags.DEFINE_string("pretrained", None, "a run of experiments.real_text's pre-training", required=True)
flags.DEFINE_string("workdir", "runs/real_influence", "folder of the run; resumes what is there")
flags.DEFINE_list("checkpoints", ["0", "256", "1536"], "steps of --pretrained")
flags.DEFINE_integer("sequences", 4000, "training texts that are scored, drawn at random")
flags.DEFINE_integer("pairs", 60, "sentences of PUD that translations are ranked on, in every language")
flags.DEFINE_integer("seed", 0, "of the draws")


def command(data: Path, pretrained: Path, workdir: Path) -> list[str]:
    """The arguments of `python -m`."""
    texts = ",".join(str(data / "text" / f"{name}.tsv.xz") for name in TEXTS)
    return ["experiments.influence", f"--model={pretrained}", f"--revisions={','.join(FLAGS.checkpoints)}",
            f"--texts={texts}", f"--parallel={data / 'pud'}", f"--languages={','.join(PUD)}", "--unseen=ita",
            f"--sequences={FLAGS.sequences}", "--fitted=2000", "--length=128", f"--pairs={FLAGS.pairs}", "--asked=4",
            f"--seed={FLAGS.seed}", f"--workdir={workdir}"]


def main() -> None:
    data, pretrained = Path(FLAGS.data), Path(FLAGS.pretrained)
    for name in (*(f"text/{text}.tsv.xz" for text in TEXTS), "pud"):
        if not (data / name).exists():
            raise InputError(
                f"--data={data} lacks {name}; experiments/real_influence.py says in its head what it needs")
    if not pretrained.is_dir():
        raise InputError(f"--pretrained={pretrained} is no folder; run experiments.real_text first and give its "
                         "seed0/pretrain")
    run_commands([command(data, pretrained, Path(FLAGS.workdir))])


if __name__ == "__main__":
    run(main)
