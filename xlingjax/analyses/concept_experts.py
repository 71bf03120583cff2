"""Which neurons are experts of a concept in each language, and how many the languages share.

One checkpoint: pooled responses and labels go in, a dataset with every overlap beside its chance,
its ceiling and its nulls comes out. A trace is this over checkpoints under one seed: halves and
permutations are the same at each, so that bands over checkpoints can be had (`kernels.traces`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from xlingjax.analyses.experts.cells import (
    BLOCK_BYTES,
    Data,
    cell_of,
    labellings,
    mean_of,
    read,
    seed_of,
    slices,
)
from xlingjax.analyses.experts.sharing import across_halves, bootstrap_overlap
from xlingjax.errors import InputError
from xlingjax.kernels import calibration, experts, length, resampling, sharing
from xlingjax.kernels.ranking import average_precision

COVARIATES = ("tokens", "characters", "position")


def default_k(total: int) -> int:
    """The size of an expert set: as large a part of N neurons as 500 of 221,184, at least 20.

    >>> default_k(221_184), default_k(4_000)
    (500, 20)
    """
    return max(20, round(total * 500 / 221_184))


def concept_experts(
    responses: Any,
    labels: np.ndarray,
    languages: np.ndarray,
    documents: np.ndarray,
    parallel: np.ndarray,
    lengths: np.ndarray,
    characters: np.ndarray,
    strata: np.ndarray | None = None,
    *,
    concepts: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    position: np.ndarray | None = None,
    k: int | None = None,
    ks: Sequence[int] | None = None,
    permutations: int = 20,
    length_permutations: int | None = None,
    halvings: int = 4,
    name_draws: int = 499,
    bootstraps: int = 0,
    level: float = 0.05,
    adjustments: Sequence[str] = ("raw", "length"),
    seed: int = 0,
) -> xr.Dataset:
    """Experts of every concept and language at one checkpoint, and what the languages share.

    Args:
        responses: float[S, N], or anything with `shape` that gives NumPy arrays for
            `responses[rows, neurons]` of two slices; read in blocks of neurons.
        labels: int8[S, C]; 1, 0, -1 = not labelled.
        languages, documents, parallel: str[S] as in `Corpus`; "" = no translation.
        lengths, characters: int[S], tokens and characters of each sentence.
        strata: int[N], layer and site of every neuron (`NeuronIndex.strata`); by default all one.
        kinds: C of them; names of concepts are permuted within a kind. By default all are of one.
        position: int[S], place of the sentence in its document; order of rows by default.
        k: size of the sets; `default_k(N)` by default. ks: the curve; k/4 to 4k by default.
        permutations: of the labels, jointly in all languages. They are dealt out over the halvings,
            so each null draw is one halving; the observation is the mean over all of them, which
            errs on the safe side. p is at least 1 / (permutations + 1). Calibrated sets pool
            permutations / halvings draws of all neurons, and so have either none or at least
            halvings / (permutations * level) members.
        length_permutations: the same for "length", whose sentences differ from concept to concept,
            so that each permutation costs several times as much; a quarter by default.
            `smallest_p` says what either can reach.
        halvings: random halvings of the documents, averaged.
        name_draws: permutations of concept names. bootstraps: draws of documents for the intervals
            (each ranks all neurons again); with 0 they resample concepts only.
        level: false discovery rate of the calibrated sets.
        adjustments: "raw", and "length": negatives matched by decile of token count.

    Returns:
        Dimensions `adjustment`, `language`, `language_b`, `concept`, `k`, `draw`, `stratum`,
        `rank`, `breadth`, `covariate`. Overlaps are shares of k, experts of `language` from one
        half of the documents against those of `language_b` from the other. What cannot be computed
        is NaN (`usable` says where).

    Raises:
        InputError: where shapes do not fit, or no concept has positives and negatives.
    """
    labels = np.asarray(labels, np.int8)
    languages, documents, parallel = (np.asarray(x, str) for x in (languages, documents, parallel))
    count, total = _check(responses, labels, languages, documents, parallel, lengths, characters)
    strata = np.zeros(total, int) if strata is None else np.asarray(strata)
    if strata.shape != (total,):
        raise InputError(f"strata have shape {strata.shape}, not ({total},), one for each neuron")
    unknown = set(adjustments) - {"raw", "length"}
    if unknown or not adjustments:
        raise InputError(f"adjustments {sorted(unknown)} are unknown; choose among raw, length")
    fewest = permutations if length_permutations is None else min(permutations, length_permutations)
    if fewest < 2 or halvings < 1:
        raise InputError(
            f"{fewest} permutations and {halvings} halvings give no null; ask for at least 2 and 1")
    names = list(dict.fromkeys(languages.tolist()))
    rows = [np.flatnonzero(languages == name) for name in names]
    concepts = [str(i) for i in range(labels.shape[1])] if concepts is None else list(concepts)
    kinds = ("",) * labels.shape[1] if kinds is None else tuple(kinds)
    if len(kinds) != labels.shape[1]:
        raise InputError(f"{len(kinds)} kinds for {labels.shape[1]} concepts; give one a concept, or none at all")
    constant, broken = _health(responses, rows, total)
    alive = int((~constant.all(0)).sum())
    if not alive:
        raise InputError("every neuron is constant in every language; nothing can be an expert")
    k = default_k(total) if k is None else k
    curve = {k // 4, k // 2, k, 2 * k, 4 * k} if ks is None else {*ks, k}
    blocks = resampling.independent_blocks(documents, parallel)
    if position is None:
        position = _positions(languages, documents)
    data = Data(
        responses, languages, names, rows, blocks, parallel,
        np.stack([lengths, characters, position], axis=1).astype(np.float32),
        np.where(constant.all(0), -1, strata), total, alive, k,
        np.array(sorted(size for size in curve if 1 <= size <= alive or size == k)),
        permutations, halvings, seed, level, kinds)
    versions = []
    for adjustment in adjustments:
        chosen = labels
        if adjustment == "length":
            chosen = np.full_like(labels, -1)
            for index in rows:
                chosen[index] = length.match_length(labels[index], np.asarray(lengths)[index], seed)
        chosen = resampling.equal_counts(chosen, languages, blocks, parallel, seed)
        if adjustment == adjustments[0] and not _usable(data, chosen).any():
            raise InputError(
                "no concept has positive and negative sentences in any language; check the labels")
        draws = permutations
        if adjustment == "length":
            draws = length_permutations or max(2, permutations // 4)
        versions.append(_analyse(
            data._replace(permutations=draws), chosen, concepts, name_draws, bootstraps))
    dataset = xr.concat(versions, "adjustment", join="outer")
    dataset = dataset.assign_coords(adjustment=list(adjustments))
    dataset["constant_neurons"] = ("language", constant.sum(1))
    dataset["nonfinite_neurons"] = ("language", broken.sum(1))
    dataset["sentences"] = ("language", np.array([len(index) for index in rows]))
    tied = parallel != ""
    dataset = dataset.assign_coords(kind=("concept", list(data.kinds)))
    dataset.attrs.update(
        k=k, neurons=total, alive=alive, documents=int(blocks.max() + 1), sentences=count,
        seed=seed, permutations=permutations, halvings=halvings, bootstraps=bootstraps, fdr=level,
        permutation=("labels by parallel id, identical in all languages, whole documents together"
                     if tied.all() else "documents within each language (no parallel ids)"
                     if not tied.any() else "by parallel id, else within language"),
        interval="documents and concepts" if bootstraps else "concepts only")
    for name, text in LONG_NAMES.items():
        dataset[name].attrs["long_name"] = text
    return dataset


def _check(
    responses: Any, labels: Any, languages: Any, documents: Any, parallel: Any, lengths: Any,
    characters: Any,
) -> tuple[int, int]:
    if len(responses.shape) != 2:
        raise InputError(f"responses have shape {responses.shape}; give sentences x neurons")
    count, total = responses.shape
    if labels.ndim != 2 or not np.isin(labels, (-1, 0, 1)).all():
        raise InputError("labels must be sentences x concepts of 1, 0 or -1 (not labelled)")
    for name, value in (("labels", labels), ("languages", languages), ("documents", documents),
                        ("parallel", parallel), ("lengths", lengths), ("characters", characters)):
        if len(value) != count:
            raise InputError(f"{name} has {len(value)} entries for {count} sentences of responses")
    if not (count and total and labels.shape[1]):
        raise InputError(
            f"{count} sentences, {total} neurons and {labels.shape[1]} concepts: none may be 0")
    return count, total


def _positions(languages: np.ndarray, documents: np.ndarray) -> np.ndarray:
    seen: dict = {}
    out = np.empty(len(languages), int)
    for row, key in enumerate(zip(languages.tolist(), documents.tolist())):
        out[row] = seen[key] = seen.get(key, -1) + 1
    return out


def _health(responses: Any, rows: list[np.ndarray], total: int) -> tuple[np.ndarray, np.ndarray]:
    """bool[G, N]: constant in the language; bool[G, N]: NaN or infinite somewhere."""
    constant, broken = np.zeros((len(rows), total), bool), np.zeros((len(rows), total), bool)
    for language, index in enumerate(rows):
        for neurons in slices(total, BLOCK_BYTES // (4 * len(index))):
            block = read(responses, index, neurons)
            constant[language, neurons] = (block == block[0]).all(0)
            broken[language, neurons] = ~np.isfinite(block).all(0)
    return constant, broken


def _usable(data: Data, labels: np.ndarray) -> np.ndarray:
    """bool[G, C]: the language has positives and negatives of the concept."""
    return np.array([
        (labels[index] == 1).any(0) & (labels[index] == 0).any(0) for index in data.rows])


def _analyse(
    data: Data, labels: np.ndarray, concepts: list[str], name_draws: int, bootstraps: int,
) -> xr.Dataset:
    usable = _usable(data, labels)
    out: dict[str, Any] = {"usable": (("language", "concept"), usable), **_whole(data, labels)}
    halves = across_halves(data, labels, name_draws)
    out.update(halves)
    pair = ("language", "language_b")
    cross, draws = halves["overlap"][1], halves["null_draws"][1]
    cross_mean = mean_of(cross, 2)
    null, sd = draws.mean(0), draws.std(0, ddof=1)
    to_matrix = lambda x: np.moveaxis(x, -1, 0)
    fraction = sharing.shared_fraction(to_matrix(cross_mean), to_matrix(null), to_matrix(sd))
    within, within_draws = halves["same_half_overlap"][1], halves["same_half_null_draws"][1]
    out |= {
        "overlap_mean": ((*pair, "k"), cross_mean),
        "null_overlap": ((*pair, "k"), null),
        "null_overlap_sd": ((*pair, "k"), sd),
        "p": ((*pair, "k"), _p(cross_mean, draws)),
        "same_half_p": ((*pair, "k"), _p(mean_of(within, 2), within_draws)),
        "ceiling": (("language", "concept", "k"), np.einsum("aack->ack", cross)),
        "shared_fraction": ((*pair, "k"), np.moveaxis(fraction, 0, -1)),
        "smallest_p": ((), 1 / (data.permutations + 1)),
        "chance_uniform": ("k", data.ks / data.alive),
        "chance_uniform_sd": ("k", np.sqrt(experts.hypergeometric(
            data.ks, data.ks, np.float64(data.alive))[1]) / data.ks),
    }
    at_k = int(np.flatnonzero(data.ks == data.k)[0])
    out |= _intervals(data, labels, cross[..., at_k], null[..., at_k], sd[..., at_k], bootstraps)
    return xr.Dataset(out, coords={
        "language": data.names, "language_b": data.names, "concept": concepts, "k": data.ks,
        "draw": np.arange(data.permutations), "covariate": list(COVARIATES),
        "breadth": np.arange(1, len(data.names) + 1)})


def _p(observed: np.ndarray, draws: np.ndarray) -> np.ndarray:
    p = (1 + (draws >= observed - 1e-12).sum(0)) / (1 + len(draws))
    return np.where(np.isnan(observed), np.nan, p)


def _whole(data: Data, labels: np.ndarray) -> dict[str, Any]:
    """What takes all sentences of a language: sets, AP, calibration, breadth, length."""
    sources = resampling.joint_permutations(
        data.blocks, data.parallel, data.languages, -(-data.permutations // data.halvings),
        data.seed)
    cells, cuts, by_length, called = [], [], [], []
    observed = np.empty((labels.shape[1], data.total), np.float32)
    for language, rows in enumerate(data.rows):
        labelled = labellings(labels, rows, sources)
        cell = cell_of(data, rows, labelled, data.k, (0, language), observed)
        cut = calibration.fdr_cut(calibration.ap_counts(observed), cell.null, data.level)
        cells.append(cell)
        cuts.append(cut)
        called.append(calibration.above(observed, cut).sum(-1))
        by_length.append(np.stack([
            average_precision(data.covariates[rows], one == 1, one >= 0) for one in labelled]))
    sets = np.stack([cell.sets for cell in cells])  # [G, 1 + P, C, k]
    values = np.stack([cell.values for cell in cells])
    prevalence = np.stack([cell.prevalence for cell in cells])
    last = values[..., -1]
    alone = np.stack(by_length)  # [G, 1 + P, C, covariates]
    counts = np.array([[sharing.breadth(sets[:, draw, concept]) for concept in range(sets.shape[2])]
                       for draw in range(sets.shape[1])])
    sizes = (sets[:, 0] >= 0).sum(-1)
    chance = np.array([sharing.breadth_chance(size, data.alive) for size in sizes.T])
    strata = np.maximum(data.strata, 0)
    cell_dims = ("language", "concept")
    return {
        "expert": ((*cell_dims, "rank"), sets[:, 0]),
        "expert_ap": ((*cell_dims, "rank"), values[:, 0]),
        "ap_at_k": (cell_dims, last[:, 0]),
        "excess_ap_at_k": (cell_dims, (last[:, 0] - prevalence) / (1 - prevalence)),
        "null_ap_at_k": (cell_dims, last[:, 1:].mean(1)),
        "prevalence": (cell_dims, prevalence),
        "positives": (cell_dims, np.array([(labels[rows] == 1).sum(0) for rows in data.rows])),
        "negatives": (cell_dims, np.array([(labels[rows] == 0).sum(0) for rows in data.rows])),
        "ties": (cell_dims, np.stack([cell.ties for cell in cells])),
        "calibrated": (cell_dims, np.stack(called)),
        "calibrated_cut": (cell_dims, np.stack(cuts)),
        "covariate_ap": ((*cell_dims, "covariate"), alone[:, 0]),
        "covariate_p": (
            (*cell_dims, "covariate"), _p(alone[:, 0], np.moveaxis(alone[:, 1:], 1, 0))),
        "experts_by_stratum": (
            ("language", "stratum"), sharing.stratum_counts(sets[:, 0], strata).mean(1)),
        "breadth_neurons": (("concept", "breadth"), counts[0]),
        "breadth_null": (("concept", "breadth"), counts[1:].mean(0)),
        "breadth_chance": (("concept", "breadth"), chance),
    }


def _intervals(
    data: Data, labels: np.ndarray, cross: np.ndarray, null: np.ndarray, sd: np.ndarray,
    bootstraps: int,
) -> dict[str, Any]:
    """Estimate +- 1.96 bootstrap standard deviations, documents and concepts crossed.

    A percentile interval would lie too low: a draw holds only 63 % of the documents, and overlap
    grows with their number.
    """
    rng = np.random.default_rng(seed_of(data, 4))
    concepts = labels.shape[1]
    overlaps, fractions = [], []
    for draw in range(bootstraps or 200):
        sample = bootstrap_overlap(data, labels, draw) if bootstraps else cross
        chosen = mean_of(sample[..., rng.integers(0, concepts, concepts)], -1)
        overlaps.append(chosen)
        fractions.append(sharing.shared_fraction(chosen, null, sd))
    estimate = mean_of(cross, -1)
    pair = ("language", "language_b")
    out: dict[str, Any] = {}
    for name, centre, draws in (
            ("overlap", estimate, overlaps),
            ("shared_fraction", sharing.shared_fraction(estimate, null, sd), fractions)):
        stack = np.stack(draws)
        reach = 1.96 * np.sqrt(mean_of((stack - mean_of(stack, 0)) ** 2, 0))
        out |= {f"{name}_low": (pair, centre - reach), f"{name}_high": (pair, centre + reach)}
    return out


LONG_NAMES = {
    "overlap": "experts shared across document halves, share of k",
    "overlap_mean": "the same, mean over concepts",
    "same_half_overlap": "experts shared on the same documents (diagnostic), share of k",
    "ceiling": "a language against itself across document halves, share of k",
    "null_overlap": "mean overlap across halves under jointly permuted labels",
    "smallest_p": "the smallest p that so many permutations can give",
    "p": "p of the mean overlap under jointly permuted labels",
    "same_half_p": "the same for overlap on the same documents",
    "shared_fraction": "(overlap - null) / (sqrt(ceiling_A ceiling_B) - null)",
    "chance_uniform": "overlap of random sets, share of k",
    "chance_stratified": "overlap of random sets with the same numbers in each layer and site",
    "chance_marginal": "overlap if neurons kept how often they are experts of other concepts",
    "name_draws": "mean overlap under concept names permuted within their kind; draw 0 is unpermuted",
    "name_null": "its mean over draws",
    "kind_overlap": "overlap with other concepts of the kind, their mean",
    "reliability": "(AP - prevalence) / (1 - prevalence) in language_b, other documents",
    "reliability_min": "the smallest of these over the other languages",
    "calibrated": "neurons above the permutation null at the false discovery rate",
    "calibrated_overlap": "shared calibrated neurons / geometric mean of sizes, across halves",
    "breadth_neurons": "neurons that are experts in exactly so many languages",
    "ap_at_k": "average precision of the k-th expert",
    "null_ap_at_k": "average precision of the k-th expert under permuted labels",
    "covariate_ap": "average precision of length or position alone",
    "ties": "neurons equal to the k-th expert and left out by the draw",
    "constant_neurons": "neurons constant in the language, never experts",
}
