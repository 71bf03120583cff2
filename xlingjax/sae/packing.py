"""Several dictionaries as one tree of arrays: padded to one number of latents, stacked over runs, placed on a mesh."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from xlingjax.models.weights.fingerprint import leaf_name
from xlingjax.sae.config import THRESHOLD_KINDS
from xlingjax.sharding import BATCH, MESH_AXIS, axis_size

# Parameter -> its axis of latents, counted from the end.
LATENT_AXIS = {"encoder/kernel": -1, "encoder/bias": -1, "decoder/kernel": -2, "log_scale": -1, "magnitude_bias": -1,
               "threshold": -1}


def latent_axis(name: str, kind: str) -> int | None:
    """The axis of latents of a parameter, counted from the end; None where it has none."""
    return None if name == "threshold" and kind in THRESHOLD_KINDS else LATENT_AXIS.get(name)


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function gets the "/"-joined name of the leaf first."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: function(leaf_name(path), *leaves), tree, *rest)


def pack(params: Sequence[Any], kind: str, latents: int) -> Any:
    """Parameters of several runs, each leaf [R, ...]; latents beyond a run's own are 0."""

    def widen(name: str, leaf: Any) -> np.ndarray:
        leaf, axis = np.asarray(leaf), latent_axis(name, kind)
        if axis is None:
            return leaf
        room = [(0, 0)] * leaf.ndim
        room[axis] = (0, latents - leaf.shape[axis])
        return np.pad(leaf, room)

    return jax.tree.map(lambda *leaves: np.stack(leaves), *(map_named(widen, one) for one in params))


def unpack(packed: Any, kind: str, run: int, latents: int) -> Any:
    """The parameters of one run, NumPy arrays without padding."""

    def own(name: str, leaf: Any) -> np.ndarray:
        axis = latent_axis(name, kind)
        leaf = np.asarray(leaf[run])
        return leaf if axis is None else np.take(leaf, range(latents), axis=axis)

    return map_named(own, packed)


def over_latents(of_latents: jax.Array, name: str, kind: str) -> jax.Array | None:
    """An array [M] in the shape in which it broadcasts against a run's parameter; None where that has no latents."""
    axis = latent_axis(name, kind)
    return None if axis is None else of_latents[:, None] if axis == -2 else of_latents


def latents_of_mesh(latents: int, mesh: Mesh | None) -> int:
    """Latents, padded to what the mesh divides."""
    parts = 1 if mesh is None else axis_size(mesh, MESH_AXIS["mlp"])
    return -(-latents // parts) * parts


def place(state: Any, kind: str, mesh: Mesh | None, batch: jax.Array) -> Any:
    """A state of runs on its devices: latents over the axis `model` of the mesh, without one where the batches lie.

    A state that is on no device for certain would be so after the first step, and the step be compiled again.
    """
    if mesh is None:
        lies, arrays = batch.sharding, jax.tree.map(jnp.asarray, state)
        if isinstance(lies, NamedSharding):
            return jax.device_put(arrays, NamedSharding(lies.mesh, PartitionSpec()))
        return jax.device_put(arrays, lies) if isinstance(lies, SingleDeviceSharding) else arrays

    def put(name: str, leaf: Any) -> jax.Array:
        leaf = np.asarray(leaf)
        axis = -1 if name.endswith("quiet") else next(
            (at for end in LATENT_AXIS if (name.endswith(end)) and (at := latent_axis(end, kind)) is not None), None)
        spec: list[Any] = [None] * leaf.ndim
        if axis is not None:
            spec[axis] = MESH_AXIS["mlp"]
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))

    return map_named(put, state)


def place_batch(batch: Any, mesh: Mesh | None) -> Any:
    """Activations [A, b, D] on the devices: tokens over the data axes of the mesh."""
    if mesh is None or batch is None:
        return batch
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(None, tuple(a for a in BATCH if a in mesh.shape))))
