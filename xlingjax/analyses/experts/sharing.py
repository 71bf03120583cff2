"""What languages share: experts from one half of the documents against those from the other.

Every overlap comes with the same under jointly permuted labels, by stratum, by neuron marginals and
under permuted concept names; each is averaged over random halvings of the documents.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from xlingjax.analyses.experts.cells import (
    Data,
    cell_of,
    labellings,
    mean_of,
    scratch,
    seed_of,
)
from xlingjax.kernels import calibration, experts, resampling, sharing


def across_halves(data: Data, labels: np.ndarray, name_draws: int) -> dict[str, Any]:
    """Everything that sets one half of the documents against the other, averaged over halvings."""
    languages, concepts = len(data.names), labels.shape[1]
    width, strata = int(data.ks.max()), np.maximum(data.strata, 0)
    names = np.vstack([np.arange(concepts), resampling.name_permutations(data.kinds, name_draws, data.seed)])
    ap, keep = scratch((2, languages, concepts, data.total))
    sums: dict[str, list] = {}
    null: dict[str, list] = {"across": [], "within": [], "strata": []}
    for halving in range(data.halvings):
        draws = len(range(halving, data.permutations, data.halvings))
        half = resampling.document_halves(data.blocks, data.languages, seed_of(data, 1, halving))
        sources = resampling.joint_permutations(
            data.blocks, data.parallel, data.languages, draws, seed_of(data, 2, halving), half)
        sets = np.full((2, languages, 1 + draws, concepts, width), -1, np.int32)
        prevalence = np.full((2, languages, concepts), np.nan)
        cuts = np.empty((2, languages, concepts))
        for side in (0, 1):
            for language, index in enumerate(data.rows):
                rows = index[half[index] == side]
                if not len(rows):
                    ap[side, language], cuts[side, language] = np.nan, np.inf
                    continue
                cell = cell_of(data, rows, labellings(labels, rows, sources), width,
                             (3, halving, side, language), ap[side, language])
                sets[side, language], prevalence[side, language] = cell.sets, cell.prevalence
                cuts[side, language] = calibration.fdr_cut(
                    calibration.ap_counts(ap[side, language]), cell.null, data.level)
        pairs = [[sharing.half_overlaps(sets[:, :, draw, c], data.ks) for c in range(concepts)]
                 for draw in range(1 + draws)]
        across = np.array([[both[0] for both in row] for row in pairs])  # [1 + P, C, k, G, G]
        within = np.array([[both[1] for both in row] for row in pairs])
        top = sets[..., :data.k]
        by_stratum = np.array([
            np.mean([_both_orders(sharing.stratum_overlaps, top[:, :, draw, c], strata)
                     for c in range(concepts)], axis=0) for draw in range(1 + draws)])
        null["across"].extend(mean_of(across[1:], 1))
        null["within"].extend(mean_of(within[1:], 1))
        null["strata"].extend(by_stratum[1:])
        found = {"across": across[0], "within": within[0], "strata": by_stratum[0],
                 **_chances(data, top[:, :, 0], strata), **_names(data, top[:, :, 0], names),
                 **_other_half(ap, prevalence, cuts, top[:, :, 0])}
        for name, value in found.items():
            sums.setdefault(name, []).append(value)
    del ap, keep
    mean = {name: mean_of(np.stack(values), 0) for name, values in sums.items()}
    pair = ("language", "language_b")
    by_k = lambda x: np.moveaxis(x, (-2, -1), (-4, -3))  # [C, k, G, G] -> [G, G, C, k]
    flat = lambda x: np.moveaxis(np.stack(x), 1, -1)  # [P, k, G, G] -> [P, G, G, k]
    smallest = mean["reliability"].copy()
    for concept in range(concepts):
        np.fill_diagonal(smallest[..., concept], np.inf)
    smallest = np.where(np.isnan(smallest), np.inf, smallest).min(1, initial=np.inf)
    return {
        "overlap": ((*pair, "concept", "k"), by_k(mean["across"])),
        "same_half_overlap": ((*pair, "concept", "k"), by_k(mean["within"])),
        "null_draws": (("draw", *pair, "k"), flat(null["across"])),
        "same_half_null_draws": (("draw", *pair, "k"), flat(null["within"])),
        "stratum_shared": ((*pair, "stratum"), mean["strata"]),
        "stratum_null_draws": (("draw", *pair, "stratum"), np.stack(null["strata"])),
        "stratum_chance": ((*pair, "stratum"), mean["stratum_chance"]),
        "chance_stratified": ((*pair, "concept"), mean["stratified"]),
        "chance_marginal": ((*pair, "concept"), mean["marginal"]),
        "name_draws": (("name_draw", *pair), mean["name_draws"].astype(np.float32)),
        "name_null": (pair, mean["name_draws"][1:].mean(0)),
        "kind_overlap": ((*pair, "concept"), mean["kind_overlap"]),
        "reliability": ((*pair, "concept"), mean["reliability"]),
        "reliability_min": (
            ("language", "concept"), np.where(np.isinf(smallest), np.nan, smallest)),
        "calibrated_half": (("language", "concept"), mean["calibrated_half"]),
        "calibrated_shared": ((*pair, "concept"), mean["calibrated_shared"]),
        "calibrated_overlap": ((*pair, "concept"), mean["calibrated_overlap"]),
    }


def _both_orders(measure: Callable, sets: np.ndarray, strata: np.ndarray) -> np.ndarray:
    first, second = measure(sets[0], sets[1], strata), measure(sets[1], sets[0], strata)
    return (first + second) / 2


def _chances(data: Data, sets: np.ndarray, strata: np.ndarray) -> dict[str, np.ndarray]:
    """Chance overlaps of the sets found, [G, G, C] as shares of k, and by stratum as neurons."""
    size = np.maximum(np.bincount(data.strata[data.strata >= 0], minlength=strata.max() + 1), 1)
    counts = sharing.stratum_counts(sets, strata) / np.sqrt(size)  # [2, G, C, strata]
    product = np.einsum("acs,bcs->abcs", counts[0], counts[1])
    product = (product + np.einsum("acs,bcs->abcs", counts[1], counts[0])) / 2
    marginal = np.array([[
        (experts.marginal_chance(sets[0, a], sets[1, b], data.total)
         + experts.marginal_chance(sets[1, a], sets[0, b], data.total)) / 2
        for b in range(sets.shape[1])] for a in range(sets.shape[1])])
    return {"stratified": product.sum(-1) / data.k, "stratum_chance": product.mean(2),
            "marginal": marginal / data.k}


def _names(data: Data, sets: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    """Overlaps under permuted names of concepts found in both halves and languages.

    `name_draws` [1 + draws, G, G]: means over concepts; draw 0 leaves the names as they are, the
    observation. `kind_overlap` [G, G, C]: of each concept with the others of its kind, their mean.
    """
    count, concepts = sets.shape[1:3]
    out, others = np.full((len(names), count, count), np.nan), np.full((count, count, concepts), np.nan)
    every, kinds = np.arange(concepts), np.array(data.kinds)
    alike = (kinds[:, None] == kinds) & ~np.eye(concepts, dtype=bool)
    for a in range(count):
        for b in range(count):
            usable = np.all(sets[:, [a, b], :, 0] >= 0, axis=(0, 1))
            if usable.sum() < 2:
                continue
            table = (sharing.name_overlaps(sets[0, a], sets[1, b], data.total)
                     + sharing.name_overlaps(sets[1, a], sets[0, b], data.total)) / (2 * data.k)
            out[:, a, b] = table[every[usable], _among(names, usable, kinds)[:, usable]].mean(1)
            rest = alike & usable & usable[:, None]
            some = rest.any(1)
            # Both directions, as for the pair the other way round.
            both = (table * rest + table.T * rest).sum(1) / 2
            others[a, b, some] = both[some] / rest.sum(1)[some]
    return {"name_draws": out, "kind_overlap": others}


def _among(names: np.ndarray, usable: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The same permutations, of each kind's usable concepts only.

    >>> _among(np.array([[2, 1, 0, 3]]), np.array([False, True, True, True]), np.array(list("nvnn")))
    array([[0, 1, 2, 3]])
    """
    if usable.all():
        return names
    out = np.tile(np.arange(names.shape[1]), (len(names), 1))
    for kind in np.unique(kinds):
        here = kinds == kind
        order = names[:, here]
        out[:, here & usable] = order[usable[order]].reshape(len(names), -1)
    return out


