"""What a trace may claim: overlap against its null over all checkpoints at once, and how it changes.

Pairs of languages are averaged in classes: all pairs of pre-training languages, those of one script,
those of two, and pairs with a language that pre-training never saw (the negative control). A class
stands above a null where it exceeds a band that the null leaves at any checkpoint and class with
probability 5 %. Two nulls have to be left behind before a concept is called shared: jointly permuted
labels, and concept names permuted within a kind. Neurons that mark a place in the sentence, a clause
type or a frequency are common to languages of like grammar; they exceed the first null and not the
second, because they serve every concept of the kind alike. A rise is claimed for the shared fraction
only, because a raw overlap also rises when average precision becomes less noisy.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from xlingjax.kernels import sharing, traces

CLASSES = {
    "seen": "pairs of pre-training languages",
    "same script": "pairs of pre-training languages in one script",
    "cross script": "pairs of pre-training languages in two scripts",
    "unseen": "pairs with a language that pre-training never saw",
}
DRAWS = 400  # bootstrap draws of concepts and languages


def pair_classes(languages: Sequence[str], scripts: Mapping[str, str],
                 unseen: Sequence[str]) -> dict[str, np.ndarray]:
    """Class -> bool[G, G], upper triangle; classes without a pair are left out.

    >>> found = pair_classes(["eng", "spa", "rus"], {"eng": "LATIN", "spa": "LATIN",
    ...                      "rus": "CYRILLIC"}, ["spa"])
    >>> {name: int(pairs.sum()) for name, pairs in found.items()}
    {'seen': 1, 'cross script': 1, 'unseen': 2}
    """
    count = len(languages)
    upper = np.triu(np.ones((count, count), bool), 1)
    new = np.isin(languages, list(unseen))
    seen = ~new[:, None] & ~new[None] & upper
    script = np.array([scripts[name] for name in languages])
    same = script[:, None] == script[None]
    found = {"seen": seen, "same script": seen & same, "cross script": seen & ~same,
             "unseen": upper & ~seen}
    return {name: pairs for name, pairs in found.items() if pairs.any()}


def claims(experts: xr.Dataset, classes: Mapping[str, np.ndarray], level: float = 0.05,
           seed: int = 0, sound: np.ndarray | None = None) -> xr.Dataset:
    """Class means over checkpoints with their band, intervals and change.

    A checkpoint that is not sound (broken, or the weights of another one) is shown and claims
    nothing: its overlap and null are as measured, its `band` and `p` NaN, and band, emergence and
    rise are those of the trace without it.

    Args:
        experts: `concept_experts` datasets joined along `checkpoint`, raw experts only.
        classes: of `pair_classes`.
        level: simultaneous over classes and checkpoints.
        seed: of the bootstrap.
        sound: bool[K], the checkpoints that count; by default all.

    Returns:
        Dimensions `pairs`, `checkpoint`. `overlap`, `null`, `band`, `p`, `ceiling`, `same_half`,
        `name_null` with `name_band` and `name_p`, `shared_fraction`, with `_low` and `_high` where
        bootstrapped over concepts and languages; `above`, overlap above the joint null's band;
        `shared`, above that and the names' band; `estimable`, the share of pairs with a shared
        fraction; `emergence`, the index of the first sound checkpoint that is shared for good, -1 =
        none; `rise` of the shared fraction from the first estimable sound checkpoint (`rise_from`,
        its index) to the last, NaN with fewer than two; `members`, the pairs of each class. Attributes
        `smallest_p`, `smallest_name_p`: what so many draws, and so few concepts of a kind, can reach.
    """
    one = experts.sel(k=experts.attrs["k"])
    cross = one["overlap"].transpose("checkpoint", "language", "language_b", "concept").values
    null_draws = one["null_draws"].transpose("draw", "checkpoint", "language", "language_b").values
    null, sd = null_draws.mean(0), null_draws.std(0, ddof=1)
    names, pairs = list(classes), np.stack(list(classes.values()))
    observed = _class_means(_mean(cross, -1), pairs)
    of_null = np.stack([_class_means(draw, pairs) for draw in null_draws])
    counts = np.flatnonzero(np.ones(observed.shape[1], bool) if sound is None else sound)
    band = traces.simultaneous_band(observed[:, counts], of_null[:, :, counts], level)
    upper, p, name_upper, name_p = np.full((4, *observed.shape), np.nan)
    upper[:, counts], p[:, counts] = band.upper, band.p
    of_names = np.stack([_class_means(draw, pairs) for draw in one["name_draws"].transpose(
        "name_draw", "checkpoint", "language", "language_b").values])
    # Permuted names overlap in proportion to unpermuted ones, which may fall manyfold over training.
    name_band = traces.simultaneous_band(of_names[0][:, counts], of_names[1:, :, counts], level, floor=0.25)
    name_upper[:, counts], name_p[:, counts] = name_band.upper, name_band.p
    same = np.isclose(of_names[1:], of_names[0], rtol=0, atol=1e-7, equal_nan=True).all((1, 2))
    shared = (observed > upper) & (of_names[0] > name_upper)
    emergence = traces.emergence(shared[:, counts]) if len(counts) else np.full(len(names), -1)

    rng = np.random.default_rng(seed)
    languages, concepts = cross.shape[1], cross.shape[-1]
    overlaps, fractions = [], []
    for _ in range(DRAWS):
        chosen = _mean(cross[..., rng.integers(0, concepts, concepts)], -1)
        times = np.bincount(rng.integers(0, languages, languages), minlength=languages)
        weight = times[:, None] * times[None]
        overlaps.append(_class_means(chosen, pairs, weight))
        fractions.append(_class_means(sharing.shared_fraction(chosen, null, sd), pairs, weight))
    fraction = sharing.shared_fraction(_mean(cross, -1), null, sd)
    fraction_mean = _class_means(fraction, pairs)
    drawn = np.stack(fractions)
    rise, low, high, first = _rise(fraction_mean[:, counts], drawn[:, :, counts])
    diagonal = np.einsum("kgg->kg", _mean(cross, -1))
    ceilings = np.sqrt(diagonal[:, :, None] * diagonal[:, None])
    dims = ("pairs", "checkpoint")
    out = {
        "overlap": (dims, observed), "null": (dims, of_null.mean(0)),
        "null_sd": (dims, of_null.std(0, ddof=1)), "band": (dims, upper), "p": (dims, p),
        "above": (dims, observed > upper), "shared": (dims, shared),
        "name_null": (dims, of_names[1:].mean(0)), "name_band": (dims, name_upper), "name_p": (dims, name_p),
        "ceiling": (dims, _class_means(ceilings, pairs)),
        "shared_fraction": (dims, fraction_mean),
        "estimable": (dims, _class_means((~np.isnan(fraction)).astype(float), pairs)),
        "emergence": ("pairs", _at(counts, emergence)),
        "rise": ("pairs", rise), "rise_low": ("pairs", low), "rise_high": ("pairs", high),
        "rise_from": ("pairs", _at(counts, first)),
    }
    for name, stack in (("overlap", np.stack(overlaps)), ("shared_fraction", drawn)):
        out[f"{name}_low"], out[f"{name}_high"] = (
            (dims, _quantile(stack, q)) for q in (level / 2, 1 - level / 2))
    for name, variable in (("same_half", "same_half_overlap"),
                           ("chance_stratified", "chance_stratified"),
                           ("chance_marginal", "chance_marginal")):
        array = one[variable]
        if "concept" in array.dims:
            array = array.mean("concept", skipna=True)
        values = array.transpose("checkpoint", "language", "language_b").values
        out[name] = (dims, _class_means(values, pairs))
    out["members"] = (("pairs", "language", "language_b"), pairs)
    coords = {"pairs": names, "checkpoint": experts["checkpoint"], "language": experts["language"],
              "language_b": experts["language_b"]}
    return xr.Dataset(out, coords=coords, attrs={
        "k": experts.attrs["k"], "level": level, "smallest_p": band.smallest_p,
        "smallest_name_p": (1 + int(same.sum())) / len(of_names),
        "interval": "bootstrap over concepts and languages, crossed", "p": "max-T"})


def _at(counts: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Indices among the sound checkpoints as indices among all; -1 stays."""
    return np.array([counts[i] if i >= 0 else -1 for i in index.tolist()], int)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    counted = ~np.isnan(values)
    total = np.where(counted, values, 0).sum(axis)
    return np.where(counted.any(axis), total / np.maximum(counted.sum(axis), 1), np.nan)


