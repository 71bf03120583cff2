"""The shape of one language's sentences: how narrow their cone is, what spans it, how many dimensions they fill."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xlingjax.precision import full_precision

ROGUE = 3  # units whose share of the cosine is counted
COPY = 1e-6  # squared distance, of the mean squared norm, below which two sentences are one


class Shape(NamedTuple):
    """Each `[L, G]`.

    Attributes:
        cosine: mean cosine of two different sentences; 0 = isotropic.
        rogue: share of that cosine from the three units that carry most of it (Timkey & van Schijndel 2021); their
            measure makes a cosine one of a few units. 3 / D if all carry alike.
        dimension: intrinsic dimension by two nearest neighbours, the unbiased maximum-likelihood form of TwoNN (Facco
            et al. 2017; Denti et al. 2022); NaN where every sentence has a copy.
    """

    cosine: Float[Array, "L G"]
    rogue: Float[Array, "L G"]
    dimension: Float[Array, "L G"]


@jax.jit
@full_precision
def shape_of(states: Float[Array | np.ndarray, "L G n D"]) -> Shape:
    """Isotropy and intrinsic dimension of each language at every layer, in one compiled step.

    >>> x = np.random.default_rng(0).standard_normal((1, 1, 500, 5)).astype(np.float32)
    >>> found = shape_of(np.concatenate([x, x + np.array([50, 0, 0, 0, 0], np.float32)], 1))
    >>> found.cosine.round(1).tolist(), 4 < float(found.dimension[0, 0]) < 6
    ([[0.0, 1.0]], True)
    """
    return jax.lax.map(lambda layer: jax.lax.map(_language, layer), jnp.asarray(states, jnp.float32))


def _language(x: Float[Array, "n D"]) -> Shape:
    n = len(x)
    norm = jnp.linalg.norm(x, axis=1, keepdims=True)
    unit = x / jnp.where(norm > 0, norm, 1)
    share = (jnp.square(unit.sum(0)) - jnp.square(unit).sum(0)) / (n * (n - 1))  # of each unit in the mean cosine
    cosine = share.sum()
    apart = x - x.mean(0)
    squares = jnp.square(apart).sum(1)
    distance = squares[:, None] + squares - 2 * apart @ apart.T
    distance = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, jnp.maximum(distance, 0))
    first, second = -jax.lax.top_k(-distance, 2)[0].T
    known = first > COPY * squares.mean()
    ratio = jnp.where(known, 0.5 * jnp.log(second / jnp.where(known, first, 1)), 0)
    total, count = ratio.sum(), known.sum()
    dimension = jnp.where(total > 0, (count - 1) / jnp.where(total > 0, total, 1), jnp.nan)
    top = jax.lax.top_k(share, min(ROGUE, x.shape[1]))[0].sum()
    return Shape(cosine, top / jnp.where(cosine != 0, cosine, jnp.nan), dimension)
