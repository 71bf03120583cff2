"""In how many languages a latent is among the strongest, beside what chance would give; and controls of like activity.

A set of one language is a row of latent indices, -1 where there are fewer. The number of sets that hold a latent is
its breadth; a latent is shared where two sets or more hold it.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from xlingjax.errors import InputError


def breadth_shares(breadth: Shaped[np.ndarray, "*batch G"]) -> Float[np.ndarray, "*batch"]:
    """Of the latents in any set, the share that two sets or more hold; NaN where all sets are empty.

    Args:
        breadth: latents in exactly 1, 2, ..., G sets, as of `sharing.breadth`.

    >>> float(breadth_shares(np.array([2.0, 1.0, 1.0])))
    0.5
    """
    total = breadth.sum(-1)
    return np.where(total > 0, breadth[..., 1:].sum(-1) / np.where(total > 0, total, 1), np.nan)


def alive_chance(
    sizes: Int[np.ndarray, "G"], alive: Bool[np.ndarray, "G M"],
) -> Float[np.ndarray, "G"]:
    """Expected `sharing.breadth` of sets drawn evenly, in each language, from the latents alive there.

    The breadth of one latent is Poisson-binomial: language g holds it with probability size_g / alive_g where it is
    alive. Expectations add up over latents whatever their dependence, so this is exact.

    >>> alive_chance(np.array([2, 2]), np.array([[True] * 4, [True, True, True, True]])).tolist()
    [2.0, 1.0]
    """
    number = alive.sum(1)
    rate = np.where(number > 0, sizes / np.maximum(number, 1), 0)
    chance = np.minimum(rate, 1)[:, None] * alive
    count = np.zeros((len(sizes) + 1, alive.shape[1]))
    count[0] = 1
    for row in chance:
        count[1:] = count[1:] * (1 - row) + count[:-1] * row
        count[0] *= 1 - row
    return count[1:].sum(1)


def draw_sets(
    weight: Float[np.ndarray, "G M"], sizes: Int[np.ndarray, "G"], draws: int, seed: int,
) -> Int[np.ndarray, "draws G k"]:
    """Independent random sets of each language, one after the other without return, in proportion to weight.

    Equal weights draw evenly among the latents that have one; a latent of weight 0 is never drawn. The largest of
    log weight + Gumbel noise are such a draw (Yellott 1977).

    >>> draw_sets(np.array([[1.0, 1.0, 0.0]]), np.array([2]), 1, seed=0).shape
    (1, 1, 2)
    """
    rng = np.random.default_rng([seed, 61])
    widest = int(sizes.max(initial=0))
    out = np.full((draws, len(sizes), widest), -1)
    with np.errstate(divide="ignore"):
        log = np.log(weight)
    for one in out:
        for g, size in enumerate(sizes):
            key = log[g] + rng.gumbel(size=log.shape[1])
            best = np.argsort(-key, kind="stable")[:size]
            best = best[np.isfinite(key[best])]
            one[g, :len(best)] = best
    return out


def activity_matched(
    activity: Float[np.ndarray, "M 2"], chosen: Int[np.ndarray, "k"], barred: Int[np.ndarray, "b"], draws: int,
    seed: int, nearest: int = 10,
) -> Int[np.ndarray, "draws k"]:
    """Random latents as active as the chosen ones: for each, one of the nearest that are free, no latent twice.

    Nearness is the distance between (log frequency, log mean activation), each over its standard deviation among
    the latents alive.

    Args:
        activity: frequency and mean activation, of which 0 means dead. barred: not to be drawn, with the chosen.
        nearest: among how many one is drawn.

    Raises:
        InputError: fewer latents alive and free than chosen.

    >>> activity = np.array([[0.5, 1.0], [0.5, 1.1], [0.01, 0.1], [0.4, 0.9], [0.0, 0.0]])
    >>> activity_matched(activity, np.array([0]), np.array([3]), draws=2, seed=0, nearest=1).tolist()
    [[1], [1]]
    """
    alive = np.all(activity > 0, axis=1)
    free = alive.copy()
    free[barred], free[chosen] = False, False
    pool = np.flatnonzero(free)
    if len(pool) < len(chosen):
        raise InputError(f"{len(pool)} latents are alive and free to stand beside {len(chosen)} chosen ones; choose "
                         "fewer, or give a larger dictionary")
    if not len(chosen):
        return np.full((draws, 0), -1)
    log = np.log(np.where(activity > 0, activity, activity[alive].min(initial=1.0)))
    spread = log[alive].std(0)
    log = log / np.where(spread > 0, spread, 1)
    distance = np.linalg.norm(log[chosen][:, None] - log[pool], axis=-1)  # [k, pool]
    rank = np.argsort(distance, axis=1, kind="stable")
    rng = np.random.default_rng([seed, 67])
    out = np.empty((draws, len(chosen)), int)
    for row in out:
        taken = np.zeros(len(pool), bool)
        for i in rng.permutation(len(chosen)):
            left = rank[i][~taken[rank[i]]][:nearest]
            pick = rng.choice(left)
            taken[pick], row[i] = True, pool[pick]
    return out
