"""What a layer would predict if the head could read it: an affine map before the head (Belrose et al. 2023).

The logit lens reads a layer as if it were the last one. Layers that write in another basis look as if they knew
nothing. The tuned lens (arXiv 2303.08112, section 3) gives every layer h -> h + h @ A + b and fits it so that the head
says what the model says in the end: the mean of KL(final || lens) over tokens is least. A and b start at zero, which is
the logit lens, so a layer can only gain on the text it was fitted to.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from xlingjax.errors import InputError
from xlingjax.models.transformer import normalised, unembed
from xlingjax.precision import full_precision

LOGITS = 4_000_000  # made at a time
RATE, LEAST = 1e-2, 32  # of Adam on states of unit variance, falling to 0 in a line; tokens that can be fitted to


class Translators(NamedTuple):
    """One affine map a layer; of the last layer, which the head was made for, nothing is changed."""

    kernel: Float[np.ndarray, "L D D"]
    bias: Float[np.ndarray, "L D"]

    def __call__(self, states: Float[np.ndarray, "L n D"]) -> Float[np.ndarray, "L n D"]:
        """The states as the head reads them."""
        return states + np.einsum("lnd,lde->lne", states, self.kernel, optimize=True) + self.bias[:, None]


def fit_translators(
    params: Any, config: Any, states: Float[np.ndarray, "L n D"], steps: int, *, batch: int = 128, seed: int = 0,
) -> Translators:
    """The maps of all layers, fitted at once.

    Args:
        params, config: of the model whose head reads. states: the same n tokens at every layer, the last one last.
        steps: of Adam; each reads `batch` of the tokens, drawn by the seed, the same for all layers.

    Raises:
        InputError: fewer than 32 tokens.
    """
    layers, count, width = states.shape
    if count < LEAST:
        raise InputError(f"a tuned lens is fitted to {count} tokens; give {LEAST} or more, from longer text")
    finite = np.isfinite(states).all((1, 2))
    scale = np.where(finite, states.std((1, 2)), 1).astype(np.float32)
    scale = np.where(scale > 0, scale, 1)
    order = np.random.default_rng([seed, 83]).integers(0, count, (steps, min(batch, count)))
    rows = max(1, min(order.shape[1], LOGITS // config.vocab_size))
    order = order[:, :max(rows, order.shape[1] // rows * rows)]
    made = [np.zeros((width, width), np.float32), np.zeros(width, np.float32)]
    kernels, biases = [], []
    for layer in range(layers):
        kernel, bias = made if layer == layers - 1 or not finite[layer] else _fit(
            params, config, states[layer], states[-1], order, np.float32(scale[layer]), rows)
        kernels.append(np.asarray(kernel))
        biases.append(np.asarray(bias))
    return Translators(np.stack(kernels), np.stack(biases))


@functools.partial(jax.jit, static_argnames=("config", "rows"))
@full_precision
def _fit(
    params: Any, config: Any, h: Float[Array, "n D"], last: Float[Array, "n D"], order: Array, scale: Array, rows: int,
) -> tuple[Float[Array, "D D"], Float[Array, "D"]]:
    """One layer; compiled once for all of them."""
    dtype = params["embed"]["tokens"]["embedding"].dtype
    steps = len(order)
    optimiser = optax.adam(optax.schedules.linear_schedule(RATE, 0.0, steps))

    def log_p(x: Array) -> Array:
        return jax.nn.log_softmax(unembed(params, config, normalised(params, config, x.astype(dtype))).astype(
            jnp.float32))

    def loss(maps: tuple[Array, Array], at: Array) -> Array:
        kernel, bias = maps

        @jax.checkpoint
        def part(total: Array, few: Array) -> tuple[Array, None]:
            x = h[few]
            moved = x + (x / scale) @ kernel * scale / jnp.sqrt(jnp.float32(x.shape[-1])) + bias * scale
            wanted = log_p(last[few])
            return total + (jnp.exp(wanted) * (wanted - log_p(moved))).sum(), None

        total, _ = jax.lax.scan(part, jnp.float32(0), at.reshape(-1, rows))
        return total / at.size

    def step(state: tuple, at: Array) -> tuple[tuple, None]:
        maps, moments = state
        slope = jax.grad(loss)(maps, at)
        change, moments = optimiser.update(slope, moments)
        return (optax.apply_updates(maps, change), moments), None

    width = h.shape[1]
    maps = (jnp.zeros((width, width)), jnp.zeros(width))
    (maps, _), _ = jax.lax.scan(step, (maps, optimiser.init(maps)), order)
    return maps[0] / jnp.sqrt(jnp.float32(width)), maps[1] * scale