def _other_half(
    ap: np.ndarray, prevalence: np.ndarray, cuts: np.ndarray, sets: np.ndarray,
) -> dict[str, np.ndarray]:
    """Reliability of experts on other documents, and the overlap of the calibrated sets."""
    transfer, shared, sizes = [], [], []
    for concept in range(ap.shape[2]):
        transfer.append(sharing.reliability(
            np.asarray(ap[:, :, concept]), prevalence[..., concept], sets[:, :, concept]))
        called = calibration.above(np.asarray(ap[:, :, concept]), cuts[..., concept])
        called = called.astype(np.float32)
        both = called[0] @ called[1].T
        shared.append((both + both.T) / 2)
        sizes.append(called.sum(-1))
    count = np.stack(sizes, -1)  # [2, G, C]
    product = np.einsum("ac,bc->abc", count[0], count[1])
    product = np.sqrt((product + product.transpose(1, 0, 2)) / 2)
    shares = np.stack(shared, -1)
    overlap = np.where(product > 0, shares / np.maximum(product, 1), np.nan)
    return {"reliability": np.stack(transfer, -1), "calibrated_half": count.mean(0),
            "calibrated_shared": shares, "calibrated_overlap": overlap}


def bootstrap_overlap(data: Data, labels: np.ndarray, draw: int) -> np.ndarray:
    """float[G, G, C]: overlap across the halves of one bootstrap sample of the documents."""
    half = resampling.document_halves(data.blocks, data.languages, seed_of(data, 5, draw))
    times = resampling.document_bootstrap(data.blocks, seed_of(data, 6, draw))
    sets = np.full((2, len(data.names), labels.shape[1], data.k), -1, np.int32)
    for side in (0, 1):
        for language, index in enumerate(data.rows):
            chosen = index[half[index] == side]
            rows = np.repeat(chosen, times[chosen])
            if len(rows):
                cell = cell_of(data, rows, labels[rows][None], data.k, (7, draw, side, language))
                sets[side, language] = cell.sets[0]
    size = np.array([data.k])
    overlaps = [sharing.half_overlaps(sets[:, :, c], size)[0][0] for c in range(labels.shape[1])]
    return np.stack(overlaps, -1)
