"""How many languages have a latent among the strongest of a value, beside what chance would give.

Three chances: sets drawn evenly from the latents alive in each language; drawn in proportion to activity, because
latents that are always active are strong for anything; and the value's own set in one language beside sets of other
features in the others, which keeps everything but the question. For the last one it is counted how much of a language's
set the others' sets hold, since other languages asked one and the same other question do share.
"""

import json
import math
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from xlingjax.analyses.features.cells import Cells
from xlingjax.analyses.features.reading import Activity
from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.kernels.experts import expert_sets
from xlingjax.kernels.sharing import breadth
from xlingjax.kernels.universality import alive_chance, breadth_shares, draw_sets

NULLS = ("even", "activity")


def strongest(effects: Float[np.ndarray, "V G M"], k: int, seed: int) -> Int[np.ndarray, "V G k"]:
    """The latents with the largest positive effects, best first; -1 where there are fewer."""
    return np.asarray(expert_sets(np.where(effects > 0, effects, np.nan), k, seed))


def universality(
    effects: Float[np.ndarray, "V G M"], activity: Activity, cells: Cells, settings: FeatureSettings,
) -> xr.Dataset:
    """Sharing of each value's strongest latents over its languages.

    Args:
        effects: NaN in cells that are not used.

    Returns:
        Dimensions `value`, `k`, `languages` (1 to G), `language`, `language_b`, `draw`. `breadth`, latents in the
        tops of exactly so many languages, and `breadth_even` (exact), `breadth_activity` (mean over draws);
        `share` of all top latents that two languages or more have, with `share_NULL`, `share_NULL_high` (95 % of
        draws) and `p_NULL`; `met`, the share of a language's top that any other language has in its own, mean over
        languages, and `met_names`, `met_names_high`, `p_names`, the same where the others' tops are of random values
        of other features. By language, at the settings' k: `overlap`, share of `language`'s top that is in the top
        of `language_b`, and `overlap_names`, in the tops of other features there; `alive`. `smallest_p_names` of each
        value: few other values make few permutations. What is of names is NaN where there is one feature only.
    """
    count, languages = len(cells.values), len(cells.languages)
    ks = [k for k in dict.fromkeys(sorted((*settings.ks, settings.k))) if k <= effects.shape[-1]] or [effects.shape[-1]]
    ranked = strongest(effects, max(ks), settings.seed)
    shape = (count, len(ks))
    out: dict[str, np.ndarray] = {"breadth": np.full((*shape, languages), np.nan), "share": np.full(shape, np.nan)}
    for null in NULLS:
        out |= {f"breadth_{null}": np.full((*shape, languages), np.nan),
                **{f"{name}_{null}{end}": np.full(shape, np.nan)
                   for name, end in (("share", ""), ("share", "_high"), ("p", ""))}}
    out |= {name: np.full(shape, np.nan) for name in ("met", "met_names", "met_names_high", "p_names")}
    smallest = np.full(count, np.nan)
    alive = activity.frequency > 0
    for v in range(count):
        have = np.flatnonzero(cells.used[v])
        for i, k in enumerate(ks):
            sets = ranked[v, have, :k]
            sizes = (sets >= 0).sum(1)
            found = breadth(sets)
            out["breadth"][v, i, :len(have)] = found
            share = out["share"][v, i] = breadth_shares(found)
            seed = settings.seed + 1000 * v + i
            draws: dict[str, Any] = {
                "even": draw_sets(alive[have].astype(float), sizes, settings.null_draws, seed),
                "activity": draw_sets(activity.mean[have], sizes, settings.null_draws, seed + 500)}
            for null, drawn in draws.items():
                each = np.array([breadth(one) for one in drawn])
                shares = breadth_shares(each)
                out[f"breadth_{null}"][v, i, :len(have)] = (
                    alive_chance(sizes, alive[have]) if null == "even" else each.mean(0))
                out[f"share_{null}"][v, i] = np.nanmean(shares)
                out[f"share_{null}_high"][v, i] = np.nanquantile(shares, 0.95)
                out[f"p_{null}"][v, i] = (1 + (shares >= share - 1e-12).sum()) / (1 + len(shares))
            met = out["met"][v, i] = _met(sets, [sets] * len(have))
            renamed, smallest[v] = _renamed(ranked[..., :k], v, have, cells, settings.null_draws, seed)
            if len(renamed):
                mets = np.array([_met(sets, one) for one in renamed])
                out["met_names"][v, i], out["met_names_high"][v, i] = mets.mean(), np.quantile(mets, 0.95)
                out["p_names"][v, i] = max(smallest[v], (1 + (mets >= met - 1e-12).sum()) / (1 + len(mets)))
    overlap, names = _overlaps(ranked[..., :settings.k], cells)
    axes = ("value", "language", "language_b")
    return xr.Dataset(
        {name: (("value", "k", "languages")[:values.ndim], values) for name, values in out.items()} | {
            "overlap": (axes, overlap), "overlap_names": (axes, names), "alive": ("language", alive.sum(1)),
            "used": (("value", "language"), cells.used),
            "smallest_p_names": ("value", smallest)},
        coords={"value": list(cells.values), "k": ks, "languages": np.arange(1, languages + 1),
                "language": list(cells.languages), "language_b": list(cells.languages)},
        attrs={"k": settings.k, "latents": effects.shape[-1], "draws": settings.null_draws,
               "ranking": settings.ranking})


