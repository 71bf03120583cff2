"""How much each training sequence made a model say something: products of its gradient with a query's, through G^-1.

    I(q, z) = grad log p(completion | prompt)^T (G + lambda)^-1 grad log p(z)

Positive: the sequence made the completion likelier. It is a sum over layers, matrices and tokens of z; each part can be
had alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xlingjax.corpora.batching import Batch
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.influence.factors import Factors
from xlingjax.influence.kept import kept
from xlingjax.influence.losses import Scored, batches_of, layer_zeros, measure, over_layers
from xlingjax.influence.matrices import Matrix
from xlingjax.kernels.kronecker import inverse_weight
from xlingjax.models import Model
from xlingjax.progress import progress

Gradients = dict[str, Float[np.ndarray, "n L J O"]]


class LowRank(NamedTuple):
    """A query's gradient in one matrix as a product of two; what `low_rank` makes."""

    tall: Float[np.ndarray, "Q L J r"]
    wide: Float[np.ndarray, "Q L r O"]


def low_rank(queries: Mapping[str, Float[np.ndarray, "Q L J O"]], rank: int) -> dict[str, LowRank]:
    """Preconditioned gradients by their `rank` largest singular directions in every layer.

    Grosse et al. 2023 (section 3.2.2) keep 32, and report r = 0.995 with the full scores.

    >>> one = np.einsum("i,o->io", np.arange(3.0), np.arange(4.0))[None, None]
    >>> found = low_rank({"mlp/up": one}, 1)["mlp/up"]
    >>> np.allclose(found.tall @ found.wide, one)
    True
    """
    if rank < 1:
        raise InputError(f"rank is {rank}; give at least 1")
    pairs = {name: [_nearest(query, rank) for query in one] for name, one in queries.items()}
    return {name: LowRank(*(np.stack(part) for part in zip(*made))) for name, made in pairs.items()}


def _nearest(
    query: Float[np.ndarray, "L J O"], rank: int,
) -> tuple[Float[np.ndarray, "L J r"], Float[np.ndarray, "L r O"]]:
    """The two matrices of lower rank nearest to a query's in each layer.

    Singular vectors of the shorter side are eigenvectors, found in a fraction of the time of a whole decomposition.
    """
    if query.shape[1] > query.shape[2]:
        wide, tall = _nearest(np.swapaxes(query, 1, 2), rank)
        return np.swapaxes(tall, 1, 2), np.swapaxes(wide, 1, 2)
    exact = query.astype(np.float64)
    vectors = np.linalg.eigh(exact @ np.swapaxes(exact, 1, 2))[1][..., :-rank - 1:-1]
    return vectors.astype(np.float32), (np.swapaxes(vectors, 1, 2) @ exact).astype(np.float32)


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
    found = {m.name: np.empty((len(tokens), model.config.layers, m.rows, m.outputs), np.float32) for m in chosen}
    for rows, made in _gradients(model, chosen, batches_of(model, tokens, scored, batch_tokens)):
        for name, one in made.items():
            found[name][rows] = one
    return found


def gradients_by_parts(
    model: Model, chosen: Sequence[Matrix], tokens: Tokens, scored: Scored | None, several: int, *,
    batch_tokens: int = 4096,
) -> Iterator[tuple[Int[np.ndarray, "n"], Gradients]]:
    """`sequence_gradients` of about `several` sequences at a time, and which they are; shapes stay those of all."""
    _check(tokens, scored)
    for group in grouped(batches_of(model, tokens, scored, batch_tokens), several):
        rows, parts = zip(*_gradients(model, chosen, group))
        yield np.concatenate(rows), {m.name: np.concatenate([part[m.name] for part in parts]) for m in chosen}


def _gradients(
    model: Model, chosen: Sequence[Matrix], batches: Sequence[Batch],
) -> Iterator[tuple[Int[np.ndarray, "n"], Gradients]]:
    """Of each batch the sequences in it and their gradients, as views where it is full."""
    for batch in batches:
        sums = {m.name: {"gradients": layer_zeros(model, len(batch.rows), m.rows, m.outputs)} for m in chosen}
        made = measure(model, tuple((m, "gradients") for m in chosen), "true", sums, batch)
        real = batch.rows >= 0
        places = slice(None) if real.all() else real
        yield batch.rows[real], {m.name: np.moveaxis(made[m.name]["gradients"], 1, 0)[places] for m in chosen}


def pairwise(
    model: Model, chosen: Sequence[Matrix], queries: Mapping[str, Float[np.ndarray, "Q L J O"] | LowRank],
    tokens: Tokens, scored: Scored | None = None, *, batch_tokens: int = 4096, show: bool | None = None,
    folder: Path | None = None, block: int = 4096,
) -> Float[np.ndarray, "Q n M L"]:
    """I of every query and sequence, by matrix and layer; their sum is I.

    Args:
        queries: gradients of queries, preconditioned (`Factors.precondition`), whole or by `low_rank`.
        folder: where scores are kept, `block` sequences or more a file, and read from; held by the caller.
    """
    kind = "low-rank products" if isinstance(next(iter(queries.values())), LowRank) else "products"
    return _scores(model, chosen, queries, tokens, scored, batch_tokens, kind, show, folder, block)


