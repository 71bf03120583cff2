"""A folder of weights as one set of named tensors, whatever files they lie in."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from xlingjax.errors import InputError
from xlingjax.models.weights.files import path_in_folder, read_json
from xlingjax.models.weights.safetensors_file import open_safetensors
from xlingjax.models.weights.torch_file import open_torch


class TensorFile(Protocol):
    """One opened file of tensors."""

    @property
    def path(self) -> Path: ...
    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...
    @property
    def dtypes(self) -> dict[str, np.dtype]: ...
    def read(self, name: str) -> np.ndarray: ...


READERS: dict[str, Callable[[Path], TensorFile]] = {
    "model.safetensors": open_safetensors,
    "pytorch_model.bin": open_torch,
}
WEIGHT_FILES = tuple(READERS)
"""Names of weights in the order of preference; sharded ones have an index, NAME.index.json."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a folder; nothing but names, shapes and types is read until `read`."""

    folder: Path
    files: dict[str, TensorFile] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor's name, sorted."""
        return tuple(sorted(self.files))

    def shape(self, name: str) -> tuple[int, ...]:
        return self.files[name].shapes[name]

    def dtype(self, name: str) -> np.dtype:
        return self.files[name].dtypes[name]

    def path(self, name: str) -> Path:
        """The file that holds the tensor."""
        return self.files[name].path

    def read(self, name: str) -> np.ndarray:
        """One tensor in the file's own type; it may be a read-only view of the mapped file."""
        return self.files[name].read(name)


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Opens the weights of `folder`: safetensors or torch `.bin`, one file or shards with an index.

    Safetensors are preferred where both lie there. No file is executed and torch is not imported.
    Raises `InputError`, naming the file, for a folder without weights and for every file that is
    missing, empty, cut off, contradictory, or leads out of the folder.
    """
    folder = Path(folder)
    for name, open_file in READERS.items():
        if (folder / name).exists():
            opened = open_file(folder / name)
            return Checkpoint(folder, {tensor: opened for tensor in opened.shapes})
        index = folder / f"{name}.index.json"
        if index.exists():
            return Checkpoint(folder, _open_shards(folder, index, open_file))
    choices = ", ".join(f"{name} or {name}.index.json" for name in WEIGHT_FILES)
    raise InputError(
        f"{folder} holds no weights: none of {choices} is there; "
        "give the folder (or subfolder) that does"
    )


def shard_names(index: Path) -> dict[str, str]:
    """Tensor name -> file name, as an index says; the names are not yet trusted."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(
            f"{index} lists no tensors under 'weight_map'; restore or download it again"
        )
    for name, file in weight_map.items():
        if not isinstance(file, str):
            raise InputError(
                f"{index} gives {file!r} as the file of {name!r}; restore or download it again"
            )
    return weight_map


def _open_shards(
    folder: Path, index: Path, open_file: Callable[[Path], TensorFile]
) -> dict[str, TensorFile]:
    weight_map = shard_names(index)
    paths = {file: path_in_folder(folder, file, index) for file in sorted(set(weight_map.values()))}
    shards = {file: open_file(path) for file, path in paths.items()}
    for name, file in weight_map.items():
        if name not in shards[file].shapes:
            raise InputError(
                f"{paths[file]} lacks the tensor {name!r} that {index.name} promises there; "
                "restore or download both again"
            )
    for file, shard in shards.items():
        unlisted = [name for name in shard.shapes if weight_map.get(name) != file]
        if unlisted:
            raise InputError(
                f"{paths[file]} holds the tensor {unlisted[0]!r}, which {index.name} does not "
                "list there; restore or download both again"
            )
    return {name: shards[file] for name, file in weight_map.items()}
