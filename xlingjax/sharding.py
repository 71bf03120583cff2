"""The mesh, and where every parameter and batch lies on it.

Three axes, any of which may be left out: `data` splits the rows of a batch; `model` splits the heads,
the units of the MLP and the vocabulary; `fsdp` splits the batch like `data` and the parameters as well,
along the residual width. One table of rules gives every parameter its place. What a mesh does not divide
evenly is replicated, but for the vocabulary, which is padded.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from xlingjax import hosts
from xlingjax.errors import InputError

AXES = ("data", "fsdp", "model")
BATCH = ("data", "fsdp")  # the mesh axes that split the rows of a batch

# What an axis of a parameter counts -> the mesh axis that splits it.
MESH_AXIS = {"vocabulary": "model", "heads": "model", "keys": "model", "mlp": "model", "width": "fsdp"}

# Name of a parameter (regular expression, whole) -> what its last axes count.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"embed/tokens/embedding", ("vocabulary", "width")),
    (r"embed/(positions|types)/embedding", (None, "width")),
    (r"layers/(attn|cross)/(q|qkv)/kernel", ("width", "heads")),
    (r"layers/(attn|cross)/(k|v)/kernel", ("width", "keys")),
    (r"layers/(attn|cross)/(q|qkv)/bias", ("heads",)),
    (r"layers/(attn|cross)/(k|v)/bias", ("keys",)),
    (r"layers/(attn|cross)/out/kernel", ("heads", "width")),
    (r"layers/mlp/(up|gate)/kernel", ("width", "mlp")),
    (r"layers/mlp/(up|gate)/bias", ("mlp",)),
    (r"layers/mlp/down/kernel", ("mlp", "width")),
    (r"head/kernel", ("width", "vocabulary")),
    (r"head/bias", ("vocabulary",)),
)


def make_mesh(text: str) -> Mesh:
    """A mesh from a flag, `"data:4,model:2"`; axes that are not named have one device.

    The first devices are used where the mesh needs fewer than there are.

    Raises:
        InputError: the text is no mesh, or needs more devices than there are.

    >>> dict(make_mesh("data:1").shape)
    {'data': 1, 'fsdp': 1, 'model': 1}
    """
    sizes = dict.fromkeys(AXES, 1)
    for part in text.split(","):
        name, _, size = part.strip().partition(":")
        if name not in AXES or not size.isdigit() or int(size) < 1:
            raise InputError(
                f"mesh {text!r} has the part {part!r}; name axes among {', '.join(AXES)} with a "
                "number of devices, for example data:4,model:2")
        sizes[name] = int(size)
    needed, found = math.prod(sizes.values()), jax.device_count()
    if needed > found:
        raise InputError(
            f"mesh {text!r} needs {needed} devices, there are {found} ({jax.default_backend()}); "
            "take a smaller mesh")
    if hosts.several() and needed < found:
        raise InputError(
            f"mesh {text!r} needs {needed} of the {found} devices of {jax.process_count()} hosts; with several "
            "hosts name a mesh of all devices")
    devices = np.array(jax.devices()[:needed]).reshape(tuple(sizes.values()))
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def device_memory() -> int | None:
    """Bytes of memory of one of this host's devices; None where the device does not say.

    On a CPU it is the host's memory, divided among its devices.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
    return (device.memory_stats() or {}).get("bytes_limit")


def axis_size(mesh: Mesh, axis: str) -> int:
    """Devices along an axis; 1 where the mesh has no such axis.

    >>> axis_size(make_mesh("data:1"), "pipeline")
    1
    """
    return dict(mesh.shape).get(axis, 1)


def batch_shards(params: Any) -> int:
    """Into how many parts the rows of a batch are split: batches hold a multiple of it."""
    mesh = mesh_of(params)
    return 1 if mesh is None else math.prod(axis_size(mesh, axis) for axis in BATCH)


def batch_sharding(params: Any) -> jax.sharding.Sharding:
    """Where a batch goes: its rows over the data axes, or to the parameters' device."""
    mesh = mesh_of(params)
    if mesh is None:
        return jax.tree.leaves(params)[0].sharding
    return NamedSharding(mesh, PartitionSpec(tuple(axis for axis in BATCH if axis in mesh.shape)))


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that parameters lie on; None on a single device."""
    sharding = jax.tree.leaves(params)[0].sharding
    if not isinstance(sharding, NamedSharding):
        return None
    assert isinstance(sharding.mesh, Mesh)
    return sharding.mesh


class Placement:
    """Where each parameter of one model lies on a mesh.

    Args:
        mesh: any of `AXES`.
        blocks: kind of axis ("heads", "keys", ...) -> how many units it has that must not be cut
            (attention heads); others may be cut anywhere.
        vocabulary: V, the rows that hold a token.
    """

    def __init__(self, mesh: Mesh, blocks: Mapping[str, int], vocabulary: int) -> None:
        self.mesh, self.blocks, self.vocabulary = mesh, blocks, vocabulary

    @property
    def rows(self) -> int:
        """Rows of a vocabulary that the mesh divides: V, padded."""
        parts = axis_size(self.mesh, MESH_AXIS["vocabulary"])
        return -(-self.vocabulary // parts) * parts

    def sharding(self, name: str, shape: tuple[int, ...]) -> NamedSharding:
        """The place of a parameter, given its shape before padding."""
        spec: list[str | None] = [None] * len(shape)
        for axis, kind in self._kinds(name, shape):
            if MESH_AXIS[kind] in self.mesh.shape and self._divides(kind, shape[axis]):
                spec[axis] = MESH_AXIS[kind]
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def replicated(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Parameters that the mesh ought to split and cannot, with the reason, for the plan."""
        return [
            f"{name} ({self.blocks.get(kind, shape[axis])} {kind} over {axis_size(self.mesh, MESH_AXIS[kind])})"
            for name, shape in shapes.items() for axis, kind in self._kinds(name, shape)
            if not self._divides(kind, shape[axis])]

    def padded(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a parameter on the mesh: its vocabulary padded."""
        kinds = dict(self._kinds(name, shape))
        return tuple(self.rows if kinds.get(axis) == "vocabulary" else size
                     for axis, size in enumerate(shape))

    def put(self, name: str, values: np.ndarray) -> jax.Array:
        """A parameter on its devices, each of which gets its own part of it."""
        wanted = self.padded(name, values.shape)
        if wanted != values.shape:
            values = np.pad(values, [(0, new - old) for new, old in zip(wanted, values.shape)])
        sharding = self.sharding(name, wanted)
        return jax.make_array_from_callback(wanted, sharding, lambda index: values[index])

    def _kinds(self, name: str, shape: tuple[int, ...]) -> list[tuple[int, str]]:
        for pattern, kinds in RULES:
            if re.fullmatch(pattern, name):
                first = len(shape) - len(kinds)
                return [(first + i, kind) for i, kind in enumerate(kinds) if kind is not None]
        return []

    def _divides(self, kind: str, size: int) -> bool:
        if kind == "vocabulary":
            return True  # padded
        parts = axis_size(self.mesh, MESH_AXIS[kind])
        return size % parts == 0 and self.blocks.get(kind, size) % parts == 0
