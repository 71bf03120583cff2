"""Keys and values of the tokens read so far, so that one more token costs one step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig


class Cache(NamedTuple):
    """What `extend` remembers of S slots, of which the first `filled` are taken."""

    keys: Float[Array, "L B S K W"]
    values: Float[Array, "L B S K W"]
    mask: Bool[Array, "B S"]  # slots that hold a real token
    filled: Int[Array, ""]


def empty_cache(config: TransformerConfig, batch: int, slots: int, dtype: DTypeLike) -> Cache:
    """Room for `slots` tokens of each row.

    Raises:
        InputError: the model is no decoder: its tokens also see later ones.

    >>> config = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32)
    >>> empty_cache(config, batch=3, slots=5, dtype="float32").keys.shape
    (2, 3, 5, 2, 4)
    """
    if not config.causal:
        raise InputError("this model is an encoder, whose tokens see later ones; only decoders read token by token")
    shape = (config.layers, batch, slots, config.key_value_heads, config.head_width)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((batch, slots), bool), jnp.int32(0))


class Past(NamedTuple):
    """The cache as one layer sees it, within the loop over layers."""

    keys: Float[Array, "L B S K W"]
    values: Float[Array, "L B S K W"]
    layer: Int[Array, ""]
    start: Int[Array, ""]  # slot of the first new token

    def append(
        self, k: Float[Array, "B T K W"], v: Float[Array, "B T K W"]
    ) -> "tuple[Past, Float[Array, 'B S K W'], Float[Array, 'B S K W']]":
        """The cache with the new tokens of this layer, and all keys and values of the layer."""
        zero = jnp.int32(0)
        at = (self.layer, zero, self.start, zero, zero)
        keys, values = (jax.lax.dynamic_update_slice(held, new[None], at)
                        for held, new in ((self.keys, k), (self.values, v)))
        of_layer = lambda held: jax.lax.dynamic_index_in_dim(held, self.layer, keepdims=False)
        return self._replace(keys=keys, values=values), of_layer(keys), of_layer(values)
