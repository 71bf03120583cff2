"""Top-k dictionaries computed from their chosen latents alone: what a CPU does several times faster.

Of M latents a token has k: the decoder is then a sum of k rows a token, and the gradients are sums over the
tokens in which a latent was chosen. An accelerator is faster with the full products, and takes those
(`objectives.latents`); both ways agree to the last digits of float32.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xlingjax.sae.coder import Params
from xlingjax.sae.selecting import ranked

TOGETHER = 8  # rows that are added up before the sum is written
GROUP = 16  # summands of a latent that are added up in one round
LEAST_SHARE = 24  # latents to one chosen, from where on it pays


def choose(
    params: Params, most: int, k: int | Int[Array, ""], x: Float[Array, "b D"], real: Bool[Array, "M"],
) -> tuple[Float[Array, "b K"], Int[Array, "b K"]]:
    """Values and places of the k largest latents of each token, of a centred dictionary; others are 0.

    Args:
        most: K, which bounds k.
        real: latents that can be chosen.
    """
    values, places = _choose(x, params["decoder"]["bias"], params["encoder"]["kernel"], params["encoder"]["bias"],
                             real, most)
    return jnp.where((jnp.arange(most) < k) & (values > 0), values, 0), places


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _choose(x: Array, bias: Array, kernel: Array, encoder_bias: Array, real: Array, most: int) -> tuple[Array, Array]:
    z = (x - bias) @ kernel + encoder_bias
    values, places = ranked(jnp.where(real & (z > 0), z, 0), most)
    return values, places


def _choose_forward(x: Array, bias: Array, kernel: Array, encoder_bias: Array, real: Array, most: int) -> tuple:
    values, places = _choose(x, bias, kernel, encoder_bias, real, most)
    return (values, places), (x, bias, kernel, places)


def _choose_backward(most: int, kept: tuple, g: tuple) -> tuple:
    x, bias, kernel, places = kept
    slope = jnp.zeros(kernel.shape[1], x.dtype).at[places].add(g[0])
    return (jnp.zeros_like(x), -(kernel @ slope), _sums(g[0], places, x - bias, kernel.shape[1]).T, slope, None)


_choose.defvjp(_choose_forward, _choose_backward)


@jax.custom_vjp
def decode_chosen(
    values: Float[Array, "b K"], places: Int[Array, "b K"], kernel: Float[Array, "M E"],
) -> Float[Array, "b E"]:
    """sum_j values[:, j] * kernel[places[:, j]]."""
    return _rows(values, places, kernel)


def _rows(values: Array, places: Array, kernel: Array) -> Array:
    together = next(n for n in range(TOGETHER, 0, -1) if values.shape[1] % n == 0)
    fold = lambda a: a.T.reshape(-1, together, a.shape[0])

    def add(out: Array, some: tuple) -> tuple[Array, None]:
        for value, place in zip(*some):
            out = out + value[:, None] * kernel[place]
        return out, None

    return jax.lax.scan(add, jnp.zeros((len(values), kernel.shape[1]), kernel.dtype), (fold(values), fold(places)))[0]


def _decode_backward(kept: tuple, g: Array) -> tuple:
    values, places, kernel = kept
    # The barrier keeps the gather out of the sum, where it would be done number by number.
    along = lambda _, place: (None, jax.lax.optimization_barrier(g * kernel[place]) @ jnp.ones(g.shape[1], g.dtype))
    return jax.lax.scan(along, None, places.T)[1].T, None, _sums(values, places, g, kernel.shape[0])


decode_chosen.defvjp(lambda values, places, kernel: (_rows(values, places, kernel), (values, places, kernel)),
                     _decode_backward)


def _sums(values: Float[Array, "b K"], places: Int[Array, "b K"], rows: Float[Array, "b D"], m: int) -> Array:
    """float[M, D]: for each latent the sum of the rows of its tokens, by value.

    Summands are sorted by latent and added in groups of `GROUP`, the sums of groups in groups again, until a
    latent has one: only gathers, which every core shares, where a scatter is one loop on one core. A latent has at
    most as many summands as there are tokens, so the number of rounds is known.
    """
    tokens, each = places.shape
    latents, order = _sorted(places.reshape(-1), m)
    bounds = jnp.searchsorted(latents, jnp.arange(m + 1, dtype=latents.dtype)).astype(jnp.int32)
    counts = bounds[1:] - bounds[:-1]
    weights, at, most = values.reshape(-1)[order], order // each, tokens
    while True:
        firsts, groups = jnp.cumsum(counts) - counts, -(-counts // GROUP)
        if most <= GROUP:  # one group a latent is enough
            owner, within = jnp.arange(m), jnp.zeros(m, jnp.int32)
        else:
            ends = jnp.cumsum(groups)
            number = jnp.arange(len(at) // GROUP + m, dtype=jnp.int32)
            owner = jnp.minimum(jnp.searchsorted(ends, number, side="right"), m - 1)
            within = number - (ends - groups)[owner]
        place = within[:, None] * GROUP + jnp.arange(GROUP)
        summand = jnp.minimum(firsts[owner][:, None] + place, len(at) - 1)
        rows = _rows(jnp.where(place < counts[owner][:, None], weights[summand], 0), at[summand], rows)
        if most <= GROUP:
            return rows
        counts, most = groups, -(-most // GROUP)
        at, weights = number, jnp.ones(len(number), values.dtype)


def _sorted(places: Int[Array, "n"], m: int) -> tuple[Array, Array]:
    """(places in order, where each stood before); equal ones stay in order."""
    n = places.size
    before = jnp.arange(n, dtype=jnp.int32)
    if m * n > 2**32:
        return jax.lax.sort_key_val(places, before)
    # Place and number fit into one word, which sorts several times faster than two.
    key = jnp.sort(places.astype(jnp.uint32) * jnp.uint32(n) + before.astype(jnp.uint32))
    return (key // jnp.uint32(n)).astype(jnp.int32), (key % jnp.uint32(n)).astype(jnp.int32)
