"""Combines traces of several pre-training runs: means, intervals between runs, one report.

    for seed in 0 1 2 3 4; do
        python -m experiments.trace --seed=$seed --workdir=runs/seed$seed
    done
    python -m experiments.replicates --traces=runs/seed0,runs/seed1,runs/seed2,runs/seed3,runs/seed4 \\
        --workdir=runs/replicates

A single run is descriptive: its intervals are over documents and concepts, and another seed may give
another curve. Here the run is the unit, intervals are Student's t between runs, and every run's own
numbers stand in the report beside the mean. Runs must be traced on the same corpus, at the same steps
and, but for the seed, with the same settings; what differs is named.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments._main import run
from xlingjax.analyses.results import open_result, write_tree
from xlingjax.analyses.trace.replicates import combine
from xlingjax.analyses.trace.tables import replicates_markdown, summary_table
from xlingjax.errors import InputError
from xlingjax.files import write_whole
from xlingjax.report.trace_page import write_report

FLAGS = flags.FLAGS

flags.DEFINE_list("traces", None, "workdirs of finished traces, one a pre-training run", required=True)
flags.DEFINE_string("workdir", "runs/replicates", "folder of the combined result and its report")


def short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ.

    >>> short_names([Path("runs/seed0/pud"), Path("runs/seed1/pud")])
    ['seed0/pud', 'seed1/pud']

    Raises:
        InputError: a folder is named twice.
    """
    twice = [str(folder) for folder in folders if folders.count(folder) > 1]
    if twice:
        raise InputError(f"--traces names {twice[0]} twice; a replicate is another pre-training run")
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def main() -> None:
    folders = [Path(name) for name in FLAGS.traces]
    runs = {}
    for name, folder in zip(short_names(folders), folders):
        if not (folder / "result.nc").exists():
            raise InputError(f"{folder} holds no result.nc; give the --workdir of a finished trace")
        runs[name] = open_result(folder / "result.nc")
    tree = combine(runs)
    workdir = Path(FLAGS.workdir)
    write_tree(workdir / "result.nc", tree)
    write_whole(workdir / "summary.csv", summary_table(tree, as_csv=True).encode())
    table = replicates_markdown(tree)
    write_whole(workdir / "summary.md", table.encode())
    page = write_report(tree, workdir)
    print(table)
    print(f"{tree.attrs['replicates']}; report: {page}")


if __name__ == "__main__":
    run(main)
