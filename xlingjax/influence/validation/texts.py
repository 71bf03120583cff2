"""A small language model on texts of a few topics, trained here, as a `Problem`."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from xlingjax.corpora.tokenising import Tokens
from xlingjax.influence.curvature import displaced
from xlingjax.influence.factors import FactorSettings, fit_factors
from xlingjax.influence.losses import sequence_losses
from xlingjax.influence.matrices import Matrix, matrices
from xlingjax.influence.validation.problems import Problem
from xlingjax.models import Model
from xlingjax.models.config import TransformerConfig
from xlingjax.models.transformer import forward, init_params, unembed
from xlingjax.precision import full_precision

SMALL = TransformerConfig(vocab_size=16, layers=1, width=8, heads=2, mlp_width=16, positions="learned", max_length=24)
RATE = 1e-2
STEPS = 40
DRAWS = 10  # of the labels of every token


@dataclasses.dataclass(frozen=True)
class Text:
    """Logits of next tokens, as a function of what is added to the weights of `chosen`."""

    config: TransformerConfig
    chosen: tuple[Matrix, ...]

    def __call__(self, rest: Any, weights: Float[Array, "P"], tokens: Int[Array, "n T"]) -> Float[Array, "n O V"]:
        moved, start = {}, 0
        for m in self.chosen:
            shape = (self.config.layers, m.rows, m.outputs)
            moved[m.name] = weights[start:start + int(np.prod(shape))].reshape(shape)
            start += int(np.prod(shape))
        params = displaced(rest, self.chosen, moved)
        hidden, _ = forward(params, self.config, tokens, jnp.ones(tokens.shape, bool))
        return unembed(params, self.config, hidden[:, :-1]).astype(jnp.float32)


def topics(config: TransformerConfig, count: int, length: int, seed: int, kinds: int = 8) -> Int[np.ndarray, "n T"]:
    """Sequences of Markov chains, the first of `kinds` topics, the second, ... and again; topics belong to `seed`."""
    rules = np.random.default_rng([seed, 5]).dirichlet(np.full(config.vocab_size, 0.2), (kinds, config.vocab_size))
    rng = np.random.default_rng([seed, 6])
    rows = np.empty((count, length), np.int32)
    for row in range(count):
        rows[row, 0] = rng.integers(config.vocab_size)
        for t in range(1, length):
            rows[row, t] = rng.choice(config.vocab_size, p=rules[row % kinds, rows[row, t - 1]])
    return rows


@functools.partial(jax.jit, static_argnums=(0, 4))
@full_precision
def train(
    config: TransformerConfig, params: Any, tokens: Int[Array, "n T"], weight: Float[Array, "n"], steps: int,
) -> Any:
    """Adam on all sequences at once, each with its weight."""
    adam = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    mask, labels = jnp.ones(tokens.shape, bool), jnp.roll(tokens, -1, 1)
    places = mask.at[:, -1].set(False)

    def mean(params: Any) -> Float[Array, ""]:
        return (sequence_losses(params, config, tokens, mask, labels, places) * weight).sum() / weight.sum() / (
            tokens.shape[1] - 1)

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        params, held = state
        change, held = adam.update(jax.grad(mean)(params), held)
        return (optax.apply_updates(params, change), held), None

    return jax.lax.scan(step, (params, adam.init(params)), None, steps)[0][0]


def as_tokens(rows: Int[np.ndarray, "n T"]) -> Tokens:
    """Sequences without special tokens.

    >>> as_tokens(np.array([[3, 1], [2, 2]])).lengths.tolist()
    [2, 2]
    """
    return Tokens(tuple(rows), tuple(np.zeros(len(row), bool) for row in rows))


def text_problem(
    config: TransformerConfig = SMALL, count: int = 96, queries: int = 12, length: int = 24, steps: int = STEPS,
    seed: int = 0, start: Any = None,
) -> Problem:
    """A model trained on `count` sequences; influence is asked of its MLP matrices, the rest stands still.

    Args:
        start: parameters to train from, by default drawn by the seed.
    """
    rows = topics(config, count + queries, length, seed)
    params = init_params(config, jax.random.key(seed)) if start is None else start
    params = train(config, params, rows[:count], jnp.ones(count), steps)
    many = as_tokens(np.tile(rows[:count], (DRAWS, 1)))
    factors = fit_factors(Model(params, config), many, FactorSettings(diagonal=True, seed=seed), show=False)
    text = Text(config, matrices(config))
    size = sum(config.layers * m.rows * m.outputs for m in text.chosen)
    held, asked = jnp.asarray(rows[:count]), jnp.asarray(rows[count:])
    return Problem(text, "softmax", params, jnp.zeros(size), held, held[:, 1:], asked, asked[:, 1:], factors)
