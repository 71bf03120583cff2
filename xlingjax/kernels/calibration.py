"""Expert sets of calibrated size: the neurons whose AP exceeds the permutation null at a given FDR.

The p-value of a neuron is its place in the pooled null, the APs of all neurons under permuted
labels; the set is what Benjamini & Hochberg (1995) reject. It may be empty. APs are counted in fine
bins, so neither observed nor null values need be kept: a null value in a neuron's own bin counts as
exceeding it, which errs on the safe side by at most one bin width.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 2**14


def ap_counts(ap: Float[np.ndarray, "*batch N"]) -> Int[np.ndarray, "*batch bins"]:
    """How many neurons have an AP in each of BINS equal bins of [0, 1]; NaN does not count.

    >>> counts = ap_counts(np.array([0.0, 0.5, 0.5, np.nan, 1.0]))
    >>> np.flatnonzero(counts), counts.sum()
    (array([    0,  8192, 16383]), np.int64(4))
    """
    flat = ap.reshape(-1, ap.shape[-1])
    missing = np.isnan(flat)
    scaled = np.where(missing, 0, flat) * BINS  # exact, as BINS is a power of two
    place = np.minimum(scaled.astype(np.int64), BINS - 1)
    place = np.where(missing, BINS, place) + np.arange(len(flat))[:, None] * (BINS + 1)
    counts = np.bincount(place.reshape(-1), minlength=len(flat) * (BINS + 1))
    return counts.reshape(*ap.shape[:-1], BINS + 1)[..., :BINS]


def fdr_cut(
    observed: Int[np.ndarray, "*batch bins"],
    null: Int[np.ndarray, "*batch bins"],
    level: float = 0.05,
) -> Float[np.ndarray, "*batch"]:
    """The AP from which on neurons are called experts; infinity where none is.

    With R neurons observed and V null values at or above a bin, the pooled p-value is
    (1 + V) / (1 + all null values), and the lowest bin with p N <= level R is the cut. A single
    neuron can be called only if there are 1 / level permutations or more.

    Args:
        observed: `ap_counts` of the observed APs.
        null: `ap_counts` under permuted labels, summed over the permutations.
        level: false discovery rate.
    """
    called = np.cumsum(observed[..., ::-1], axis=-1)[..., ::-1]
    exceeding = np.cumsum(null[..., ::-1], axis=-1)[..., ::-1]
    p = (1 + exceeding) / (1 + exceeding[..., :1])
    passes = (observed > 0) & (p * called[..., :1] <= level * called)
    return np.asarray(np.where(passes.any(-1), passes.argmax(-1) / BINS, np.inf))


def above(
    ap: Float[np.ndarray, "*batch N"], cut: Float[np.ndarray, "*batch"],
) -> Bool[np.ndarray, "*batch N"]:
    """Which neurons lie at or above the cut of `fdr_cut`.

    >>> above(np.array([0.2, 0.5, np.nan]), np.array(0.5))
    array([False,  True, False])
    """
    return ap >= np.asarray(cut)[..., None]


def fdr_sets(
    ap: Float[np.ndarray, "*batch N"], null: Float[np.ndarray, "*batch P N"], level: float = 0.05,
) -> Bool[np.ndarray, "*batch N"]:
    """The calibrated expert sets from the observed APs and those under P label permutations.

    >>> rng = np.random.default_rng(0)
    >>> null = rng.uniform(0, 0.3, (20, 100))
    >>> ap = np.concatenate([[0.9, 0.8], rng.uniform(0, 0.3, 98)])
    >>> np.flatnonzero(fdr_sets(ap, null))
    array([0, 1])
    """
    return above(ap, fdr_cut(ap_counts(ap), ap_counts(null).sum(-2), level))

