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
    return tuple(ranked(jnp.where(real & (z > 0), z, 0), most))


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
    slope = jax.lax.scan(lambda _, place: (None, (g * kernel[place]).sum(axis=-1)), None, places.T)[1].T
    return slope, None, _sums(values, places, g, kernel.shape[0])


decode_chosen.defvjp(lambda values, places, kernel: (_rows(values, places, kernel), (values, places, kernel)),
                     _decode_backward)


def _sums(values: Float[Array, "b K"], places: Int[Array, "b K"], rows: Float[Array, "b D"], m: int) -> Array:
    """float[M, D]: for each latent the sum of the rows of its tokens, by value."""
    return jax.lax.scan(lambda out, some: (out.at[some[1]].add(some[0][:, None] * rows), None),
                        jnp.zeros((m, rows.shape[1]), rows.dtype), (values.T, places.T))[0]
