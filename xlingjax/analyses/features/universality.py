"""How many languages have a latent among the strongest of a value, beside what chance would give.

Three chances: sets drawn evenly from the latents alive in each language; drawn in proportion to activity, because
latents that are always active are strong for anything; and the value's own set in one language beside sets of other
features in the others, which keeps everything but the question.
"""

import json
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

NULLS = ("even", "activity", "names")


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
        tops of exactly so many languages, and `breadth_even` (exact), `breadth_activity`, `breadth_names`
        (means over draws); `share` of all top latents that two languages or more have, with `share_NULL`,
        `share_NULL_high` (95 % of draws) and `p_NULL`; `overlap`, share of `language`'s top that is in the top of
        `language_b`, and `overlap_names`, in the tops of other features there; both at the settings' k.
        `alive[language]`. The null of names is NaN where there is one feature only.
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
                "activity": draw_sets(activity.mean[have], sizes, settings.null_draws, seed + 500),
                "names": _renamed(ranked[..., :k], v, have, cells, settings.null_draws, seed)}
            for null, drawn in draws.items():
                if drawn is None:
                    continue
                each = np.array([breadth(one) for one in drawn])
                shares = breadth_shares(each)
                out[f"breadth_{null}"][v, i, :len(have)] = (
                    alive_chance(sizes, alive[have]) if null == "even" else each.mean(0))
                out[f"share_{null}"][v, i] = np.nanmean(shares)
                out[f"share_{null}_high"][v, i] = np.nanquantile(shares, 0.95)
                out[f"p_{null}"][v, i] = (1 + (shares >= share - 1e-12).sum()) / (1 + len(shares))
    overlap, names = _overlaps(ranked[..., :settings.k], cells)
    axes = ("value", "language", "language_b")
    return xr.Dataset(
        {name: (("value", "k", "languages")[:values.ndim], values) for name, values in out.items()} | {
            "overlap": (axes, overlap), "overlap_names": (axes, names), "alive": ("language", alive.sum(1)),
            "used": (("value", "language"), cells.used)},
        coords={"value": list(cells.values), "k": ks, "languages": np.arange(1, languages + 1),
                "language": list(cells.languages), "language_b": list(cells.languages)},
        attrs={"k": settings.k, "latents": effects.shape[-1], "draws": settings.null_draws,
               "ranking": settings.ranking})


def _renamed(
    ranked: np.ndarray, value: int, have: np.ndarray, cells: Cells, draws: int, seed: int,
) -> np.ndarray | None:
    """Sets of which one is the value's own in a random language, the others of other features, dealt in turn."""
    features = [f for f in dict.fromkeys(cells.features) if f != cells.features[value]]
    if not features:
        return None
    rng = np.random.default_rng([seed, 71])
    of = {(f, g): [v for v in np.flatnonzero(cells.used[:, g]) if cells.features[v] == f]
          for f in features for g in have}
    out = np.empty((draws, len(have), ranked.shape[-1]), int)
    for one in out:
        own = rng.integers(len(have))
        order = rng.permutation(features)
        for i, g in enumerate(have):
            choices = [values for j in range(len(order)) if (values := of[order[(i + j) % len(order)], g])]
            picked = value if i == own else int(rng.choice(choices[0])) if choices else None
            one[i] = -1 if picked is None else ranked[picked, g]
    return out


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
    contrast: Float[np.ndarray, "V G M"], tops: Int[np.ndarray, "V G k"], activity: Activity, cells: Cells,
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
    width = contrast.shape[-1]
    against = strongest(-contrast, tops.shape[-1], settings.seed + 1)
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
        mean = np.nan_to_num(contrast[v, cells.used[v]]).mean(0)
        best = np.lexsort((-mean, -count))[:settings.shown]
        best = best[count[best] > 0]
        n = len(best)
        entry[v, :n], languages[v, :n], marked[v, :n] = best, count[best], artefact[best]
        flips[v, :n] = (member.any(0) & enemy.any(0))[best]
        in_top[v, :n], effect[v, :n] = member[:, best].T, contrast[v][:, best].T
        frequency[v, :n] = activity.frequency[:, best].T
    top_effect = np.where(tops >= 0, np.take_along_axis(contrast, np.maximum(tops, 0), 2), np.nan)
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
