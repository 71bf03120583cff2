"""Grammatical features in a model of real text: a dictionary of its last checkpoint, PUD and three larger treebanks.

    python -m experiments.real_features --data=DATA --pretrained=runs/real_text/seed0/pretrain

takes a model of `experiments.real_text` (Italian was left out of its training), trains a dictionary on the running text
that the model was trained on, and asks it for grammatical values of words in PUD, nine languages, which neither was
trained on; then for those of English EWT, German GSD and Turkish BOUN. DATA holds `text/`, `pud/` and `ud/`. Every
command is printed as it is run and can be run by hand; the same command on the same --workdir goes on where it
stopped. What it printed, and how to read it: `experiments/real_features.md`.
"""

from pathlib import Path

from absl import flags

from experiments._main import run, run_commands
from experiments._real import PUD, TEXTS
from xlingjax.errors import InputError

FLAGS = flags.FLAGS
UD = ("eng", "deu", "tur")  # of EWT, GSD and BOUN; the dictionary too is trained on these alone

flags.DEFINE_string("data", None, "folder with text/, pud/ and ud/", required=True)
flags.DEFINE_string("pretrained", None, "a run of experiments.real_text's pre-training", required=True)
flags.DEFINE_string("workdir", "runs/real_features", "folder of all runs; resumes what is there")
flags.DEFINE_list("checkpoints", ["1536"], "for PUD; the last of them for the other treebanks too")
flags.DEFINE_list("features", ["Number", "Tense", "Gender"], "grammatical features, as treebanks name them")
flags.DEFINE_integer("seed", 0, "of dictionaries, documents and controls")


def commands(data: Path, pretrained: Path, workdir: Path, steps: list[str], features: list[str],
             seed: int) -> list[list[str]]:
    """The commands of the whole experiment, in order; the arguments of `python -m`.

    >>> for line in commands(Path("D"), Path("P"), Path("W"), ["8", "16"], ["Number"], 0): print(line[2:4])
    ['--revisions=8,16', '--treebanks=D/pud']
    ['--revisions=16', '--treebanks=D/ud']
    """
    texts = ",".join(str(data / "text" / f"{name}.tsv.xz") for name in TEXTS)
    common = [f"--features={','.join(features)}", f"--texts={texts}", "--kind=batch_topk", "--latents=2048", "--k=16",
              "--steps=3000", "--words=128", f"--seed={seed}"]
    model = ["experiments.features", f"--model={pretrained}"]
    return [
        [*model, f"--revisions={','.join(steps)}", f"--treebanks={data / 'pud'}", f"--languages={','.join(PUD)}",
         *common, f"--workdir={workdir / 'pud'}"],
        [*model, f"--revisions={steps[-1]}", f"--treebanks={data / 'ud'}",
         f"--languages={','.join(UD)}", *common, "--attributed=0", "--nosteer",
         f"--workdir={workdir / 'ud'}"]]


def main() -> None:
    data, pretrained = Path(FLAGS.data), Path(FLAGS.pretrained)
    for name in (*(f"text/{text}.tsv.xz" for text in TEXTS), "pud", "ud"):
        if not (data / name).exists():
            raise InputError(f"--data={data} lacks {name}; experiments/real_features.py says in its head what it needs")
    if not pretrained.is_dir():
        raise InputError(f"--pretrained={pretrained} is no folder; run experiments.real_text first and give its "
                         "seed0/pretrain")
    for name, values in (("checkpoints", FLAGS.checkpoints), ("features", FLAGS.features)):
        if not values:
            raise InputError(f"--{name} is empty; name one at least")
    run_commands(commands(data, pretrained, Path(FLAGS.workdir), list(FLAGS.checkpoints), list(FLAGS.features),
                          FLAGS.seed))


if __name__ == "__main__":
    run(main)
