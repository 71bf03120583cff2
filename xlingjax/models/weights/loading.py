"""From a checkpoint's tensors to our parameters: strict both ways, one tensor at a time."""

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any, NamedTuple, Protocol

import jax
import ml_dtypes
import numpy as np

from xlingjax.errors import InputError
from xlingjax.models.weights.checkpoint import Checkpoint
from xlingjax.models.weights.fingerprint import fingerprint, leaf_name, tensor_digest

FLOATS = tuple(map(np.dtype, ("float64", "float32", "float16", ml_dtypes.bfloat16)))
SHOWN = 10  # tensors of one kind that an error names


class EntryLike(Protocol):
    """A row of a family's table: `models.families.Entry`."""

    @property
    def ours(self) -> str: ...
    @property
    def theirs(self) -> str: ...
    @property
    def transpose(self) -> bool: ...


class LoadedParams(NamedTuple):
    """Parameters, and what was learned about the checkpoint while they were read."""

    params: Any
    fingerprint: str
    """sha256 (hex) over the tensors that were loaded, the same whatever files they lay in"""
    health: dict[str, int]
    """tensor -> how many of its loaded values are NaN or infinite; empty for a sound checkpoint"""


def load_params(
    checkpoint: Checkpoint,
    entries: Sequence[EntryLike],
    target: Any,
    dtype: Any = "float32",
    put: Callable[[str, np.ndarray], jax.Array] | None = None,
    *,
    prefixes: Sequence[str] = (),
    unused: Sequence[str] = (),
    spellings: Mapping[str, str] | None = None,
    vocab_size: int | None = None,
) -> LoadedParams:
    """Fills parameters from a checkpoint.

    Args:
        checkpoint: from `open_checkpoint`.
        entries: which tensor (`theirs`, one a layer where it says `{layer}`) is which leaf
            (`ours`).
        target: a tree of the parameters' shapes (`jax.eval_shape` of `init_params`).
        dtype: of every parameter, whatever type the checkpoint has.
        put: brings a leaf, by name, from the host to its devices; None: to the default device.
        prefixes: what names may begin with or lack, in the table and in the checkpoint.
        unused: `fnmatch` patterns of tensors that may be there and are not read (tied copies,
            buffers).
        spellings: part of a name in some checkpoints -> what the table has there.
        vocab_size: tensors of this many rows may have more in the checkpoint (a vocabulary padded
            for some machine); the further rows, which no token reaches, are dropped.

    Tensors go one at a time into the buffer of their leaf, and each full leaf to its device, so
    that the host never holds more than one leaf beside the mapped files (on CPU: and the weights).
    NaN and infinity are loaded and counted in `health`.

    Errors: `InputError` that names the missing, unexpected, wrongly shaped and wrongly typed
        tensors, all at once.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(target)
    shapes = {leaf_name(path): tuple(leaf.shape) for path, leaf in leaves}
    table = {entry.ours: entry for entry in entries}
    if set(table) != set(shapes) or len(table) != len(entries):
        raise ValueError(f"table and parameters differ in {set(table) ^ set(shapes)}")
    actual = _without_prefix(checkpoint, prefixes, spellings or {})
    wanted: dict[str, tuple[int, ...]] = {}
    for ours, shape in shapes.items():
        for theirs, rows in _sources(table[ours], shape, prefixes):
            own = shape if rows is ... else shape[1:]
            wanted[theirs] = own[::-1] if table[ours].transpose else own
    _require_match(checkpoint, actual, wanted, prefixes, unused, vocab_size)

    digests: dict[str, str] = {}
    health: dict[str, int] = {}
    filled = []
    for ours, shape in shapes.items():
        buffer = np.empty(shape, np.dtype(dtype))
        for theirs, rows in _sources(table[ours], shape, prefixes):
            values = checkpoint.read(actual[theirs])
            digests[theirs] = tensor_digest(values)
            values = values[tuple(map(slice, wanted[theirs]))]
            part = buffer[rows]
            with np.errstate(over="ignore"):  # a number too large for `dtype` is counted below
                part[...] = values.T if table[ours].transpose else values
            bad = part.size - int(np.count_nonzero(np.isfinite(part)))
            if bad:
                health[actual[theirs]] = bad
        filled.append(jax.device_put(buffer) if put is None else put(ours, buffer))
        del buffer, part, values
    return LoadedParams(jax.tree.unflatten(tree, filled), fingerprint(digests), health)


def _plain(name: str, prefixes: Sequence[str]) -> str:
    for prefix in prefixes:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _without_prefix(
    checkpoint: Checkpoint, prefixes: Sequence[str], spellings: Mapping[str, str]
) -> dict[str, str]:
    """Name without prefix, as the table spells it -> name in the checkpoint."""
    actual: dict[str, str] = {}
    for name in checkpoint.names:
        plain = _plain(name, prefixes)
        for theirs, ours in spellings.items():
            plain = plain.replace(theirs, ours)
        if plain in actual:
            raise InputError(
                f"{checkpoint.folder} holds both {actual[plain]!r} and {name!r}, which are one "
                "parameter; remove the one that is not meant"
            )
        actual[plain] = name
    return actual


def _sources(
    entry: EntryLike, shape: tuple[int, ...], prefixes: Sequence[str]
) -> Iterator[tuple[str, int | EllipsisType]]:
    """The tensors that make a leaf: name without prefix, and the part of the leaf they fill."""
    theirs = _plain(entry.theirs, prefixes)
    if "{layer}" not in theirs:
        yield theirs, ...
        return
    for layer in range(shape[0]):
        yield theirs.replace("{layer}", str(layer)), layer


def _require_match(
    checkpoint: Checkpoint,
    actual: dict[str, str],
    wanted: dict[str, tuple[int, ...]],
    prefixes: Sequence[str],
    unused: Sequence[str],
    vocab_size: int | None,
) -> None:
    patterns = [_plain(pattern, prefixes) for pattern in unused]
    missing = [name for name in wanted if name not in actual]
    extra = [
        actual[name]
        for name in actual
        if name not in wanted and not any(fnmatch.fnmatchcase(name, p) for p in patterns)
    ]
    shapes, types = [], []
    for theirs, shape in wanted.items():
        if theirs not in actual:
            continue
        name = actual[theirs]
        found = checkpoint.shape(name)
        more_rows = shape[:1] == (vocab_size,) and found[1:] == shape[1:] and found > shape
        if found != shape and not more_rows:
            shapes.append(f"{name} is {list(found)} instead of {list(shape)}")
        if checkpoint.dtype(name) not in FLOATS:
            types.append(f"{name} is {checkpoint.dtype(name).name} instead of a float")
    kinds = {"missing": missing, "unexpected": extra, "wrong shape": shapes, "wrong type": types}
    if any(kinds.values()):
        problems = "; ".join(f"{kind}: {_list(names)}" for kind, names in kinds.items() if names)
        raise InputError(
            f"the weights in {checkpoint.folder} do not fit their config.json ({problems}); "
            "use the config that belongs to these weights"
        )


def _list(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
