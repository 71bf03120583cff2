"""Where a token stands, counted over real tokens only, and what each scheme makes of it."""

import math

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int


def wide(dtype: DTypeLike) -> jnp.dtype:
    """The dtype of softmax, angles and slopes: float32 at least."""
    return jnp.dtype(jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32)


def token_positions(mask: Bool[Array, "B T"]) -> Int[Array, "B T"]:
    """0 for the first real token of a row, 1 for the next; at padding that of the one before."""
    return jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)


def alibi_slopes(heads: int) -> np.ndarray:
    """float64[H]: how fast each head forgets (Press et al. 2022, arXiv 2108.12409).

    For a number of heads that is no power of two, the slopes of the next lower power, then every
    second slope of the next higher one.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    >>> alibi_slopes(6)[4:].tolist()
    [0.5, 0.125]
    """
    power = 2 ** int(math.log2(heads))
    slopes = 2.0 ** (-8 / power * np.arange(1, power + 1))
    more = 2.0 ** (-4 / power * np.arange(1, 2 * power + 1, 2))
    return np.concatenate([slopes, more])[:heads]


def alibi_bias(
    positions: Int[Array, "B T"], heads: int, dtype: DTypeLike
) -> Float[Array, "B H 1 T"]:
    """What ALiBi adds to the scores of every key; softmax makes it depend on distance alone."""
    slopes = jnp.asarray(alibi_slopes(heads), dtype)
    return slopes[None, :, None, None] * positions.astype(dtype)[:, None, None, :]


def sinusoids(positions: Int[Array, "B T"], width: int, dtype: DTypeLike) -> Float[Array, "B T D"]:
    """Sines in the first half of the units, cosines in the second (tensor2tensor's order)."""
    dtype = wide(dtype)
    half = width // 2
    frequencies = np.exp(np.arange(half) * -(math.log(10_000) / max(half - 1, 1)))
    angles = positions.astype(dtype)[..., None] * jnp.asarray(frequencies, dtype)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def rotate(
    x: Float[Array, "B T H W"], positions: Int[Array, "B T"], base: float
) -> Float[Array, "B T H W"]:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): unit i turns with unit i + W/2."""
    half = x.shape[-1] // 2
    dtype = wide(x.dtype)
    frequencies = jnp.asarray(base ** (-np.arange(half) / half), dtype)
    angles = positions.astype(dtype)[:, :, None, None] * frequencies
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(dtype), 2, axis=-1)
    turned = jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )
    return turned.astype(x.dtype)
