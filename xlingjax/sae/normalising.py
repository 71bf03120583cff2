"""Scales of activations, the start of the decoder's bias, and a finished dictionary that reads raw activations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xlingjax.precision import full_precision
from xlingjax.sae.coder import Params
from xlingjax.sae.config import DictionaryConfig


@jax.jit
@full_precision
def mean_square(x: Float[Array, "A b D"]) -> Float[Array, "A"]:
    """Mean squared norm of a token's activations, over D."""
    return jnp.square(x).mean(axis=(1, 2))


def geometric_median(x: Float[Array, "b D"], most: int = 100, tolerance: float = 1e-5) -> Float[Array, "D"]:
    """The point with the smallest sum of distances to the rows, by Weiszfeld's iteration from their mean.

    Args:
        most: iterations. tolerance: a smaller step ends them.

    >>> points = jnp.array([[0.0, 0.0], [0.0, 2.0], [0.0, 1.0], [9.0, 1.0]])
    >>> bool(jnp.allclose(geometric_median(points), jnp.array([0.0, 1.0]), atol=0.02))
    True
    """

    def nearer(state: tuple) -> tuple:
        guess, _, turn = state
        weight = 1 / jnp.maximum(jnp.linalg.norm(x - guess, axis=-1), 1e-12)
        new = weight @ x / weight.sum()
        return new, jnp.linalg.norm(new - guess), turn + 1

    return jax.lax.while_loop(lambda state: (state[1] >= tolerance) & (state[2] < most), nearer,
                              (x.mean(axis=0), jnp.float32(jnp.inf), 0))[0]


def unscaled(params: Params, config: DictionaryConfig, scale_in: float, scale_out: float) -> dict[str, Any]:
    """The parameters with which a dictionary does to raw activations what it did to scaled ones.

        reconstruct(new, x) = scale_out * reconstruct(old, x / scale_in)

    Latents come out scale_out times as large, so rows of the decoder keep norm 1. The kinds are
    homogeneous in their input, biases and thresholds, which is why those are all that has to change.

    Args:
        params: NumPy arrays, trained on activations divided by `scale_in` to write what is divided by `scale_out`.
    """
    new = jax.tree.map(np.array, dict(params))
    ratio = np.float32(scale_out / scale_in)
    if ratio != 1:
        new["encoder"]["kernel"] *= ratio
        if config.skip:
            new["skip"] *= ratio
    scale = np.float32(scale_out)
    new["encoder"]["bias"] *= scale
    new["decoder"]["bias"] *= scale
    for name in ("magnitude_bias", "threshold"):
        if name in new:
            new[name] = new[name] * scale
    return new
