"""How alike two languages represent the same sentences: similarity of what is parallel, and of neighbourhoods.

Row i of every language is the same sentence. Every measure is computed for the true pairing and for shuffled ones,
whose mean is what it would be without any alignment. Canonical correlations are in `cca`, one language's geometry in
`geometry`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xlingjax.precision import full_precision

NEIGHBOURS = 10  # of CSLS, mutual neighbours and local overlap
BRIDGED = 3  # other languages among a sentence's neighbours that make it a bridge


class Alignment(NamedTuple):
    """Each `[R, G, G]`, R pairings; retrieval from row to column; NaN on the diagonal.

    Attributes:
        cka, cka_debiased: linear CKA (Kornblith et al. 2019) and with the unbiased HSIC (Song et al. 2012).
        anc: mean |correlation| of a unit with itself in the other language; about sqrt(2 / (pi n)) by chance.
        mexa: share of sentences that are nearest to their own translation in both directions (Kargaran et al. 2025).
        at_1, at_5: share whose translation is the nearest, or among the five nearest, by cosine.
        centred_at_1, centred_at_5: with each language's mean taken off. csls_at_1, csls_at_5: by cosine less the mean
            cosine to the ten nearest on either side (Conneau et al. 2018).
        mutual: share of the ten nearest neighbours within a language that are so in the other; k / (n - 1) by chance.
    """

    cka: Float[Array, "*L R G G"]
    cka_debiased: Float[Array, "*L R G G"]
    anc: Float[Array, "*L R G G"]
    mexa: Float[Array, "*L R G G"]
    at_1: Float[Array, "*L R G G"]
    at_5: Float[Array, "*L R G G"]
    centred_at_1: Float[Array, "*L R G G"]
    centred_at_5: Float[Array, "*L R G G"]
    csls_at_1: Float[Array, "*L R G G"]
    csls_at_5: Float[Array, "*L R G G"]
    mutual: Float[Array, "*L R G G"]


class Rows(NamedTuple):
    """What the pairs need of one language's sentences."""

    states: Float[Array, "n D"]  # less the mean over all languages
    shift: Float[Array, "n"]  # product of each with that mean
    norm: Float[Array, "n"]  # of the sentence as it was
    centre: Float[Array, "D"]  # the language's own mean
    spread: Float[Array, "n"]  # norm around it
    units: Float[Array, "n D"]  # standardised over sentences
    gram: Float[Array, "n n"]  # of the centred sentences, its diagonal apart
    diagonal: Float[Array, "n"]
    sums: Float[Array, "n"]  # of its rows, without the diagonal
    own: Float[Array, "2"]  # `_hsic` with itself
    nearest: Int[Array, "n k"]  # neighbours by cosine, without itself


@functools.partial(jax.jit, static_argnames=("neighbours",))
@full_precision
def alignment(
    states: Float[Array | np.ndarray, "L G n D"], pairings: Int[Array | np.ndarray, "R n"],
    neighbours: int = NEIGHBOURS,
) -> Alignment:
    """All measures of all pairs of languages at every layer, in one compiled step; a layer at a time in memory.

    Args:
        states: one vector a sentence, row i the same sentence in every language.
        pairings: for each row, the row of the other language that counts as its translation; `arange(n)` is the truth.
        neighbours: k of `csls` and `mutual`, fewer than n.

    Returns: `Alignment` of `[L, R, G, G]`.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((1, 1, 40, 6)).astype(np.float32)
    >>> same = alignment(np.concatenate([x, 3 * x + 1], 1), np.arange(40)[None], neighbours=5)
    >>> [round(float(value[0, 0, 0, 1]), 3) for value in (same.cka, same.anc, same.centred_at_1)]
    [1.0, 1.0, 1.0]
    """
    pairings = jnp.asarray(pairings)
    return jax.lax.map(lambda layer: _layer(layer, pairings, neighbours), jnp.asarray(states, jnp.float32))