def normalised(
    model: Model, factors: Factors, queries: Mapping[str, Float[np.ndarray, "Q L J O"] | LowRank], tokens: Tokens,
    scored: Scored | None = None, *, batch_tokens: int = 4096, show: bool | None = None,
) -> tuple[Float[np.ndarray, "Q n"], Float[np.ndarray, "n"]]:
    """I of every query and sequence over the root of the sequence's influence on itself, and that root; in one pass."""
    factors.require(model)
    kind = "low-rank products" if isinstance(next(iter(queries.values())), LowRank) else "products"
    found = _scores(model, factors.matrices, queries, tokens, scored, batch_tokens, kind, show,
                    own=_own_inverse(factors, "ekfac", None)).sum((2, 3))
    root = np.sqrt(found[-1])
    return found[:-1] / root, root


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
    sums = over_layers(model, _own_inverse(factors, method, damping))
    out = np.zeros(len(tokens))
    for batch in batches_of(model, tokens, scored, batch_tokens):
        zeros = layer_zeros(model, len(batch.rows))
        given = {name: one | {"products": zeros} for name, one in sums.items()}
        made = measure(model, tuple((m, "self products") for m in factors.matrices), "true", given, batch)
        real = batch.rows >= 0
        total = sum(one["products"].astype(np.float64).sum(0) for one in made.values())
        out[batch.rows[real]] = np.asarray(total)[real]
    return out


def _own_inverse(factors: Factors, method: str, damping: float | None) -> dict[str, dict[str, np.ndarray]]:
    """What "self products" take: bases, and the inverse in them."""
    return {name: {"weight": inverse_weight(variance, damping), "left": factors.left[name],
                   "right": factors.right[name]} for name, variance in factors.variances(method).items()}


def _scores(
    model: Model, chosen: Sequence[Matrix], queries: Mapping[str, Any], tokens: Tokens, scored: Scored | None,
    batch_tokens: int, kind: str, show: bool | None, folder: Path | None = None, block: int = 4096,
    own: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> np.ndarray:
    """Products of queries and sequences; with `own`, those of each sequence with itself as one more row."""
    _check(tokens, scored)
    first = queries[chosen[0].name]
    layers, count = model.config.layers, len(first.tall if isinstance(first, LowRank) else first)
    held = {m.name: _placed(model, queries[m.name]) for m in chosen}
    if own is not None:
        beside, count = over_layers(model, own), count + 1
        held = {name: one | beside[name] for name, one in held.items()}
    longest = int(tokens.lengths.max())
    whole = kind != "token products"
    out = np.zeros((count, len(tokens), len(chosen), layers) if whole else (count, len(tokens), longest))

    def products(batch: Batch) -> np.ndarray:
        zeros = layer_zeros(model, count, *batch.tokens.shape[:1 if whole else 2])
        made = measure(model, tuple((m, kind) for m in chosen), "true", {
            m.name: {**held[m.name], "products": zeros} for m in chosen}, batch)
        parts = np.stack([made[m.name]["products"] for m in chosen])  # [M, L, Q, B (, T)]
        return np.moveaxis(parts, (2, 3), (0, 1)) if whole else parts.sum((0, 1))

    with progress(total=len(tokens), label="score", unit="sequences", show=show) as bar:
        for number, group in enumerate(grouped(batches_of(model, tokens, scored, batch_tokens), block)):
            path = None if folder is None else folder / f"{number:05d}.npz"
            made = kept(path, lambda group=group: {  # type: ignore[misc]
                str(at): products(batch) for at, batch in enumerate(group)})
            for at, batch in enumerate(group):
                real = batch.rows >= 0
                found = made[str(at)][:, real]
                if whole:
                    out[:, batch.rows[real]] = found
                else:
                    width = min(longest, batch.tokens.shape[1])
                    out[:, batch.rows[real], :width] = found[..., :width]
                bar.update(int(real.sum()))
    return out


def _placed(model: Model, queries: Float[np.ndarray, "Q L J O"] | LowRank) -> dict[str, Array]:
    """Queries in one matrix where `Statistic` takes them, layers first; whole ones are turned there."""
    if isinstance(queries, LowRank):
        return over_layers(model, {key: np.moveaxis(value, 0, 1) for key, value in queries._asdict().items()})
    return {"queries": _queries_last(over_layers(model, np.moveaxis(queries, 0, 1)))}


@jax.jit
def _queries_last(queries: Float[Array, "L Q J O"]) -> Float[Array, "L J O Q"]:
    return jnp.moveaxis(queries, 1, -1)


def grouped(batches: Sequence[Batch], block: int) -> list[list[Batch]]:
    """Batches in groups of `block` sequences or a little more, in order; shapes stay those of the whole corpus."""
    groups: list[list[Batch]] = []
    held = block
    for batch in batches:
        if held >= block:
            groups.append([])
            held = 0
        groups[-1].append(batch)
        held += int((batch.rows >= 0).sum())
    return groups


def _check(tokens: Tokens, scored: Scored | None) -> None:
    for row, ids in enumerate(tokens.ids):
        if not (len(ids) > 1 if scored is None else scored[row][1:].any()):
            raise InputError(f"sequence {row} has no token that is predicted; give it a first token, and a completion "
                             "of one token or more")
