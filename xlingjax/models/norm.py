"""Layer norm and root-mean-square norm, with and without what they learn."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from xlingjax.models.config import TransformerConfig
from xlingjax.models.positions import wide


class Norm(nnx.Module):
    """A norm over the last axis (`config.width` units by default), in float32 at least.

    Flax's own cannot run in float64 or bfloat16 under strict dtype promotion.
    """

    def __init__(self, config: TransformerConfig, dtype: DTypeLike, rngs: nnx.Rngs, units: int = 0):
        self.config = config
        if config.norm != "layer_bare":
            self.scale = nnx.Param(jnp.ones(units or config.width, dtype))
        if config.norm == "layer":
            self.bias = nnx.Param(jnp.zeros(units or config.width, dtype))

    def __call__(self, x: Float[Array, "... F"]) -> Float[Array, "... F"]:
        dtype, kind = wide(x.dtype), self.config.norm
        h = x.astype(dtype)
        if kind != "rms":
            h = h - h.mean(axis=-1, keepdims=True)
        spread = jnp.square(h).mean(axis=-1, keepdims=True)
        h = h * jax.lax.rsqrt(spread + self.config.norm_epsilon)
        if kind != "layer_bare":
            h = h * self.scale[...].astype(dtype)
        if kind == "layer":
            h = h + self.bias[...].astype(dtype)
        return h.astype(x.dtype)
