"""The parameters of a transformer on a mesh: where they go, how they start, and back without padding."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.model import Model
from xlingjax.models.transformer import Params, init_params
from xlingjax.models.weights.fingerprint import leaf_name
from xlingjax.sharding import Placement, device_memory, mesh_of


def placement_of(config: TransformerConfig, mesh: Mesh) -> Placement:
    """Where the parameters of a transformer lie on a mesh; heads are not cut."""
    blocks = {"heads": config.heads, "keys": config.key_value_heads}
    return Placement(mesh, blocks, config.vocab_size)


def abstract_params(config: TransformerConfig, dtype: str) -> Any:
    """Shapes and types of the parameters, none of them made."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0), dtype))


def parameter_bytes(config: TransformerConfig, dtype: str, mesh: Mesh | None) -> int:
    """Bytes of the parameters on each device, none of them made."""
    place = None if mesh is None else placement_of(config, mesh)
    total = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(abstract_params(config, dtype))[0]:
        shape = leaf.shape
        if place is not None:
            shape = place.padded(leaf_name(path), shape)
            shape = place.sharding(leaf_name(path), shape).shard_shape(shape)
        total += math.prod(shape) * leaf.dtype.itemsize
    return total


def require_room(config: TransformerConfig, dtype: str, mesh: Mesh | None, name: str) -> None:
    """`InputError` where the parameters alone are more than a device holds, with what would fit."""
    needed, limit = parameter_bytes(config, dtype, mesh), device_memory()
    if limit is None or needed <= limit:
        return
    parts = 2 ** math.ceil(math.log2(needed / (0.8 * limit)))
    half = "" if dtype in ("bfloat16", "float16") else ", or load it with dtype bfloat16 (--dtype)"
    raise InputError(
        f"{name} needs {needed / 1e9:.3g} GB for its {dtype} parameters on each device, which has "
        f"{limit / 1e9:.3g} GB; split it over {parts} times as many devices (--mesh=model:{parts}){half}")


def init_sharded(
    config: TransformerConfig, key: PRNGKeyArray, dtype: str, mesh: Mesh | None
) -> dict[str, Any]:
    """`init_params` with every device making its own part; the same values on any mesh."""
    if mesh is None:
        return init_params(config, key, dtype)
    place = placement_of(config, mesh)

    def make(key: PRNGKeyArray) -> Any:
        def pad(path: Any, leaf: jax.Array) -> jax.Array:
            wanted = place.padded(leaf_name(path), leaf.shape)
            return jnp.pad(leaf, [(0, new - old) for new, old in zip(wanted, leaf.shape)])

        return jax.tree_util.tree_map_with_path(pad, init_params(config, key, dtype))

    shardings = jax.tree_util.tree_map_with_path(
        lambda path, leaf: place.sharding(leaf_name(path), leaf.shape),
        abstract_params(config, dtype),
    )
    return jax.jit(make, out_shardings=shardings)(key)


def without_padding(params: Params, config: TransformerConfig) -> dict[str, Any]:
    """The parameters without the rows that pad a vocabulary to its mesh."""
    mesh = mesh_of(params)
    if mesh is None:
        return dict(params)
    place = placement_of(config, mesh)
    shapes = abstract_params(config, str(jax.tree.leaves(params)[0].dtype))

    def cut(path: Any, leaf: jax.Array, own: jax.ShapeDtypeStruct) -> Any:
        if place.padded(leaf_name(path), own.shape) == own.shape:
            return leaf
        return np.asarray(leaf)[tuple(map(slice, own.shape))]

    return jax.tree_util.tree_map_with_path(cut, dict(params), shapes)


def abstract_model(
    config: TransformerConfig, dtype: str = "float32", mesh: Mesh | None = None, tokenizer: Any = None, *,
    name: str = "", family: str = "",
) -> Model:
    """A model without weights: shapes, types and places of its parameters, to be planned and compiled.

    Args:
        config: the transformer.
        dtype: of every parameter.
        mesh: where they would lie; None: the default device.
        tokenizer, name, family: as of `Model`.

    >>> from xlingjax.models.config import TransformerConfig
    >>> small = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32)
    >>> abstract_model(small).params["layers"]["mlp"]["up"]["kernel"].shape
    (2, 8, 32)
    """
    place = None if mesh is None else placement_of(config, mesh)
    alone = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def placed(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if place is None:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=alone)
        shape = place.padded(leaf_name(path), leaf.shape)
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=place.sharding(leaf_name(path), shape))

    params = jax.tree_util.tree_map_with_path(placed, abstract_params(config, dtype))
    return Model(params, config, tokenizer, "no weights", name, family)
