"""From logits to the next token: penalties, filters, temperature, and noise of each row's own.

The order of the steps is Hugging Face's. Values are data, so that another temperature compiles nothing;
what costs time where it is not wanted (sorting, counting n-grams, noise) is left out by `Steps`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

HUGE = -1e30  # a logit that is never chosen, and finite


class Steps(NamedTuple):
    """What the compiled program contains."""

    sampled: bool  # else the largest logit is taken
    filtered: bool  # by top_k or top_p
    penalised: bool
    ngram: int  # size that may not repeat; 0 = any may


class Values(NamedTuple):
    """Settings of each row, as data."""

    temperature: Float[Array, "B"]
    top_k: Int[Array, "B"]  # 0 = all
    top_p: Float[Array, "B"]
    penalty: Float[Array, "B"]


def next_token(
    logits: Float[Array, "B V"],
    tokens: Int[Array, "B S"],
    mask: Bool[Array, "B S"],
    seeds: Integer[Array, "B"],
    step: Int[Array, ""],
    values: Values,
    steps: Steps,
) -> Int[Array, "B"]:
    """The next token of each row.

    Args:
        logits: of the last token.
        tokens, mask: everything read and generated so far, for penalties.
        seeds: of each row; with `step` they decide its noise, whatever the other rows are.
        step: tokens generated so far.
    """
    logits = logits.astype(jnp.float32)
    if steps.penalised:
        logits = penalise(logits, tokens, mask, values.penalty)
    if steps.ngram:
        logits = jnp.where(repeats(tokens, mask, steps.ngram, logits.shape[-1]), HUGE, logits)
    if not steps.sampled:
        return logits.argmax(-1).astype(jnp.int32)
    temperature = values.temperature[:, None]
    if steps.filtered:
        logits = jnp.where(kept(logits / jnp.maximum(temperature, 1e-6), values.top_k, values.top_p), logits, HUGE)
    # argmax(logits / t + noise) draws from softmax(logits / t); times t, it is greedy at t = 0.
    noise = jax.vmap(lambda seed: jax.random.gumbel(
        jax.random.fold_in(jax.random.key(seed), step), logits.shape[-1:], jnp.float32))(seeds)
    return (logits + temperature * noise).argmax(-1).astype(jnp.int32)


def penalise(
    logits: Float[Array, "B V"], tokens: Int[Array, "B S"], mask: Bool[Array, "B S"], penalty: Float[Array, "B"],
) -> Float[Array, "B V"]:
    """Logits of tokens that occurred, divided by the penalty, or multiplied where negative (Keskar et al. 2019).

    >>> penalise(jnp.array([[2., -2., 1.]]), jnp.array([[0, 1]]), jnp.ones((1, 2), bool), jnp.array([2.])).tolist()
    [[1.0, -4.0, 1.0]]
    """
    rows = jnp.arange(len(tokens))[:, None]
    occurred = jnp.zeros(logits.shape, bool).at[rows, tokens].max(mask)
    factor = penalty[:, None]
    return jnp.where(occurred, jnp.where(logits > 0, logits / factor, logits * factor), logits)


def repeats(
    tokens: Int[Array, "B S"], mask: Bool[Array, "B S"], size: int, vocabulary: int,
) -> Bool[Array, "B V"]:
    """Tokens that would make an n-gram of this size occur a second time.

    Args:
        tokens, mask: real tokens of a row lie together and end at its last real slot.

    >>> repeats(jnp.array([[5, 6, 7, 5, 6]]), jnp.ones((1, 5), bool), 3, 10)[0].nonzero()[0].tolist()
    [7]
    """
    slots = tokens.shape[1]
    if slots < size:
        return jnp.zeros((len(tokens), vocabulary), bool)
    end = slots - jnp.argmax(mask[:, ::-1], axis=1)  # one past the last real token
    rows = jnp.arange(len(tokens))[:, None]
    starts = jnp.arange(slots - size + 1)
    alike = jnp.ones((len(tokens), len(starts)), bool)
    for place in range(size - 1):
        at = end - (size - 1) + place
        recent = jnp.take_along_axis(tokens, jnp.maximum(at, 0)[:, None], axis=1)
        known = jnp.take_along_axis(mask, jnp.maximum(at, 0)[:, None], axis=1) & (at >= 0)[:, None]
        alike &= known & mask[:, starts + place] & (tokens[:, starts + place] == recent)
    follows = starts + size - 1
    alike &= mask[:, follows] & (follows[None] < end[:, None])
    return jnp.zeros((len(tokens), vocabulary), bool).at[rows, tokens[:, follows]].max(alike)


def kept(
    logits: Float[Array, "B V"], top_k: Int[Array, "B"], top_p: Float[Array, "B"],
) -> Bool[Array, "B V"]:
    """The `top_k` largest logits, and of these the fewest whose probabilities reach `top_p`.

    Equals of the last one are kept too.

    >>> kept(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), jnp.array([2]), jnp.array([1.0])).tolist()
    [[True, True, False]]
    >>> kept(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), jnp.array([0]), jnp.array([0.7])).tolist()
    [[True, True, False]]
    """
    vocabulary = logits.shape[-1]
    order = jnp.sort(logits, axis=-1, descending=True)
    count = jnp.where(top_k > 0, jnp.minimum(top_k, vocabulary), vocabulary)
    order = jnp.where(jnp.arange(vocabulary) < count[:, None], order, -jnp.inf)
    probability = jax.nn.softmax(order, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    last = jnp.maximum(((before < top_p[:, None]) & (probability > 0)).sum(-1), 1) - 1
    return logits >= jnp.take_along_axis(order, last[:, None], axis=-1)
