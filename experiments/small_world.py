"""The quick start over several seeds, and in worlds with more, fewer and no shared words.

    python -m experiments.small_world

traces the embedded corpus for five seeds and combines them, then one run each in worlds where 0, 5 and
30 % of the nouns are shared (15 % by default) and in one where every language has topics of its own.
Where no word is shared nothing may be claimed; each run's `report.html` says what was found. The same
command goes on where it stopped. About 3 minutes a run on 2 cores.
What it printed, and how to read it: `experiments/small_world.md`.
"""

from pathlib import Path

from absl import flags

from experiments._main import run, run_commands
from xlingjax.errors import InputError

FLAGS = flags.FLAGS

flags.DEFINE_string("workdir", "runs/small_world", "folder of all runs; resumes what is there")
flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "seeds of the default world, the replicates; two at least")

WORLDS = ("--dose=0", "--dose=0.05", "--dose=0.3", "--topics=unlike")


def commands(workdir: Path, seeds: list[str]) -> list[list[str]]:
    """The commands of the whole experiment, in order; the arguments of `python -m`.

    >>> for line in commands(Path("runs"), ["0", "1"]): print(*line)
    experiments.trace --seed=0 --workdir=runs/seed0
    experiments.trace --seed=1 --workdir=runs/seed1
    experiments.replicates --traces=runs/seed0,runs/seed1 --workdir=runs/all
    experiments.trace --dose=0 --workdir=runs/dose=0
    experiments.trace --dose=0.05 --workdir=runs/dose=0.05
    experiments.trace --dose=0.3 --workdir=runs/dose=0.3
    experiments.trace --topics=unlike --workdir=runs/topics=unlike
    """
    traces = [workdir / f"seed{seed}" for seed in seeds]
    out = [["experiments.trace", f"--seed={seed}", f"--workdir={folder}"]
           for seed, folder in zip(seeds, traces)]
    out.append(["experiments.replicates", f"--traces={','.join(map(str, traces))}", f"--workdir={workdir / 'all'}"])
    return out + [["experiments.trace", flag, f"--workdir={workdir / flag.removeprefix('--')}"]
                  for flag in WORLDS]


def main() -> None:
    seeds = list(FLAGS.seeds)
    if len(set(seeds)) < 2 or not all(seed.isdigit() for seed in seeds):
        raise InputError(f"--seeds={','.join(seeds)}: give two or more different whole numbers")
    run_commands(commands(Path(FLAGS.workdir), seeds))


if __name__ == "__main__":
    run(main)