def _class_means(values: np.ndarray, pairs: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """float[K, G, G] -> float[classes, K]: weighted means over each class's pairs, NaN left out."""
    weights = pairs.astype(float) if weight is None else pairs * weight
    counted = ~np.isnan(values)
    total = np.einsum("pab,kab->pk", weights, np.where(counted, values, 0))
    mass = np.einsum("pab,kab->pk", weights, counted.astype(float))
    return np.where(mass > 0, total / np.maximum(mass, 1e-12), np.nan)


def _quantile(draws: np.ndarray, q: float) -> np.ndarray:
    out = np.full(draws.shape[1:], np.nan)
    for index in np.ndindex(out.shape):
        values = draws[(slice(None), *index)]
        values = values[~np.isnan(values)]
        if len(values) >= len(draws) / 2:
            out[index] = np.quantile(values, q)
    return out


def _rise(fraction: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, ...]:
    """Change of the shared fraction from the first estimable checkpoint to the last."""
    count = len(fraction)
    rise, low, high = (np.full(count, np.nan) for _ in range(3))
    first = np.full(count, -1)
    for row in range(count):
        estimable = np.flatnonzero(~np.isnan(fraction[row]))
        if len(estimable) < 2:
            continue
        start, end = estimable[0], estimable[-1]
        change = draws[:, row, end] - draws[:, row, start]
        change = change[~np.isnan(change)]
        rise[row], first[row] = fraction[row, end] - fraction[row, start], start
        if len(change) >= len(draws) / 2:
            low[row], high[row] = np.quantile(change, [0.025, 0.975])
    return rise, low, high, first
