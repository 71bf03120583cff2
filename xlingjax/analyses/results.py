"""Datasets by name in one netCDF file that is whole or absent."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from xlingjax import hosts
from xlingjax.errors import InputError
from xlingjax.files import write_whole


def storable(text: str) -> str:
    """Text that netCDF can hold: no half of a surrogate pair, no NUL.

    >>> storable("a\\0b\\ud800")
    'ab?'
    """
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def write_tree(path: Path, groups: Mapping[str, xr.Dataset] | xr.DataTree) -> None:
    """Writes datasets as groups of one netCDF file; the file appears under its name when complete.

    Raises:
        InputError: a disk is full.
    """
    if not hosts.writes():
        return
    tree = groups if isinstance(groups, xr.DataTree) else xr.DataTree.from_dict(dict(groups))
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "tree.nc"
        try:
            tree.to_netcdf(made, engine="h5netcdf")
            data = made.read_bytes()
        except OSError as error:
            raise InputError(
                f"cannot write {path} by way of {scratch}: {error.strerror or error}; free disk "
                "space there or name another folder by TMPDIR, and start again with the same "
                "--workdir"
            ) from error
    write_whole(path, data)


def read_tree(path: Path) -> dict[str, xr.Dataset]:
    """The datasets of `write_tree` by name, in memory.

    Raises:
        InputError: the file is damaged.
    """
    tree = open_result(path)
    return {node.path.lstrip("/"): node.to_dataset(inherit=False)
            for node in tree.subtree if node.has_data}


def open_result(path: Path) -> xr.DataTree:
    """What `write_tree` wrote, with the attributes of the whole, in memory.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            # Kept encodings would cut longer names to the old length when written again.
            found = xr.DataTree.from_dict({
                node.path: node.to_dataset(inherit=False).load().drop_encoding()
                for node in tree.subtree if node.has_data})
            found.attrs = dict(tree.attrs)
            return found
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is damaged ({error}); delete it and start again with the same --workdir, "
            f"{os.path.basename(path)} is made again") from error
