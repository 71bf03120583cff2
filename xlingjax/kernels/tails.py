"""How heavy the upper tail of a distribution is: its power law, whether it is one, and how much the top holds."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from xlingjax.errors import InputError


class Tail(NamedTuple):
    """A power law fitted to the largest values: density proportional to x ** -exponent above `start`.

    Attributes:
        size: values that it is fitted to.
        distance: Kolmogorov-Smirnov, between the values and the law. p: share of samples of that law, fitted in the
            same way, that lie as far from it; a small one says that the tail is no power law.
    """

    exponent: float
    start: float
    size: int
    distance: float
    p: float


def power_law(values: Float[np.ndarray, "n"], count: int, draws: int = 500, seed: int = 0) -> Tail:
    """The maximum-likelihood power law of the `count` largest of the positive values (Hill 1975).

    Their logarithms above the next smaller value are exponential under the law, whatever its exponent, so one
    simulation serves for p (Lilliefors' test for the exponential). NaN throughout where too few values are positive.

    Raises:
        InputError: count is below 3.

    >>> law = power_law(np.random.default_rng(0).pareto(1.5, 4000) + 1, 400)  # the true exponent is 2.5
    >>> round(law.exponent, 1), law.p > 0.05
    (2.4, True)
    """
    if count < 3:
        raise InputError(f"count is {count}; a tail needs 3 values or more")
    positive = np.sort(values[values > 0])
    if len(positive) <= count:
        return Tail(np.nan, np.nan, len(positive), np.nan, np.nan)
    start = positive[-count - 1]
    logs = np.log(positive[-count:] / start)
    if logs[-1] == 0:
        return Tail(np.nan, float(start), count, np.nan, np.nan)
    drawn = np.sort(np.random.default_rng([seed, 43]).exponential(size=(draws, count)), axis=1)
    distance = _distance(logs[None])[0]
    p = (1 + (_distance(drawn) >= distance).sum()) / (draws + 1)
    return Tail(float(1 + 1 / logs.mean()), float(start), count, float(distance), float(p))


def _distance(ordered: Float[np.ndarray, "R n"]) -> Float[np.ndarray, "R"]:
    """From sorted values to the exponential of their mean, at most."""
    n = ordered.shape[1]
    law = 1 - np.exp(-ordered / ordered.mean(1, keepdims=True))
    steps = np.arange(n + 1) / n
    return np.maximum(steps[1:] - law, law - steps[:-1]).max(1)


def top_share(values: Float[np.ndarray, "n"], share: float = 0.01) -> float:
    """The part of the positive sum that the largest `share` of all values holds; NaN where none is positive.

    Of normal values about 0 the largest hundredth holds 0.067.

    >>> top_share(np.array([8.0, 1, 1, -5, -5, 0, 0, 0, 0, 0]), 0.1)
    0.8
    """
    positive = np.sort(np.maximum(values, 0))[::-1]
    total = positive.sum()
    return float(positive[:max(1, round(share * len(values)))].sum() / total) if total > 0 else np.nan