def _met(sets: Int[np.ndarray, "g k"], others: Any) -> float:
    """Share of each language's set that the other languages' sets hold, mean over languages.

    Args:
        others: for each language the sets of all, of which its own plays no part.
    """
    shares = [np.isin(own[own >= 0], np.delete(rest, g, axis=0)).mean()
              for g, (own, rest) in enumerate(zip(sets, others)) if (own >= 0).any()]
    return float(np.mean(shares)) if shares else np.nan


def _renamed(
    ranked: Int[np.ndarray, "V G k"], value: int, have: np.ndarray, cells: Cells, draws: int, seed: int,
) -> tuple[Int[np.ndarray, "draws g g k"], float]:
    """For each language the sets of all, of random values of other features; and the smallest p so few values allow."""
    choices = [[v for v in np.flatnonzero(cells.used[:, g]) if cells.features[v] != cells.features[value]]
               for g in have]
    if not all(choices):
        return np.empty((0, len(have), len(have), ranked.shape[-1]), int), np.nan
    rng = np.random.default_rng([seed, 71])
    picked = np.stack([rng.choice(values, (draws, len(have))) for values in choices], -1)
    different = math.prod(map(len, choices))
    return ranked[picked, have], max(1 / (1 + draws), 1 / (1 + different))


def _overlaps(tops: Int[np.ndarray, "V G k"], cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """[V, G, G]: share of a language's top that is in another's, for the same value and for other features."""
    count, languages, _ = tops.shape
    same, other = np.full((2, count, languages, languages), np.nan)
    inside = lambda a, b: np.isin(a[a >= 0], b[b >= 0]).mean() if (a >= 0).any() else np.nan
    for v in range(count):
        for a in np.flatnonzero(cells.used[v]):
            for b in range(languages):
                if cells.used[v, b]:
                    same[v, a, b] = inside(tops[v, a], tops[v, b])
                rest = [inside(tops[v, a], tops[u, b]) for u in range(count)
                        if cells.used[u, b] and cells.features[u] != cells.features[v]]
                if rest:
                    other[v, a, b] = np.mean(rest)
    return same, other


def latent_table(
    evidence: Float[np.ndarray, "V G M"], tops: Int[np.ndarray, "V G k"], activity: Activity, cells: Cells,
    settings: FeatureSettings,
) -> xr.Dataset:
    """The latents of each value, those in the tops of most languages first.

    Returns:
        `top[value, language, rank]` with `top_effect`. By `value` and `entry`: `latent` (-1 = none), `languages`,
        in how many tops it is, `flips`, whether it is among the strongest for the value in one language and among
        the strongest against it in another, `artefact`, whether it is in the tops of nearly every cell (False
        where there are fewer than two features: then nothing tells an artefact from a feature); with `language`:
        `in_top`, `effect`, `frequency`. Attribute `artefacts`, their numbers.
    """
    width = evidence.shape[-1]
    against = strongest(-evidence, tops.shape[-1], settings.seed + 1)
    held = np.bincount(tops[tops >= 0], minlength=width) / cells.used.sum()
    several = len(set(cells.features)) > 1
    artefact = np.greater_equal(held, settings.nearly) & np.full(width, several)
    shape = (len(cells.values), settings.shown)
    entry = np.full(shape, -1)
    languages = np.zeros(shape, int)
    flips, marked = np.zeros((2, *shape), bool)
    per_language = (*shape, len(cells.languages))
    in_top, effect, frequency = np.zeros(per_language, bool), *np.full((2, *per_language), np.nan)
    for v in range(len(cells.values)):
        member = np.array([np.isin(np.arange(width), row) for row in tops[v]])
        enemy = np.array([np.isin(np.arange(width), row) for row in against[v]])
        count = member.sum(0)
        mean = np.nan_to_num(evidence[v, cells.used[v]]).mean(0)
        best = np.lexsort((-mean, -count))[:settings.shown]
        best = best[count[best] > 0]
        n = len(best)
        entry[v, :n], languages[v, :n], marked[v, :n] = best, count[best], artefact[best]
        flips[v, :n] = np.logical_and(member.any(0), enemy.any(0))[best]
        in_top[v, :n], effect[v, :n] = member[:, best].T, evidence[v][:, best].T
        frequency[v, :n] = activity.frequency[:, best].T
    top_effect = np.where(tops >= 0, np.take_along_axis(evidence, np.maximum(tops, 0), 2), np.nan)
    entries, by_language = ("value", "entry"), ("value", "entry", "language")
    return xr.Dataset(
        {"top": (("value", "language", "rank"), tops), "top_effect": (("value", "language", "rank"), top_effect),
         "latent": (entries, entry), "languages": (entries, languages), "flips": (entries, flips),
         "artefact": (entries, marked), "in_top": (by_language, in_top), "effect": (by_language, effect, {
             "units": "nats of the probe's logit", "what": "mean on words with the value minus mean on words without"}),
         "frequency": (by_language, frequency)},
        coords={"value": list(cells.values), "language": list(cells.languages)},
        attrs={"k": settings.k, "artefacts": json.dumps(np.flatnonzero(artefact).tolist()), "nearly": settings.nearly,
               "flips": "among the k strongest in one language and the k strongest against it in another"})
