"""Are planted neurons found, and nothing else? Prints every bar of the planted truth.

    python -m experiments.planted               # small worlds, about a minute
    python -m experiments.planted --size=full   # METHOD's worlds, about 20 minutes on 2 cores, 3 GB

The first worlds are arrays of responses; in those of the second table a transformer reads texts and
the whole path from `collect` to calls is under test.

The precision at FDR 5 % should be near 0.95, the slope of the recovered shared fractions near 1.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr
from absl import flags

from experiments._main import run
from xlingjax.analyses.planted import model_table, responses
from xlingjax.analyses.results import write_tree
from xlingjax.files import locked, write_whole
from xlingjax.progress import progress

SIZE = flags.DEFINE_enum("size", "small", list(responses.SIZES), "Size of the worlds.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the worlds and of the permutations.", lower_bound=0)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for result.nc and planted.csv of both; by default none is written.")


def main() -> None:
    worlds: dict[str, tuple[Any, Callable[..., xr.Dataset]]] = {
        "responses": (responses.SIZES[SIZE.value], responses.planted_table),
        "model": (model_table.SIZES[SIZE.value], model_table.model_table)}
    # Held before the worlds are made: a folder that cannot be used is refused at once.
    with locked(Path(WORKDIR.value)) if WORKDIR.value else contextlib.nullcontext():
        _run(worlds)


def _run(worlds: dict[str, tuple[Any, Callable[..., xr.Dataset]]]) -> None:
    for name, (size, measure) in worlds.items():
        settings = ", ".join(f"{key} {value}" for key, value in size._asdict().items())
        print(f"Planted {name} ({SIZE.value}): {settings}; seed {SEED.value}")
        result = measure(size, SEED.value, progress=lambda steps: progress(steps, label="worlds"))
        show(result)
        if WORKDIR.value:
            folder = Path(WORKDIR.value) / name
            write_tree(folder / "result.nc", xr.DataTree(result))
            write_whole(folder / "planted.csv", result.to_dataframe().to_csv().encode())


def show(result: xr.Dataset) -> None:
    print(f"{'check':<62} {'measured':>9} {'sd':>7} {'from':>7} {'to':>7}  met")
    for check, row in result.to_dataframe().iterrows():
        bar = (f"{row.low:>7.3g} {row.high:>7.3g}  {'yes' if row.met else 'NO'}"
               if row.barred else f"{'-':>7} {'-':>7}")
        print(f"{check:<62} {row.measured:>9.4f} {row.sd:>7.4f} {bar}")


if __name__ == "__main__":
    run(main)
