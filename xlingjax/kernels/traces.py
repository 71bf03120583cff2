"""Claims over a trace: simultaneous bands, Holm, emergence and persistence.

A curve over layers and checkpoints has hundreds of points, and some lie above a pointwise band by
luck. A claim is made against a band that the null leaves anywhere with probability `level`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from xlingjax.errors import InputError


class Band(NamedTuple):
    """An upper band, simultaneous over all cells, and each cell's adjusted p-value."""

    upper: np.ndarray
    p: np.ndarray
    smallest_p: float


def simultaneous_band(
    observed: Float[np.ndarray, "*cells"],
    draws: Float[np.ndarray, "R *cells"],
    level: float = 0.05,
    floor: float = 1.0,
) -> Band:
    """The max-T band of a null over all cells (Westfall & Young 1993), from R draws of all cells.

    The statistic of a cell is its distance from the mean of the other draws in their standard
    deviations, which count as no smaller than `floor` times the median cell's: a cell whose null is
    almost always zero would else rule the band. p is the share of draws, the observed one counted among them,
    whose largest statistic is at least the cell's. Cells with a NaN in the observation or any draw,
    and cells in which nothing varies, take no part and have p NaN.

    Args:
        observed: the measure in every cell (layers x checkpoints, or any).
        draws: the same under the null, whole draws: one draw permutes labels alike in all cells.
        level: chance that the null leaves the band anywhere.
        floor: less than 1 where the null's spread truly differs between cells, by up to 1 / floor.

    Returns:
        upper (infinite where R + 1 < 1 / level: no band can be had), p, and 1 / (R + 1).

    Raises:
        InputError: for fewer than three draws.

    >>> rng = np.random.default_rng(0)
    >>> band = simultaneous_band(np.array([0.0, 9.0]), rng.normal(size=(99, 2)))
    >>> band.p
    array([0.73, 0.01])
    """
    count = len(draws)
    if count < 3:
        raise InputError(f"{count} null draws cannot make a band; ask for at least 19 permutations")
    values, null = observed.reshape(-1), draws.reshape(count, -1)
    usable = ~(np.isnan(values) | np.isnan(null).any(0))
    usable &= (null != values).any(0)
    upper, p = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    if usable.any():
        null, centre = null[:, usable], null[:, usable].mean(0)
        spread = null.std(0, ddof=1)
        least = floor * np.median(spread) or floor * np.sqrt((spread**2).mean()) or np.finfo(float).tiny
        spread = np.maximum(spread, least) * np.sqrt(1 + 1 / count)  # the draws' mean varies too
        mean, sd = _others(null)
        largest = ((null - mean) / (np.maximum(sd, least) * np.sqrt(1 + 1 / (count - 1)))).max(-1)
        distance = (values[usable] - centre) / spread
        p[usable] = (1 + (largest[:, None] >= distance).sum(0)) / (count + 1)
        place = int(np.ceil((1 - level) * (count + 1)))
        critical = np.sort(largest)[place - 1] if place <= count else np.inf
        upper[usable] = centre + critical * spread
    shape = observed.shape
    return Band(upper.reshape(shape), p.reshape(shape), 1 / (count + 1))


def _others(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of all draws but each one."""
    count = len(draws)
    total = draws.sum(0)
    centred = draws - total / count
    mean = (total - draws) / (count - 1)
    squares = (centred**2).sum(0)
    left = squares - centred**2 * count / (count - 1)
    return mean, np.sqrt(np.maximum(left, 0) / (count - 2))


def holm(p: Float[np.ndarray, "*cells"]) -> Float[np.ndarray, "*cells"]:
    """P-values adjusted for their number by Holm's step-down method (1979); NaN does not count.

    >>> holm(np.array([0.01, 0.04, 0.03, np.nan]))
    array([0.03, 0.06, 0.06,  nan])
    """
    flat = np.asarray(p, float).reshape(-1)
    order = np.argsort(flat)[: np.count_nonzero(~np.isnan(flat))]
    steps = flat[order] * (len(order) - np.arange(len(order)))
    adjusted = np.full(flat.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.reshape(np.shape(p))


def emergence(exceeds: Bool[np.ndarray, "*batch K"]) -> Int[np.ndarray, "*batch"]:
    """The first checkpoint from which on a measure exceeds its band to the end; -1 = never.

    A measure that is not estimable does not exceed: compare with `>` and NaN is False.

    >>> emergence(np.array([[False, True, False, True, True], [True, True, True, True, False]]))
    array([ 3, -1])
    """
    stays = np.logical_and.accumulate(exceeds[..., ::-1], axis=-1)[..., ::-1]
    return np.where(stays.any(-1), stays.argmax(-1), -1)


def emergence_interval(
    exceeds: Bool[np.ndarray, "R K"], tokens: Shaped[np.ndarray, "K"], level: float = 0.05,
) -> tuple[float, float]:
    """Between which numbers of tokens a measure emerges, from R bootstrap draws; infinity = never.

    >>> exceeds = np.array([[False, True, True], [False, False, True]])
    >>> emergence_interval(exceeds, np.array([1, 2, 4]), level=0.5)
    (2.0, 4.0)
    """
    first = emergence(exceeds)
    when = np.sort(np.where(first >= 0, np.asarray(tokens, float)[first], np.inf))
    low = int(np.floor(level / 2 * (len(when) - 1)))
    high = int(np.ceil((1 - level / 2) * (len(when) - 1)))
    return float(when[low]), float(when[high])


def persistence(sets: Int[np.ndarray, "K *batch k"]) -> Float[np.ndarray, "K K *batch"]:
    """The share of the experts at each checkpoint (first axis) that are experts at another.

    >>> persistence(np.array([[1, 2], [2, 3], [2, 3]]))
    array([[1. , 0.5, 0.5],
           [0.5, 1. , 1. ],
           [0.5, 1. , 1. ]])
    """
    checkpoints = len(sets)
    found = (sets >= 0).sum(-1)
    out = np.empty((checkpoints, *found.shape))
    for i in range(checkpoints):
        for j in range(checkpoints):
            ranked = np.sort(np.concatenate([sets[i], sets[j]], axis=-1), axis=-1)
            shared = ((ranked[..., 1:] == ranked[..., :-1]) & (ranked[..., 1:] >= 0)).sum(-1)
            out[i, j] = np.where(found[i] > 0, shared / np.maximum(found[i], 1), np.nan)
    return out
