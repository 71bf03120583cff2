"""Shares and rates as they are, from what an imperfect judge says and how it errs; and whether two shares differ."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped
from scipy.stats import binom

from xlingjax.precision import full_precision

AnyArray = Array | np.ndarray
STEPS = 2000  # of expectation-maximisation; each is a few sums


@jax.jit
@full_precision
def corrected_shares(
    counts: Shaped[AnyArray, "... V"], confusion: Float[AnyArray, "G V"],
) -> Float[Array, "... G"]:
    """The mixture of true classes under which the verdicts are likeliest.

    Verdicts come from the mixture sum_g share_g confusion_gv, so the shares are those of a mixture of known
    distributions; expectation-maximisation finds the maximum and never leaves the simplex, as inverting the
    confusion matrix does where a share is small (Saerens, Latinne & Decaestecker 2002 is the same recursion).

    Args:
        counts: of each verdict, "undetermined" among them.
        confusion: P(verdict | true class), each row with sum 1.

    Returns:
        Shares with sum 1; NaN where nothing was counted.

    >>> confusion = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]])
    >>> truth = np.array([0.25, 0.75])
    >>> np.asarray(corrected_shares(1000 * truth @ confusion, confusion)).astype(float).round(3).tolist()
    [0.25, 0.75]
    """
    counts = jnp.asarray(counts, jnp.float32)
    confusion = jnp.asarray(confusion, jnp.float32)
    total = counts.sum(-1, keepdims=True)
    observed = counts / jnp.where(total > 0, total, 1)
    start = jnp.full((*counts.shape[:-1], len(confusion)), 1 / len(confusion))

    def step(shares: Array, _: None) -> tuple[Array, None]:
        said = shares @ confusion
        ratio = jnp.where(said > 0, observed / jnp.where(said > 0, said, 1), 0)
        shares = shares * (ratio @ confusion.T)
        return shares / jnp.maximum(shares.sum(-1, keepdims=True), 1e-30), None

    shares, _ = jax.lax.scan(step, start, None, STEPS)
    return jnp.where(total > 0, shares, jnp.nan)


def corrected_rate(
    rate: Float[AnyArray, "..."] | float, sensitivity: Float[AnyArray, "..."] | float,
    false_positives: Float[AnyArray, "..."] | float,
) -> Float[Array, "..."]:
    """The true rate behind a judge's (Rogan & Gladen 1978), cut to [0, 1]; NaN where the judge tells nothing.

    Args:
        rate: share of positive verdicts.
        sensitivity: P(positive | present). false_positives: P(positive | absent).

    >>> round(float(corrected_rate(0.34, 0.8, 0.1)), 4)
    0.3429
    """
    reach = jnp.asarray(sensitivity) - false_positives
    found = (jnp.asarray(rate) - false_positives) / jnp.where(reach > 0, reach, 1)
    return jnp.where(reach > 0, jnp.clip(found, 0, 1), jnp.nan)


def paired_p(
    one: Bool[np.ndarray, "R *batch"], other: Bool[np.ndarray, "R *batch"],
) -> Float[np.ndarray, "*batch"]:
    """Two-sided p-value of two shares over the same rows: McNemar's test (1947), exact, over rows that differ.

    Args:
        one, other: what holds of each row under two conditions.

    >>> float(paired_p(np.array([True] * 6 + [False]), np.array([False] * 7)))
    0.03125
    """
    up, down = (one & ~other).sum(0), (~one & other).sum(0)
    return np.asarray(np.minimum(1, 2 * binom.cdf(np.minimum(up, down), up + down, 0.5)))
