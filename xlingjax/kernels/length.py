"""Taking sentence length out of a concept: negatives matched to the positives by length.

Max-pooling favours long sentences, and some concepts live in long sentences, so a neuron that only
knows length looks like an expert, in every language at once.
"""

import numpy as np
from jaxtyping import Int, Int8


def length_deciles(lengths: Int[np.ndarray, "S"]) -> Int[np.ndarray, "S"]:
    """The decile of every sentence's length, from 0; equal lengths share one.

    >>> length_deciles(np.arange(20))
    array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9])
    """
    edges = np.quantile(lengths, np.arange(1, 10) / 10) if len(lengths) else []
    return np.searchsorted(edges, lengths, side="right")


def match_length(
    labels: Int8[np.ndarray, "S C"], lengths: Int[np.ndarray, "S"], seed: int = 0,
) -> Int8[np.ndarray, "S C"]:
    """Labels in which positives and negatives have the same distribution over length deciles.

    For each concept a ratio of negatives to positives is fixed, the one that keeps the largest
    harmonic sample size n+ n- / (n+ + n-), and every decile is thinned at random to that ratio.
    Sentences thinned out become -1, and so do positives of a decile without negatives.

    Args:
        labels: of one language; 1, 0 or -1 (does not count).
        lengths: token counts.

    >>> labels = np.array([[1, 1, 0, 0, 0, 0]], np.int8).T
    >>> match_length(labels, np.array([9, 9, 9, 9, 2, 2])).T
    array([[ 1,  1,  0,  0, -1, -1]], dtype=int8)
    """
    rng = np.random.default_rng(seed)
    decile = length_deciles(lengths)
    priority = rng.permutation(len(lengths))
    matched = np.full_like(labels, -1)
    for concept in range(labels.shape[1]):
        column = labels[:, concept]
        positives = np.bincount(decile[column == 1], minlength=10)
        negatives = np.bincount(decile[column == 0], minlength=10)
        both = (positives > 0) & (negatives > 0)
        if not both.any():
            continue
        best, chosen = -1.0, (positives, negatives)
        for ratio in np.unique(negatives[both] / positives[both]):
            kept = np.minimum(positives, np.floor(negatives / ratio + 1e-9)).astype(int)
            beside = np.minimum(negatives, np.round(kept * ratio)).astype(int)
            size = kept.sum() * beside.sum() / max(kept.sum() + beside.sum(), 1)
            if size > best:
                best, chosen = size, (kept, beside)
        for value, quota in zip((1, 0), chosen):
            rows = np.flatnonzero(column == value)
            rows = rows[np.lexsort((priority[rows], decile[rows]))]
            place = np.arange(len(rows)) - np.searchsorted(decile[rows], decile[rows])
            matched[rows[place < quota[decile[rows]]], concept] = value
    return matched
