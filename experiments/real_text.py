"""Sharing over pre-training on real text: small models, several seeds, SIB-200 topics and PUD features.

    python -m experiments.real_text --data=DATA --workdir=runs/real_text

DATA holds `text/*.tsv.xz` (running text, columns text and lang), `sib200.tsv.xz` and `pud/*.conllu.xz`.
For each seed a 3M-parameter decoder is pre-trained on the running text of nine languages, Italian left
out, and traced over eight checkpoints on SIB-200 (ten languages, seven topics) and on PUD (nine languages,
grammatical features); neither was trained on. The runs are then combined: means over runs, intervals
between them. Every command is printed as it is run and can be run by hand; the same command on the same
--workdir goes on where it stopped. About 25 minutes a seed for training and 15 for tracing on 2 cores.
What it printed, and how to read it: `experiments/real_text.md`.
"""

from pathlib import Path

from absl import flags

from experiments._main import run, run_commands
from experiments._real import PUD, TEXTS
from xlingjax.errors import InputError

FLAGS = flags.FLAGS

flags.DEFINE_string("data", None, "folder with text/, sib200.tsv.xz and pud/", required=True)
flags.DEFINE_string("workdir", "runs/real_text", "folder of all runs; resumes what is there")
flags.DEFINE_list("seeds", ["0", "1", "2"], "pre-training seeds, the replicates; two at least")
flags.DEFINE_integer("steps", 1536, "pre-training steps of 4,096 tokens")

TRAINED = ("eng", "deu", "fra", "spa", "rus", "tur", "hin", "ara", "fas")
LEFT_OUT = "ita"
FLORES = ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn", "ita_Latn", "rus_Cyrl", "tur_Latn", "hin_Deva",
          "arb_Arab", "pes_Arab")
FIRST = 32  # the first trained checkpoint that is traced; before it hardly a weight has moved


def traced(steps: int) -> list[str]:
    """The checkpoints that are traced: untrained, powers of two from FIRST, the last.

    >>> traced(1536)
    ['0', '32', '64', '128', '256', '512', '1024', '1536']
    """
    powers = [1 << n for n in range(steps.bit_length()) if FIRST <= 1 << n <= steps]
    return [str(step) for step in sorted({0, *powers, steps})]


def commands(data: Path, workdir: Path, seeds: list[str], steps: int) -> list[list[str]]:
    """The commands of the whole experiment, in order; the arguments of `python -m`."""
    texts = ",".join(str(data / "text" / f"{name}.tsv.xz") for name in TEXTS)
    out = []
    for seed in seeds:
        home = workdir / f"seed{seed}"
        out.append(["experiments.pretrain", f"--workdir={home / 'pretrain'}", f"--seed={seed}",
                    f"--corpus={texts}", f"--languages={','.join((*TRAINED, LEFT_OUT))}",
                    f"--leave_out={LEFT_OUT}", "--vocabulary=8000", "--layers=6", "--width=160", "--heads=5",
                    "--length=128", "--batch_tokens=4096", f"--steps={steps}", "--learning_rate=2e-3",
                    "--checkpoint_every=512"])
        common = ["experiments.trace", f"--model={home / 'pretrain'}", f"--revisions={','.join(traced(steps))}",
                  "--tokens_per_step=4096", f"--seed={seed}"]
        out.append([*common, f"--concepts={data / 'sib200.tsv.xz'}", f"--languages={','.join(FLORES)}",
                    "--unseen=ita_Latn", "--probe_tokens=400", f"--workdir={home / 'sib200'}"])
        out.append([*common, f"--concepts={data / 'pud'}", f"--languages={','.join(PUD)}", f"--unseen={LEFT_OUT}",
                    "--noprobe", f"--workdir={home / 'pud'}"])
    for name in ("sib200", "pud"):
        traces = ",".join(str(workdir / f"seed{seed}" / name) for seed in seeds)
        out.append(["experiments.replicates", f"--traces={traces}", f"--workdir={workdir / name}"])
    return out


def main() -> None:
    data, workdir = Path(FLAGS.data), Path(FLAGS.workdir)
    for name in [*(f"text/{text}.tsv.xz" for text in TEXTS), "sib200.tsv.xz", "pud"]:
        if not (data / name).exists():
            raise InputError(f"--data={data} lacks {name}; the head of experiments/real_text.py lists what it needs")
    seeds = list(FLAGS.seeds)
    if len(set(seeds)) < 2 or not all(seed.isdigit() for seed in seeds):
        raise InputError(f"--seeds={','.join(seeds)}: give two or more different whole numbers")
    if FLAGS.steps < FIRST:
        raise InputError(f"--steps={FLAGS.steps}; it must be {FIRST} or more")
    run_commands(commands(data, workdir, seeds, FLAGS.steps))


if __name__ == "__main__":
    run(main)
