"""What is taken away before one language is tested: latents shared by the others, and everything that stands beside.

    no-op                through the same edit, nothing changed
    shared               latents in the tops of two other languages or more; this language chose nothing
    shared, own included the same with this language among the choosers, as Brinkmann et al. 2025 do
    specific             as many of this language's strongest that are in no other language's top
    matched i            as many random ones, each as active in this language as one of the shared
    random i             as many random ones
    one shared           the first of the shared: the rank that LEACE has
    leace                the label's direction, fitted to this language's training words (Belrose et al. 2023)
    leace elsewhere      the direction of the label in each other language, all at once

Latents are chosen on other documents than those that train and test probes.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.kernels.erasure import Eraser, fit_eraser
from xlingjax.kernels.universality import activity_matched
from xlingjax.models import Splice

NO_OP, SHARED, OWN_INCLUDED, SPECIFIC, ONE_SHARED = "no-op", "shared", "shared, own included", "specific", "one shared"
MATCHED, RANDOM, LEACE, ELSEWHERE = "matched", "random", "leace", "leace elsewhere"
KINDS = (NO_OP, SHARED, OWN_INCLUDED, SPECIFIC, ONE_SHARED, MATCHED, RANDOM, LEACE, ELSEWHERE)
ROLES = {"no_op": NO_OP, "shared": SHARED, "matched": MATCHED, "specific": SPECIFIC, "leace": LEACE}  # shown everywhere
SHRINKAGE = 0.1  # of LEACE's covariance: words are a few hundred, units as many or more; erasure stays exact


class Sets(NamedTuple):
    """Latents of each condition that takes latents away.

    Attributes:
        names, kinds: E of each; latents: E arrays.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    latents: tuple[np.ndarray, ...]

    def keep(self, width: int) -> Bool[np.ndarray, "E M"]:
        """False where a condition sets a latent to zero."""
        out = np.ones((len(self.latents), width), bool)
        for row, taken in zip(out, self.latents):
            row[taken] = False
        return out


def shared_latents(
    tops: Int[np.ndarray, "g k"], evidence: Float[np.ndarray, "g M"], least: int, most: int,
) -> Int[np.ndarray, "n"]:
    """Latents in the tops of `least` languages or more, in most languages first, then by mean effect.

    >>> shared_latents(np.array([[4, 2], [2, 0], [2, 4]]), np.ones((3, 5)), least=2, most=9).tolist()
    [2, 4]
    """
    count = np.bincount(tops[tops >= 0], minlength=evidence.shape[1])
    order = np.lexsort((-evidence.mean(0), -count))
    return order[count[order] >= least][:most]


def choose_sets(
    evidence: Float[np.ndarray, "G M"], tops: Int[np.ndarray, "G k"], used: Bool[np.ndarray, "G"], tested: int,
    activity: Float[np.ndarray, "M 2"], settings: FeatureSettings, seed: int,
) -> Sets | None:
    """The conditions for a value in a language; None where no latent is shared by enough other languages.

    Args:
        evidence, tops: of the value in every language. used: languages that have it. tested: the language.
        activity: frequency and mean activation in the tested language.

    Raises:
        InputError: the dictionary has too few latents for the controls.
    """
    others = np.flatnonzero(used & (np.arange(len(used)) != tested))
    shared = shared_latents(tops[others], evidence[others], settings.sharing, settings.ablated)
    size = len(shared)
    if not size:
        return None
    every = np.flatnonzero(used)
    included = shared_latents(tops[every], evidence[every], settings.sharing, size)
    own = np.argsort(-evidence[tested], kind="stable")
    own = own[(evidence[tested][own] > 0) & ~np.isin(own, tops[others]) & ~np.isin(own, shared)][:size]
    barred = np.unique(np.concatenate([tops[every].reshape(-1), own]))
    barred = barred[barred >= 0]
    matched = activity_matched(activity, shared, barred, settings.matched, seed)
    free = np.setdiff1d(np.arange(evidence.shape[1]), np.concatenate([barred, shared]))
    rng = np.random.default_rng([seed, 73])
    random = [np.sort(rng.choice(free, size, replace=False)) for _ in range(settings.random)]
    named = [(NO_OP, NO_OP, np.empty(0, int)), (SHARED, SHARED, shared), (OWN_INCLUDED, OWN_INCLUDED, included),
             (SPECIFIC, SPECIFIC, own), (ONE_SHARED, ONE_SHARED, shared[:1]),
             *((f"{MATCHED} {i + 1}", MATCHED, row) for i, row in enumerate(matched)),
             *((f"{RANDOM} {i + 1}", RANDOM, row) for i, row in enumerate(random))]
    names, kinds, latents = zip(*named)
    return Sets(names, kinds, latents)


def fit_erasers(
    states: dict[int, tuple[Float[np.ndarray, "n D"], Bool[np.ndarray, "n"]]], tested: int,
) -> tuple[Eraser, Eraser]:
    """LEACE of a value, fitted to the tested language, and to the others.

    Args:
        states: language -> its training words at the dictionary's place, and which have the value.
    """

    def fit(languages: list[int]) -> Eraser:
        parts = [states[g][0].astype(float) for g in languages]
        has = [states[g][1] for g in languages]
        # Both sides of every language weigh alike; between languages nothing is to be erased.
        weight = np.concatenate([np.where(one, 0.5 / one.sum(), 0.5 / (~one).sum()) for one in has])
        middle = [(x[one].mean(0) + x[~one].mean(0)) / 2 for x, one in zip(parts, has)]
        x = np.concatenate([x - m for x, m in zip(parts, middle)])
        labels = np.zeros((len(x), len(languages)))
        labels[np.arange(len(x)), np.repeat(np.arange(len(has)), list(map(len, has)))] = np.concatenate(has) - 0.5
        return fit_eraser(x, labels, weight, SHRINKAGE)._replace(mean=np.mean(middle, axis=0))

    return fit([tested]), fit([g for g in states if g != tested])


@dataclasses.dataclass(frozen=True)
class Erase:
    """A `Splice` function: `h - ((h - mean) @ read) @ write`, an eraser of its own for each row."""

    def __call__(self, h: Float[Array, "B T D"], params: None, rows: Eraser) -> Float[Array, "B T D"]:
        strength = jnp.einsum("btd,bdr->btr", h - rows.mean, rows.read)
        return h - jnp.einsum("btr,brd->btd", strength, rows.write)


def erase_at(layer: int, erasers: tuple[Eraser, ...]) -> Splice:
    """An edit with one condition for each eraser; zeros fill directions up to a power of two, so few programs serve."""
    room = 1 << max(0, max(one.rank for one in erasers) - 1).bit_length()
    fill = lambda x, axis: np.pad(x, [(0, room - x.shape[axis]) if i == axis else (0, 0) for i in (0, 1)])
    parts = ([fill(one.read, 1) for one in erasers], [fill(one.write, 0) for one in erasers],
             [one.mean[None] for one in erasers])
    rows: Any = Eraser(*(np.stack(part).astype(np.float32) for part in parts))
    return Splice(Erase(), None, layer, rows)
