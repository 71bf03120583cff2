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


def relative_bucket(
    distance: Int[Array, "*batch"], buckets: int, longest: int, both_ways: bool
) -> Int[Array, "*batch"]:
    """The bucket of a key `distance` tokens after its query (Raffel et al. 2020, section 2.1).

    Half of the buckets are single distances, the others grow by a constant factor up to `longest`, from where on all
    are one. `both_ways`: later keys have buckets of their own; else they share that of distance 0.

    >>> relative_bucket(jnp.array([0, -1, -7, -8, -9, -500, 3]), 16, 64, both_ways=False).tolist()
    [0, 1, 7, 8, 8, 15, 0]
    """
    offset = jnp.zeros_like(distance)
    if both_ways:
        buckets //= 2
        offset = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    grown = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(longest / exact)
    far = exact + (grown * (buckets - exact)).astype(distance.dtype)
    return offset + jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1))


def relative_bias(
    table: Float[Array, "K H"], queries: Int[Array, "B T"], keys: Int[Array, "B S"], longest: int, both_ways: bool
) -> Float[Array, "B H T S"]:
    """What a learned bias by distance adds to the scores."""
    distance = keys[:, None, :] - queries[:, :, None]
    found = table[relative_bucket(distance, len(table), longest, both_ways)]
    return jnp.moveaxis(found, -1, 1).astype(wide(table.dtype))


def rotary_frequencies(units: int, base: float, scaling: tuple[float, ...] = ()) -> np.ndarray:
    """float64[units / 2]: how far each pair of units turns from one token to the next.

    With Llama 3.1's scaling (factor, low, high, original length), pairs that turn fewer than `low`
    times over the original length turn slower by the factor, those of more than `high` times as
    before, those between by what lies between.

    >>> rotary_frequencies(4, 100.0).tolist()
    [1.0, 0.1]
    >>> rotary_frequencies(4, 100.0, (8.0, 1.0, 4.0, 60.0)).tolist()
    [1.0, 0.0125]
    """
    half = units // 2
    frequencies = base ** (-np.arange(half) / half)
    if not scaling:
        return frequencies
    factor, low, high, original = scaling
    turns = original * frequencies / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return frequencies * (kept + (1 - kept) / factor)


def rotate(
    x: Float[Array, "B T H W"],
    positions: Int[Array, "B T"],
    base: float,
    scaling: tuple[float, ...] = (),
    units: int = 0,
    pairs: str = "halves",
) -> Float[Array, "B T H W"]:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864).

    Args:
        base, scaling: of `rotary_frequencies`.
        units: of a head that turn, the first ones; 0: all.
        pairs: unit i turns with unit i + units/2 (`"halves"`), or 2i with 2i + 1 (`"neighbours"`).
    """
    units = units or x.shape[-1]
    dtype = wide(x.dtype)
    frequencies = jnp.asarray(rotary_frequencies(units, base, scaling), dtype)
    angles = positions.astype(dtype)[:, :, None, None] * frequencies
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    turning = x[..., :units].astype(dtype)
    if pairs == "halves":
        first, second = jnp.split(turning, 2, axis=-1)
    else:
        first, second = turning[..., ::2], turning[..., 1::2]
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    if pairs == "halves":
        out = jnp.concatenate(turned, axis=-1)
    else:
        out = jnp.stack(turned, axis=-1).reshape(turning.shape)
    return jnp.concatenate([out.astype(x.dtype), x[..., units:]], axis=-1)
