"""Canonical correlations of two languages' principal components: SVCCA and PWCCA."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xlingjax.precision import full_precision

MOST, SENTENCES_EACH = 100, 5  # principal components at most, and sentences that each needs


class Correlations(NamedTuple):
    """Each `[L, R, G, G]`, R pairings; NaN on the diagonal.

    Attributes:
        svcca: mean canonical correlation of the leading principal components (Raghu et al. 2017).
        pwcca: the same, weighted by how much of the row language's states each direction carries (Morcos et al. 2018).
    """

    svcca: Float[Array, "L R G G"]
    pwcca: Float[Array, "L R G G"]


def components(sentences: int, width: int) -> int:
    """Principal components that n sentences of D units can bear: 100 at most, a fifth of the sentences.

    >>> components(1000, 1024), components(60, 1024), components(1000, 32)
    (100, 12, 32)
    """
    return min(MOST, sentences // SENTENCES_EACH, width)


@functools.partial(jax.jit, static_argnames=("count",))
@full_precision
def canonical_correlations(
    states: Float[Array | np.ndarray, "L G n D"], pairings: Int[Array | np.ndarray, "R n"], count: int,
) -> Correlations:
    """SVCCA and PWCCA of all pairs of languages at every layer, in one compiled step.

    With many components and few sentences anything correlates: compare with the shuffled pairings.

    Args:
        states: row i is the same sentence in every language.
        pairings: as of `alignment`.
        count: principal components; see `components`.

    >>> x = np.random.default_rng(0).standard_normal((1, 1, 200, 8)).astype(np.float32)
    >>> turned = np.concatenate([x, x[..., ::-1] * 2 + 1], 1)
    >>> round(float(canonical_correlations(turned, np.arange(200)[None], 8).svcca[0, 0, 0, 1]), 3)
    1.0
    """
    pairings = jnp.asarray(pairings)
    return jax.lax.map(lambda layer: _layer(layer, pairings, count), jnp.asarray(states, jnp.float32))


def _layer(states: Float[Array, "G n D"], pairings: Int[Array, "R n"], count: int) -> Correlations:
    scores, loads = jax.lax.map(functools.partial(_principal, count=count), states)
    first, second = np.triu_indices(len(states), 1)

    def pair(index: tuple[Array, Array]) -> tuple[Array, Array]:
        a, b = index

        def under(pairing: Int[Array, "n"]) -> tuple[Array, Array]:
            left, correlation, right = jnp.linalg.svd(scores[a].T @ scores[b][pairing], full_matrices=False)
            correlation = jnp.minimum(correlation, 1)
            weights = [jnp.abs(turn @ load).sum(1) for turn, load in ((left.T, loads[a]), (right, loads[b]))]
            weighted = jnp.stack([(w * correlation).sum() / jnp.maximum(w.sum(), 1e-30) for w in weights])
            return jnp.stack([correlation.mean()] * 2), weighted

        return tuple(value.T for value in jax.lax.map(under, pairings))

    found = jax.lax.map(pair, (jnp.asarray(first), jnp.asarray(second)))
    blank = jnp.full((len(pairings), len(states), len(states)), jnp.nan)
    return Correlations(*(blank.at[:, first, second].set(of[:, 0].T).at[:, second, first].set(of[:, 1].T)
                          for of in found))


def _principal(x: Float[Array, "n D"], count: int) -> tuple[Float[Array, "n c"], Float[Array, "c D"]]:
    """The leading principal components, of unit length over sentences, and what each carries of every unit.

    Directions in which nothing varies are zero: they correlate with nothing.
    """
    apart = x - x.mean(0)
    small = apart @ apart.T if len(x) <= x.shape[1] else apart.T @ apart
    values, vectors = jnp.linalg.eigh(small)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    real = values > values[0] * 1e-6
    if len(x) > x.shape[1]:
        vectors = apart @ vectors / jnp.sqrt(jnp.where(real, values, 1))
    vectors = jnp.where(real, vectors, 0)
    return vectors, vectors.T @ apart
