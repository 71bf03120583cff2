"""Small dense networks on data from a known rule, trained here, with EK-FAC factors by the kernels of `kronecker`."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from xlingjax.influence.factors import Factors
from xlingjax.influence.matrices import Matrix
from xlingjax.influence.validation.problems import Problem, losses
from xlingjax.kernels.kronecker import eigenbases, second_moments, squared_gradients
from xlingjax.precision import full_precision

NOISE = 0.3  # of regression targets; and the share of wrong labels
RATE = 3e-3
STEPS = 500
DRAWS = 10  # of labels of every example


@dataclasses.dataclass(frozen=True)
class Network:
    """Dense maps with tanh between them; weights are `flatten` of [1, inputs + 1, outputs], biases last.

    >>> Network((2, 3, 1))((), jnp.zeros(13), jnp.ones((4, 2))).shape
    (4, 1, 1)
    """

    widths: tuple[int, ...]

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        pairs = zip(self.widths, self.widths[1:])
        return tuple(Matrix(f"dense {i}", "", "", a, b, True) for i, (a, b) in enumerate(pairs))

    @property
    def size(self) -> int:
        return sum(one.rows * one.outputs for one in self.matrices)

    def __call__(self, rest: Any, weights: Float[Array, "P"], inputs: Float[Array, "n D"]) -> Float[Array, "n 1 C"]:
        return self.maps(weights, inputs, [0.0] * len(self.matrices))[0][:, None]

    def maps(
        self, weights: Float[Array, "P"], x: Float[Array, "n D"], add: list[Any],
    ) -> tuple[Float[Array, "n C"], list[Float[Array, "n J"]]]:
        """Outputs, and what each map reads; `add` is added to what each gives."""
        reads, start = [], 0
        for number, one in enumerate(self.matrices):
            x = jnp.concatenate([jnp.tanh(x) if number else x, jnp.ones((len(x), 1))], axis=1)
            reads.append(x)
            kernel = weights[start:start + one.rows * one.outputs].reshape(one.rows, one.outputs)
            x, start = x @ kernel + add[number], start + one.rows * one.outputs
        return x, reads

    def init(self, key: Key[Array, ""]) -> Float[Array, "P"]:
        parts = []
        for one in self.matrices:
            key, own = jax.random.split(key)
            kernel = jax.random.normal(own, (one.inputs, one.outputs)) / np.sqrt(one.inputs)
            parts.append(jnp.concatenate([kernel, jnp.zeros((1, one.outputs))]).reshape(-1))
        return jnp.concatenate(parts)


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
@full_precision
def train(
    network: Network, loss: str, start: Float[Array, "P"], inputs: Array, targets: Array, weight: Float[Array, "n"],
    steps: int,
) -> Float[Array, "P"]:
    """Adam on all examples at once, each with its weight."""
    adam = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    mean = lambda w: (losses(loss, network((), w, inputs), targets) * weight).sum() / weight.sum()

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        w, held = state
        change, held = adam.update(jax.grad(mean)(w), held)
        return (optax.apply_updates(w, change), held), None

    return jax.lax.scan(step, (start, adam.init(start)), None, steps)[0][0]


def rows_of(loss: str, network: Network, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [count, D] and targets: outputs of another random network with noise, or its best class, some wrong."""
    rng = np.random.default_rng([seed, 11])
    rule = network.init(jax.random.key(seed + 1000)) * 2
    x = rng.standard_normal((count, network.widths[0])).astype(np.float32)
    y = np.asarray(network((), rule, jnp.asarray(x)))
    if loss == "squared":
        return x, (y + NOISE * rng.standard_normal(y.shape)).astype(np.float32)
    wrong = rng.random((count, 1)) < NOISE / 3
    return x, np.where(wrong, rng.integers(0, y.shape[-1], (count, 1)), y.argmax(-1)).astype(np.int32)


def network_problem(
    loss: str, widths: tuple[int, ...] = (8, 16, 16, 4), count: int = 200, queries: int = 20, steps: int = STEPS,
    seed: int = 0,
) -> Problem:
    """A network trained on `count` examples; "squared" is regression, "softmax" classification."""
    network = Network(widths)
    x, y = (jnp.asarray(one) for one in rows_of(loss, network, count + queries, seed))
    weights = train(network, loss, network.init(jax.random.key(seed)), x[:count], y[:count], jnp.ones(count), steps)
    factors = network_factors(network, loss, weights, x[:count], seed)
    return Problem(network, loss, (), weights, x[:count], y[:count], x[count:], y[count:], factors)


def network_factors(network: Network, loss: str, weights: Array, inputs: Array, seed: int) -> Factors:
    """EK-FAC with labels drawn from the network, `DRAWS` for every example."""
    inputs = jnp.tile(inputs, (DRAWS, 1))
    pairs = dict(zip((one.name for one in network.matrices), _reads_and_slopes(
        network, loss, weights, inputs, jax.random.key(seed + 2000))))
    count = jnp.ones((len(inputs), 1))
    held: dict[str, dict[str, np.ndarray]] = {
        key: {} for key in ("left", "right", "alpha", "sigma", "squares", "diagonal")}
    for name, (a, g) in pairs.items():
        for side, value, x in (("left", "alpha", a), ("right", "sigma", g)):
            moment = np.asarray(second_moments(x, count), np.float64)[None] / len(inputs)
            held[value][name], held[side][name] = eigenbases(moment, what=name)
        bases = [jnp.asarray(held[side][name][0], jnp.float32) for side in ("left", "right")]
        plain = [jnp.eye(x.shape[-1]) for x in (a, g)]
        for key, two in (("squares", bases), ("diagonal", plain)):
            held[key][name] = np.asarray(squared_gradients(a, g, *two), np.float64)[None] / len(inputs)
    return Factors(network.matrices, **held, tokens=len(inputs), sequences=len(inputs), model="", described={})


@functools.partial(jax.jit, static_argnums=(0, 1))
@full_precision
def _reads_and_slopes(
    network: Network, loss: str, weights: Array, inputs: Array, key: Key[Array, ""],
) -> list[tuple[Float[Array, "n 1 J"], Float[Array, "n 1 O"]]]:
    add = [jnp.zeros((len(inputs), one.outputs)) for one in network.matrices]
    out, reads = network.maps(weights, inputs, add)
    if loss == "squared":
        drawn = out + jax.random.normal(key, out.shape)
    else:
        drawn = jax.random.categorical(key, out)
    total = lambda add: losses(loss, network.maps(weights, inputs, add)[0][:, None], drawn[:, None]).sum()
    return [(a[:, None], g[:, None]) for a, g in zip(reads, jax.grad(total)(add))]
