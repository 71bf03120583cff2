"""Where a chosen item stands among others of its own length: a rank that length cannot explain."""

import numpy as np
from jaxtyping import Float, Int


def matched_ranks(
    scores: Float[np.ndarray, "Q n"], lengths: Int[np.ndarray, "n"], queries: Int[np.ndarray, "Q"],
    items: Int[np.ndarray, "n"], count: int = 20, seed: int = 0, own: Float[np.ndarray, "Q n"] | None = None,
) -> Float[np.ndarray, "Q n"]:
    """AUC of every item among its distractors, for every query: the share of them that score lower, ties by halves.

    Distractors of an item are the `count` others nearest to it in length, equally near ones in random order, of no
    document that the item or the query is of. 0.5 is chance. NaN where no distractor is left or a score is NaN.

    Args:
        scores: of each query and item. lengths: of the items. queries, items: number of the document of each.
        own: scores that an item itself comes with, where they differ from those it has as a distractor.

    >>> scores = np.array([[3.0, 1.0, 2.0, 9.0]])
    >>> matched_ranks(scores, np.array([5, 5, 5, 50]), np.array([0]), np.array([0, 1, 2, 3]), count=2)
    array([[1. , 0. , 0.5, 1. ]])
    """
    rng = np.random.default_rng([seed, 31])
    own = scores if own is None else own
    out = np.full(scores.shape, np.nan)
    reserve = np.bincount(items).max(initial=0)  # as many may be of the query's own document
    for item, length in enumerate(lengths):
        order = np.lexsort((rng.random(len(items)), np.abs(lengths - length)))
        others = order[items[order] != items[item]][:count + reserve]
        allowed = items[others] != queries[:, None]
        allowed &= allowed.cumsum(1) <= count
        theirs, its = scores[:, others], own[:, [item]]
        below = ((theirs < its) + 0.5 * (theirs == its)) * allowed
        known = allowed.any(1) & ~np.isnan(its[:, 0]) & ~(np.isnan(theirs) & allowed).any(1)
        out[known, item] = below[known].sum(1) / allowed[known].sum(1)
    return out