def _layer(states: Float[Array, "G n D"], pairings: Int[Array, "R n"], neighbours: int) -> Alignment:
    count, size, _ = states.shape
    mean = states.mean((0, 1))
    rows = jax.lax.map(lambda x: _rows(x, mean, neighbours), states)
    first, second = np.triu_indices(count, 1)
    of = lambda i: jax.tree.map(lambda leaf: leaf[i], rows)
    both = jax.lax.map(
        lambda pair: _pair(of(pair[0]), of(pair[1]), mean, pairings, neighbours),
        (jnp.asarray(first), jnp.asarray(second)))  # each measure [pairs, 2 directions, R]
    blank = jnp.full((len(pairings), count, count), jnp.nan)
    place = lambda found: (blank.at[:, first, second].set(found[:, 0].T).at[:, second, first].set(found[:, 1].T))
    return Alignment(*map(place, both))


def _rows(x: Float[Array, "n D"], mean: Float[Array, "D"], neighbours: int) -> Rows:
    near = x - mean
    centre = near.mean(0)
    apart = near - centre
    sd = jnp.sqrt(jnp.square(apart).mean(0))
    unit = x / _positive(jnp.linalg.norm(x, axis=1))[:, None]
    cosine = jnp.where(jnp.eye(len(x), dtype=bool), -jnp.inf, unit @ unit.T)
    diagonal = jnp.square(apart).sum(1)
    gram = jnp.where(jnp.eye(len(x), dtype=bool), 0, apart @ apart.T)
    sums = gram.sum(1)
    return Rows(near, near @ mean, jnp.linalg.norm(x, axis=1), centre, jnp.sqrt(diagonal), apart / _positive(sd), gram,
                diagonal, sums, _hsic(jnp.square(gram).sum(), (diagonal, diagonal), (sums, sums)),
                jax.lax.top_k(cosine, neighbours)[1])


def _positive(x: Array) -> Array:
    return jnp.where(x > 0, x, 1)


def _pair(
    one: Rows, other: Rows, mean: Float[Array, "D"], pairings: Int[Array, "R n"], neighbours: int,
) -> tuple[Array, ...]:
    """The measures in the order of `Alignment`, each [2, R]: from one to other and back."""
    product = one.states @ other.states.T
    # One product of matrices serves both cosines: what was subtracted is added, or more of it subtracted.
    raw = product + one.shift[:, None] + other.shift + mean @ mean
    cosine = raw / (_positive(one.norm)[:, None] * _positive(other.norm))
    inner = product - (one.states @ other.centre)[:, None] - other.states @ one.centre + one.centre @ other.centre
    centred = inner / (_positive(one.spread)[:, None] * _positive(other.spread))
    near = lambda matrix: jax.lax.top_k(matrix, neighbours)[0].mean(1)
    csls = 2 * cosine - near(cosine)[:, None] - near(cosine.T)
    scale = jnp.sqrt(one.own * other.own)

    def under(pairing: Int[Array, "n"]) -> tuple[Array, ...]:
        met = (one.gram * other.gram[pairing][:, pairing]).sum()
        similar = _hsic(met, (one.diagonal, other.diagonal[pairing]), (one.sums, other.sums[pairing]))
        similar = similar / jnp.where(scale > 0, scale, jnp.nan)
        same = jnp.abs((one.units * other.units[pairing]).mean(0)).mean()
        there = {name: _standing(matrix, pairing) for name, matrix in (
            ("raw", cosine), ("centred", centred), ("csls", csls))}
        mexa = ((there["raw"][0] == 1) & (there["raw"][1] == 1)).mean()
        found = [(standing <= rank).mean(1) for standing in there.values() for rank in (1, 5)]
        mutual = _common(one.nearest, other.nearest, pairing)
        both = [jnp.stack([value, value]) for value in (*similar, same, mexa)]
        return *both, *found, jnp.stack([mutual, mutual])

    return tuple(value.T for value in jax.lax.map(under, pairings))


def _hsic(
    inner: Float[Array, ""], diagonals: tuple[Array, Array], sums: tuple[Array, Array],
) -> Float[Array, "2"]:
    """Plain and unbiased (Song et al. 2012, eq. 4), each up to a factor; the latter leaves diagonals out.

    Args:
        inner: product of the two Gram matrices without their diagonals, summed.
        sums: of their rows, without the diagonals.
    """
    n = len(sums[0])
    whole = sums[0].sum() * sums[1].sum() / ((n - 1) * (n - 2))
    return jnp.stack([inner + diagonals[0] @ diagonals[1], inner + whole - 2 / (n - 2) * (sums[0] @ sums[1])])


