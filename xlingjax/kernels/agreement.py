"""Several people judge the same items: what most of them say, how often all agree, and agreement beyond chance.

Everything is computed from counts: how many judges put each item into each category, whoever they were. `weight` says
how often an item occurs, so a bootstrap over items is one call with weights `[draws, n]`.
"""

import numpy as np
from jaxtyping import Float, Int

UNDECIDED = -1
Counts = Int[np.ndarray, "*lead n C"]


def category_counts(ratings: Int[np.ndarray, "n J"], categories: int) -> Int[np.ndarray, "n C"]:
    """How many of J judges put each item into each category; -1 = not judged.

    >>> category_counts(np.array([[0, 0, 1], [1, -1, -1]]), 2).tolist()
    [[2, 1], [0, 1]]
    """
    return (ratings[:, :, None] == np.arange(categories)).sum(1)


def majority(counts: Int[np.ndarray, "*lead C"]) -> Int[np.ndarray, "*lead"]:
    """The category that more than half of an item's judgements name, of two judgements or more; -1 = there is none.

    >>> majority(np.array([[2, 1, 0], [1, 1, 1], [1, 0, 0]])).tolist()
    [0, -1, -1]
    """
    total = counts.sum(-1)
    best = counts.argmax(-1)
    decided = (2 * counts.max(-1) > total) & (total >= 2)
    return np.where(decided, best, UNDECIDED)


def unanimous(counts: Int[np.ndarray, "*lead C"]) -> Int[np.ndarray, "*lead"]:
    """The category that all of an item's judgements name, of two or more; -1 = they differ."""
    total = counts.sum(-1)
    return np.where((counts.max(-1) == total) & (total >= 2), counts.argmax(-1), UNDECIDED)


def fleiss_kappa(
    counts: Int[np.ndarray, "n C"], weight: Float[np.ndarray, "*lead n"] | Int[np.ndarray, "*lead n"] | None = None,
) -> Float[np.ndarray, "*lead"]:
    """Agreement of pairs of judges beyond that of judges who draw from the pooled categories (Fleiss 1971).

    kappa = (P - Pe) / (1 - Pe): P the mean over items of the share of pairs of judgements that agree, Pe the sum of
    squared shares of the categories. Items with fewer than two judgements are left out; where items have unequal
    numbers, each counts once in P and the shares are means of the items' shares, which with equal numbers is Fleiss.

    Returns:
        NaN where no item is left or all judgements are one category (there is nothing to agree on beyond chance).

    >>> round(float(fleiss_kappa(np.array([[3, 0], [0, 3], [2, 1]]))), 4)
    0.55
    """
    total = counts.sum(-1)
    weight = np.ones(len(counts)) if weight is None else np.asarray(weight, float)
    weight = weight * (total >= 2)
    size = np.maximum(total, 2)
    agree = (counts * (counts - 1)).sum(-1) / (size * (size - 1))
    share = counts / np.maximum(total, 1)[:, None]
    items = weight.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (weight * agree).sum(-1) / items
        chance = (((weight @ share) / items[..., None]) ** 2).sum(-1)
        return np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan)


def krippendorff_alpha(
    counts: Int[np.ndarray, "n C"], weight: Float[np.ndarray, "*lead n"] | Int[np.ndarray, "*lead n"] | None = None,
    ordered: bool = False,
) -> Float[np.ndarray, "*lead"]:
    """1 - observed / expected disagreement, from the coincidences of values within items (Krippendorff 2011).

    Items with one judgement pair with nothing and are left out; any number of judgements may be missing.

    Args:
        ordered: categories are ranks, and their distance is Krippendorff's ordinal one; else all differ alike.

    Returns:
        NaN where all values that can be paired are one category.

    >>> round(float(krippendorff_alpha(np.array([[3, 0], [0, 3], [2, 1]]))), 4)
    0.6
    """
    total = counts.sum(-1)
    weight = np.ones(len(counts)) if weight is None else np.asarray(weight, float)
    weight = weight * (total >= 2)
    pairs = counts[:, :, None] * counts[:, None, :] - np.eye(counts.shape[1]) * counts[:, :, None]
    pairs = pairs / np.maximum(total - 1, 1)[:, None, None]
    coincidences = np.einsum("...n,ncd->...cd", weight, pairs)
    values = coincidences.sum(-1)
    every = values.sum(-1)
    distance = _ordinal(values) if ordered else np.broadcast_to(1 - np.eye(counts.shape[1]), coincidences.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = (values[..., :, None] * values[..., None, :] * distance).sum((-2, -1)) / (every - 1)
        return np.where(expected > 0, 1 - (coincidences * distance).sum((-2, -1)) / expected, np.nan)


def _ordinal(values: Float[np.ndarray, "*lead C"]) -> Float[np.ndarray, "*lead C C"]:
    """Squared number of values between two ranks, the ranks themselves counted half."""
    middle = values.cumsum(-1) - values / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def item_bootstrap(items: int, draws: int, seed: int) -> Int[np.ndarray, "draws n"]:
    """How often each item occurs when as many items as there are are drawn with replacement.

    >>> item_bootstrap(3, 2, 0).sum(1).tolist()
    [3, 3]
    """
    return np.random.default_rng([seed, 83]).multinomial(items, np.full(items, 1 / items), draws)


def shuffled_ratings(ratings: Int[np.ndarray, "n J"], draws: int, seed: int) -> Int[np.ndarray, "draws n J"]:
    """Every judge's answers dealt out anew over the items that the judge answered: agreement by chance alone."""
    generator = np.random.default_rng([seed, 89])
    out = np.broadcast_to(ratings, (draws, *ratings.shape)).copy()
    for judge in range(ratings.shape[1]):
        rows = np.flatnonzero(ratings[:, judge] >= 0)
        out[:, rows, judge] = generator.permuted(np.broadcast_to(ratings[rows, judge], (draws, len(rows))), axis=1)
    return out
