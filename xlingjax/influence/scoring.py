"""How much each training sequence made a model say something: products of its gradient with a query's, through G^-1.

    I(q, z) = grad log p(completion | prompt)^T (G + lambda)^-1 grad log p(z)

Positive: the sequence made the completion likelier. It is a sum over layers, matrices and tokens of z; each part can be
had alone.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xlingjax.corpora.batching import Batch, make_batch, plan_batches
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.influence.factors import DAMPING, Factors
from xlingjax.influence.losses import scored_places, statistics
from xlingjax.influence.matrices import Matrix
from xlingjax.models import Model
from xlingjax.precision import full_precision
from xlingjax.progress import progress

Scored = Sequence[Bool[np.ndarray, "t"]]
Gradients = dict[str, Float[np.ndarray, "n L J O"]]


def sequence_gradients(
    model: Model, chosen: Sequence[Matrix], tokens: Tokens, scored: Scored | None = None, *,
    batch_tokens: int = 4096,
) -> Gradients:
    """The gradient of every sequence's summed loss in every matrix; held whole, so for queries and few sequences.

    Args:
        scored: tokens whose prediction is part of the loss, all by default; of a query, its completion.

    Raises:
        InputError: a sequence scores nothing.
    """
    _check(tokens, scored)
    layers = model.config.layers
    found = {m.name: np.zeros((len(tokens), layers, m.rows, m.outputs), np.float32) for m in chosen}
    for batch in batches_of(tokens, scored, batch_tokens):
        sums = {m.name: {"gradients": jnp.zeros((layers, len(batch.rows), m.rows, m.outputs))} for m in chosen}
        made = _products(model.params, model.config, tuple((m, "gradients") for m in chosen), sums, batch.tokens,
                         batch.mask, batch.where)
        real = batch.rows >= 0
        for m in chosen:
            found[m.name][batch.rows[real]] = np.moveaxis(np.asarray(made[m.name]["gradients"]), 1, 0)[real]
    return found


def pairwise(
    model: Model, chosen: Sequence[Matrix], queries: Mapping[str, Float[np.ndarray, "Q L J O"]], tokens: Tokens,
    scored: Scored | None = None, *, batch_tokens: int = 4096, show: bool | None = None,
) -> Float[np.ndarray, "Q n M L"]:
    """I of every query and sequence, by matrix and layer; their sum is I.

    Args:
        queries: gradients of queries, preconditioned (`Factors.precondition`).
    """
    return _scores(model, chosen, queries, tokens, scored, batch_tokens, "products", show)


def by_token(
    model: Model, chosen: Sequence[Matrix], queries: Mapping[str, Float[np.ndarray, "Q L J O"]], tokens: Tokens,
    scored: Scored | None = None, *, batch_tokens: int = 4096, show: bool | None = None,
) -> list[Float[np.ndarray, "Q t"]]:
    """Each sequence's I by the token at which its gradient arises; they sum to it. Dearer than `pairwise`."""
    found = _scores(model, chosen, queries, tokens, scored, batch_tokens, "token products", show)
    return [found[:, row, :len(ids)] for row, ids in enumerate(tokens.ids)]


def self_influence(
    model: Model, factors: Factors, tokens: Tokens, scored: Scored | None = None, *, method: str = "ekfac",
    damping: float | None = None, batch_tokens: int = 4096,
) -> Float[np.ndarray, "n"]:
    """I(z, z) of every sequence, by which scores can be normalised; "ekfac" or "kfac"."""
    factors.require(model)
    _check(tokens, scored)
    sums = {}
    for name, variance in factors.variances(method).items():
        mean = variance.mean((1, 2), keepdims=True)
        weight = 1 / (variance + (DAMPING * mean if damping is None else damping))
        sums[name] = {"weight": weight, "left": factors.left[name], "right": factors.right[name]}
    sums = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), sums)
    out = np.zeros(len(tokens))
    for batch in batches_of(tokens, scored, batch_tokens):
        layers = model.config.layers
        given = {name: one | {"products": jnp.zeros((layers, len(batch.rows)))} for name, one in sums.items()}
        made = _products(model.params, model.config, tuple((m, "self products") for m in factors.matrices), given,
                         batch.tokens, batch.mask, batch.where)
        real = batch.rows >= 0
        total = sum(np.asarray(one["products"], np.float64).sum(0) for one in made.values())
        out[batch.rows[real]] = np.asarray(total)[real]
    return out


def _scores(
    model: Model, chosen: Sequence[Matrix], queries: Mapping[str, np.ndarray], tokens: Tokens, scored: Scored | None,
    batch_tokens: int, kind: str, show: bool | None,
) -> np.ndarray:
    _check(tokens, scored)
    layers, count = model.config.layers, len(next(iter(queries.values())))
    longest = int(tokens.lengths.max())
    whole = kind == "products"
    out = np.zeros((count, len(tokens), len(chosen), layers) if whole else (count, len(tokens), longest))
    held = {m.name: jnp.moveaxis(jnp.asarray(queries[m.name], jnp.float32), 0, 1) for m in chosen}
    batches = batches_of(tokens, scored, batch_tokens)
    for batch in progress(batches, label="score", unit="batches", show=show):
        size = (layers, count, *batch.tokens.shape[:1 if whole else 2])
        sums = {m.name: {"queries": held[m.name], "products": jnp.zeros(size)} for m in chosen}
        made = _products(model.params, model.config, tuple((m, kind) for m in chosen), sums, batch.tokens, batch.mask,
                         batch.where)
        real = batch.rows >= 0
        parts = np.stack([np.asarray(made[m.name]["products"]) for m in chosen])  # [M, L, Q, B (, T)]
        if whole:
            out[:, batch.rows[real]] = np.moveaxis(parts, (2, 3), (0, 1))[:, real]
        else:
            width = min(longest, batch.tokens.shape[1])
            out[:, batch.rows[real], :width] = parts.sum((0, 1))[:, real, :width]
    return out


def batches_of(tokens: Tokens, scored: Scored | None, batch_tokens: int) -> list[Batch]:
    """All sequences in batches; `where` of a batch are the tokens whose prediction is part of the loss."""
    where = tuple(np.ones(len(ids), bool) if scored is None else scored[row] for row, ids in enumerate(tokens.ids))
    return [make_batch(tokens, plan, where) for plan in plan_batches(tokens.lengths, batch_tokens)]


def _check(tokens: Tokens, scored: Scored | None) -> None:
    for row, ids in enumerate(tokens.ids):
        if not (len(ids) > 1 if scored is None else scored[row][1:].any()):
            raise InputError(f"sequence {row} has no token that is predicted; give it a first token, and a completion "
                             "of one token or more")


@functools.partial(jax.jit, static_argnums=(1, 2))
@full_precision
def _products(
    params: Any, config: Any, kinds: tuple[tuple[Matrix, str], ...], sums: Any, tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"], scored: Bool[Array, "B T"],
) -> dict[str, dict[str, Array]]:
    """Statistics of the true next tokens' loss."""
    places = scored_places(scored, mask)
    labels = jnp.roll(tokens, -1, axis=1)
    return statistics(params, config, {m: (kind, sums[m.name]) for m, kind in kinds}, tokens, mask, labels, places)
