"""AUROC under many weightings of the samples at once, as a bootstrap over documents needs it."""

import numpy as np
from jaxtyping import Bool, Float, Shaped


def weighted_auroc(
    scores: Float[np.ndarray, "S N"], labels: Bool[np.ndarray, "S"], weight: Shaped[np.ndarray, "S R"],
) -> Float[np.ndarray, "N R"]:
    """`kernels.auroc` of every score under R weightings; ties count one half.

    The weighted share of pairs (positive, negative) in which the positive scores higher: scikit-learn's
    `roc_auc_score` with `sample_weight`.

    Args:
        scores: N scores of the same samples. labels: which are positive.
        weight: how much each sample counts in each weighting, not negative; a draw of documents gives whole numbers.

    Returns:
        NaN where a weighting lacks positives or negatives, or a score is NaN.

    >>> scores, labels = np.array([[0.9], [0.8], [0.3], [0.2]]), np.array([True, False, True, False])
    >>> weighted_auroc(scores, labels, np.array([[1, 1], [1, 0], [1, 1], [1, 2]])).tolist()
    [[0.75, 1.0]]
    """
    counts = np.asarray(weight, float)
    positive, negative = counts[labels], counts[~labels]
    total = positive.sum(0) * negative.sum(0)
    out = np.full((scores.shape[1], counts.shape[1]), np.nan)
    cumulated = np.zeros((len(negative) + 1, counts.shape[1]))
    for row, score in enumerate(scores.T):
        if np.isnan(score).any():
            continue
        order = np.argsort(score[~labels], kind="stable")
        below = score[~labels][order]
        np.cumsum(negative[order], axis=0, out=cumulated[1:])
        first, last = (np.searchsorted(below, score[labels], side) for side in ("left", "right"))
        beaten = (positive * (cumulated[first] + cumulated[last])).sum(0) / 2
        out[row] = np.where(total > 0, beaten / np.where(total > 0, total, 1), np.nan)
    return out
