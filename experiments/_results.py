"""Results of one experiment that another one shows or compares."""

from pathlib import Path

import xarray as xr
from absl import flags

from xlingjax.analyses.results import open_result
from xlingjax.errors import InputError

PARTS = {"trace": "experts", "steer": "effects", "align": "alignment"}  # what the result of an experiment holds


def read_result(flag: str, experiment: str) -> xr.DataTree:
    """The `result.nc` of an experiment that a flag names.

    Errors: `InputError` where it is no file, or another experiment's.
    """
    path = Path(str(flags.FLAGS[flag].value))
    remedy = f"give the result.nc in the --workdir of experiments.{experiment}"
    if not path.is_file():
        raise InputError(f"--{flag}={path} is no file; {remedy}")
    tree = open_result(path)
    if PARTS[experiment] not in tree.children:
        raise InputError(f"--{flag}={path} is no result of experiments.{experiment}; {remedy}")
    return tree
