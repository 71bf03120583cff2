"""Neurons that serve one language: by the entropy of their activation, and by both ends of average precision."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError
from xlingjax.kernels.experts import expert_sets

AnyArray = Array | np.ndarray


def activation_entropy(active: Float[AnyArray, "G N"]) -> Float[Array, "N"]:
    """LAPE (Tang et al. 2024): -sum_g p'_g log p'_g with p' = p / sum p, in nats; low = few languages.

    Args:
        active: P(activation > 0) of each neuron over the tokens of each language.

    Returns:
        NaN for a neuron that is never active.

    >>> activation_entropy(np.array([[0.5, 0.5], [0.5, 0.0]], np.float32)).round(3).tolist()
    [0.6930000185966492, 0.0]
    """
    active = jnp.asarray(active)
    total = active.sum(0)
    share = active / jnp.where(total > 0, total, 1)
    entropy = -jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1)), 0).sum(0)
    return jnp.where(total > 0, jnp.abs(entropy), jnp.nan)  # never -0


def language_neurons(
    active: Float[AnyArray, "G N"], part: float = 0.01, bar: float = 0.95,
) -> Bool[np.ndarray, "G N"]:
    """Which neurons LAPE calls specific, and to which languages.

    Neurons whose activation never exceeds the `bar` quantile of all p are dropped; of the rest the `part` of all
    neurons with the lowest entropy is kept, each for every language in which it exceeds that quantile.

    Args:
        active: as of `activation_entropy`. part, bar: the paper's 1 % and 95th percentile.

    Raises:
        InputError: a part or bar outside (0, 1).

    >>> active = np.full((2, 400), 0.2, np.float32)
    >>> active[:, :4] = [[0.9, 0.9, 0.9, 0.8], [0.0, 0.9, 0.1, 0.0]]
    >>> language_neurons(active, part=0.005, bar=0.9)[:, :4].tolist()
    [[True, False, False, True], [False, False, False, False]]
    """
    for name, value in (("part", part), ("bar", bar)):
        if not 0 < value < 1:
            raise InputError(f"{name} is {value}; give a number between 0 and 1")
    active = np.asarray(active)
    threshold = np.quantile(active, bar)
    entropy = np.asarray(activation_entropy(active))
    entropy = np.where((active > threshold).any(0) & ~np.isnan(entropy), entropy, np.inf)
    kept = np.lexsort((np.arange(entropy.size), entropy))[:round(part * entropy.size)]
    chosen = np.zeros(entropy.size, bool)
    chosen[kept[np.isfinite(entropy[kept])]] = True
    return (active > threshold) & chosen


def both_ends(
    ap: Float[AnyArray, "G N"], top: int, bottom: int, seed: int = 0,
) -> tuple[Int[np.ndarray, "G top"], Int[np.ndarray, "G bottom"]]:
    """The best and the worst detectors of each language (Kojima et al. 2024): fire in it, or in all others.

    Args:
        ap: of each neuron as a detector of "this sentence is in language g", of mean-pooled responses.
        top, bottom: neurons from either end. seed: of ties.

    >>> high, low = both_ends(np.array([[0.9, 0.1, 0.5]], np.float32), top=1, bottom=1)
    >>> high.tolist(), low.tolist()
    ([[0]], [[1]])
    """
    ap = np.asarray(ap)
    return np.asarray(expert_sets(ap, top, seed)), np.asarray(expert_sets(-ap, bottom, seed + 1))
