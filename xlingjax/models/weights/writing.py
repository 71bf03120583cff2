"""From our parameters to a checkpoint's tensors: a family's table, read backwards."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from xlingjax.models.weights.files import write_json
from xlingjax.models.weights.fingerprint import leaf_name
from xlingjax.models.weights.loading import EntryLike

SHARD_BYTES = 2 * 10**9


def named_tensors(entries: Sequence[EntryLike], params: Any, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) of every tensor of a checkpoint, in the order of the table and layer by layer.

    Args:
        entries: of the family, for the config of `params`.
        params: as `init_params` makes them, without rows that pad a vocabulary (`without_padding`).
        dtype: of every tensor.
    """
    leaves = {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
    for entry in entries:
        leaf = leaves[entry.ours]
        stacked = "{layer}" in entry.theirs
        for layer in range(len(leaf) if stacked else 1):
            values = np.asarray(leaf[layer] if stacked else leaf).astype(dtype)
            yield (entry.theirs.replace("{layer}", str(layer)),
                   np.ascontiguousarray(values.T if entry.transpose else values))


def write_safetensors(
    folder: Path, entries: Sequence[EntryLike], params: Any, dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes `params` as Hugging Face keeps them: `model.safetensors`, or shards and their index.

    The index, without which shards are no checkpoint, comes last; the host holds one shard at a time.
    `config.json` is the caller's.
    """
    total = sum(leaf.size for leaf in jax.tree.leaves(params)) * np.dtype(dtype).itemsize
    part: dict[str, np.ndarray] = {}
    files: dict[str, str] = {}
    number, held = 1, 0

    def write() -> None:
        name = f"model-{number:05d}.safetensors" if total > shard_bytes else "model.safetensors"
        save_file(part, folder / name, metadata={"format": "pt"})
        files.update(dict.fromkeys(part, name))

    for name, tensor in named_tensors(entries, params, dtype):
        if part and held + tensor.nbytes > shard_bytes:
            write()
            part, number, held = {}, number + 1, 0
        part[name] = tensor
        held += tensor.nbytes
    write()
    if total > shard_bytes:
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": files})
