"""Are planted neurons found, and nothing else? Prints every bar of the planted truth.

    python -m experiments.planted               # small worlds, about 15 seconds
    python -m experiments.planted --size=full   # METHOD's worlds, about 15 minutes on 2 cores, 3 GB

The precision at FDR 5 % should be near 0.95, the slope of the recovered shared fractions near 1.
"""

import pathlib

from absl import flags
from tqdm import tqdm

from experiments._main import run
from xlingjax.analyses import planted

SIZE = flags.DEFINE_enum("size", "small", list(planted.SIZES), "Size of the worlds.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the worlds and of the permutations.", lower_bound=0)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for result.nc and planted.csv; nothing is written without it.")


def main() -> None:
    size = planted.SIZES[SIZE.value]
    settings = ", ".join(f"{name} {value}" for name, value in size._asdict().items())
    print(f"Planted worlds ({SIZE.value}): {settings}; seed {SEED.value}")
    result = planted.planted_table(
        size, SEED.value, progress=lambda steps: tqdm(steps, "worlds"))
    table = result.to_dataframe()
    print(f"{'check':<52} {'measured':>9} {'sd':>7} {'from':>7} {'to':>7}  met")
    for check, row in table.iterrows():
        bar = (f"{row.low:>7.3g} {row.high:>7.3g}  {'yes' if row.met else 'NO'}"
               if row.barred else f"{'-':>7} {'-':>7}")
        print(f"{check:<52} {row.measured:>9.4f} {row.sd:>7.4f} {bar}")
    if WORKDIR.value:
        folder = pathlib.Path(WORKDIR.value)
        folder.mkdir(parents=True, exist_ok=True)
        result.to_netcdf(folder / "result.nc", engine="h5netcdf")
        table.to_csv(folder / "planted.csv")


if __name__ == "__main__":
    run(main)