def _standing(similarity: Float[Array, "n n"], pairing: Int[Array, "n"]) -> Int[Array, "2 n"]:
    """The place of each sentence's partner in its row, and of each in its partner's column; 1 = nearest, ties last."""
    value = jnp.take_along_axis(similarity, pairing[:, None], axis=1)[:, 0]
    by_column = jnp.zeros_like(value).at[pairing].set(value)
    # A compiler may round a value and its copy differently, so the partner itself is left out by its place.
    others = pairing[:, None] != jnp.arange(len(pairing))
    back = ((similarity >= by_column) & others).sum(0)
    return 1 + jnp.stack([((similarity >= value[:, None]) & others).sum(1), back[pairing]])


def _common(one: Int[Array, "n k"], other: Int[Array, "n k"], pairing: Int[Array, "n"]) -> Float[Array, ""]:
    """Share of neighbours whose partners are neighbours of the partner."""
    partners = pairing[one]
    return (partners[:, :, None] == other[pairing][:, None, :]).any(2).mean()


def shuffled_pairings(
    documents: Int[np.ndarray, "n"], count: int, seed: int,
) -> tuple[Int[np.ndarray, "count n"], int]:
    """Random pairings of sentences with others of the same document, and how many sentences that moves at most.

    Documents of one sentence cannot be shuffled inside; where more than half of the sentences are in such documents,
    all sentences are shuffled together.

    >>> pairings, moved = shuffled_pairings(np.array([0, 0, 0, 1, 1]), 3, seed=0)
    >>> moved, (np.sort(pairings[:, :3], 1) == np.arange(3)).all().item()
    (5, True)
    """
    _, block, sizes = np.unique(documents, return_inverse=True, return_counts=True)
    alone = sizes[block] == 1
    if alone.mean() > 0.5:
        block, alone = np.zeros(len(documents), int), np.zeros(len(documents), bool)
    rng = np.random.default_rng([seed, 23])
    out = np.empty((count, len(documents)), np.int64)
    home = np.argsort(block, kind="stable")
    for row in out:
        row[home] = np.lexsort((rng.random(len(documents)), block))
    return out, int((~alone).sum())


@functools.partial(jax.jit, static_argnames=("neighbours", "bridged"))
@full_precision
def local_overlap(
    states: Float[Array | np.ndarray, "L G n D"], neighbours: int = NEIGHBOURS, bridged: int = BRIDGED,
) -> tuple[Float[Array, "L G"], Float[Array, "L G"], Float[Array, "L G"]]:
    """Interlingual local overlap of each language (Wilie et al. 2025): ILO, bridge, reach.

    Neighbours are the nearest sentences of all languages, by distance. Bridge: share of a language's sentences whose
    neighbours are in at least `bridged` other languages. Reach: share of the other languages met by any of them. ILO
    is the harmonic mean. Languages that cannot be told apart have the most; shuffled pairings change nothing.

    >>> x = np.random.default_rng(0).standard_normal((6, 30, 3)).astype(np.float32)
    >>> apart = x + 100 * np.arange(6)[:, None, None]
    >>> ilo, _, _ = local_overlap(np.stack([x, apart]))
    >>> bool(ilo[0].min() > 0.9), float(ilo[1].max())
    (True, 0.0)
    """
    return jax.lax.map(lambda layer: _local(layer, neighbours, bridged), jnp.asarray(states, jnp.float32))


def _local(states: Float[Array, "G n D"], neighbours: int, bridged: int) -> tuple[Array, Array, Array]:
    count, size, width = states.shape
    flat = (states - states.mean((0, 1))).reshape(-1, width)
    squares = jnp.square(flat).sum(1)

    def language(g: Int[Array, ""]) -> tuple[Array, Array]:
        own = jax.lax.dynamic_slice_in_dim(flat, g * size, size)
        near = 2 * own @ flat.T - squares  # the square of the distance, turned round, but for a constant a row
        itself = g * size + jnp.arange(size)
        near = near.at[jnp.arange(size), itself].set(-jnp.inf)
        met = jax.lax.top_k(near, neighbours)[1] // size
        others = (met[:, :, None] == jnp.arange(count)).any(1) & (jnp.arange(count) != g)
        return (others.sum(1) >= bridged).mean(), others.any(0).sum() / (count - 1)

    bridge, reach = jax.lax.map(language, jnp.arange(count))
    both = bridge + reach
    return jnp.where(both > 0, 2 * bridge * reach / jnp.where(both > 0, both, 1), 0), bridge, reach
