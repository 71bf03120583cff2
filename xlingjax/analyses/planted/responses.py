"""Worlds in which the truth is known: what is planted must be found, and nothing else.

A world is noise in which some neurons respond to a concept in all languages (shared) or in one
(specific), some to the sentence whatever its label (anchors: names and numerals that translations
share), some to nothing but its length, and some are constant. Labels and anchors run in documents,
lengths correlate between translations, and every second concept lives in longer sentences. The
analysis sees the `World`; the `Truth` is kept apart and only compared with what was found.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special
import scipy.stats
import xarray as xr

from xlingjax.analyses.concept_experts import concept_experts
from xlingjax.errors import InputError
from xlingjax.kernels import calibration, length, resampling
from xlingjax.kernels.ranking import average_precision


class World(NamedTuple):
    """What an analysis may see, in the order `concept_experts` takes it."""

    responses: np.ndarray  # float32[S, N]
    labels: np.ndarray  # int8[S, C]
    languages: np.ndarray  # str[S]
    documents: np.ndarray
    parallel: np.ndarray
    lengths: np.ndarray  # int[S]
    characters: np.ndarray


class Truth(NamedTuple):
    """What was planted."""

    experts: np.ndarray  # bool[G, C, N]
    anchors: np.ndarray  # bool[N]
    length: np.ndarray  # bool[N]
    constant: np.ndarray  # bool[N]


class Size(NamedTuple):
    """How large the worlds of the table are."""

    languages: int
    concepts: int
    sentences: int
    documents: int
    neurons: int
    planted: int  # of each kind for each concept
    permutations: int
    null_worlds: int


Row = tuple[str, float, float, float, float]  # name, measured, its sd, and the bar from low to high
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
SIZES = {
    "small": Size(3, 4, 400, 100, 1500, 10, 10, 60),
    "full": Size(10, 20, 1000, 250, 10_000, 20, 5, 200),
}


def plant(
    languages: int = 10,
    concepts: int = 20,
    sentences: int = 1000,
    documents: int = 250,
    neurons: int = 10_000,
    shared: int = 20,
    specific: int = 20,
    anchors: int = 400,
    length_neurons: int = 400,
    constant: float = 0.1,
    d_prime: float | Sequence[float] = 2.0,
    prevalence: float | Sequence[float] = 0.1,
    clustering: float = 0.3,
    length_link: float = 0.25,
    seed: int = 0,
) -> tuple[World, Truth]:
    """A planted world and its truth; the defaults are those of the full table.

    Args:
        sentences: parallel sentences a language, in `documents` of equal size.
        shared, specific: neurons for each concept; specific ones for each language as well.
        anchors, length_neurons: in all. constant: share of all neurons.
        d_prime: shift of a response by the concept, in standard deviations; or one a language.
        prevalence: share of positive sentences; or one a concept.
        clustering: correlation within a document of the labels' and anchors' latent variable.
        length_link: correlation of every second concept's latent variable with sentence length.

    Raises:
        InputError: where the neurons do not suffice.
    """
    rng = np.random.default_rng(seed)
    needed = concepts * (shared + specific * languages) + anchors + length_neurons
    dead = int(constant * neurons)
    if needed + dead > neurons:
        raise InputError(f"{neurons} neurons cannot hold {needed + dead} planted ones; plant fewer")
    if sentences % documents:
        raise InputError(f"{sentences} sentences do not fill {documents} documents of equal size")
    document = np.repeat(np.arange(documents), sentences // documents)

    def latent(count):
        own = rng.normal(size=(sentences, count)) * np.sqrt(1 - clustering)
        return own + np.sqrt(clustering) * rng.normal(size=(documents, count))[document]

    base = rng.normal(size=sentences)
    link = np.where(np.arange(concepts) % 2, length_link, 0)
    drive = latent(concepts) * np.sqrt(1 - link**2) + base[:, None] * link
    rank = drive.argsort(0).argsort(0)
    negatives = np.round(sentences * (1 - np.broadcast_to(prevalence, concepts)))
    labels = (rank >= negatives).astype(np.int8)
    identity = latent(anchors)

    places = np.split(rng.permutation(neurons), np.cumsum(
        [concepts * shared, concepts * specific * languages, anchors, length_neurons, dead]))
    together = places[0].reshape(concepts, shared)
    alone = places[1].reshape(languages, concepts, specific)
    experts = np.zeros((languages, concepts, neurons), bool)
    responses = np.empty((languages * sentences, neurons), np.float32)
    tokens = np.empty((languages, sentences), int)
    for language, shift in enumerate(np.broadcast_to(d_prime, languages)):
        block = rng.standard_normal((sentences, neurons), np.float32)
        block[:, places[2]] = 0.95 * identity + 0.3 * block[:, places[2]]
        tokens[language] = np.maximum(2, np.round(np.exp(2.9 + 0.4 * (
            0.93 * base + 0.36 * rng.normal(size=sentences)))))
        uniform = rng.random((sentences, length_neurons))
        block[:, places[3]] = scipy.special.ndtri(uniform ** (1 / tokens[language][:, None]))
        block[:, places[4]] = 0
        for concept in range(concepts):
            mine = np.concatenate([together[concept], alone[language, concept]])
            experts[language, concept, mine] = True
            block[:, mine] += (shift * labels[:, concept, None]).astype(np.float32)
        responses[language * sentences:(language + 1) * sentences] = block
    mark = lambda index: np.isin(np.arange(neurons), index)
    name = lambda letter, index: np.tile(np.char.add(letter, index.astype(str)), languages)
    lengths = tokens.reshape(-1)
    world = World(
        responses, np.tile(labels, (languages, 1)),
        np.repeat([f"language {i}" for i in range(languages)], sentences),
        name("d", document), name("s", np.arange(sentences)), lengths, lengths * 5)
    return world, Truth(experts, mark(places[2]), mark(places[3]), mark(places[4]))


def calibrated_sets(
    world: World, permutations: int, levels: Sequence[float], half: np.ndarray | None = None,
    adjusted: bool = True, seed: int = 0,
) -> np.ndarray:
    """bool[levels, halves, G, C, N]: neurons above the joint permutation null at each FDR.

    Args:
        half: 0 or 1 for every sentence; all sentences are one half by default.
        adjusted: negatives matched by token-count decile.
    """
    half = np.zeros(len(world.lengths), int) if half is None else half
    blocks = resampling.independent_blocks(world.documents, world.parallel)
    sources = resampling.joint_permutations(
        blocks, world.parallel, world.languages, permutations, seed, half)
    names = list(dict.fromkeys(world.languages.tolist()))
    count = world.labels.shape[1]
    called = np.zeros(
        (len(levels), half.max() + 1, len(names), count, world.responses.shape[1]), bool)
    for language, name in enumerate(names):
        labels = np.full_like(world.labels, -1)
        for side in range(half.max() + 1):
            rows = np.flatnonzero((world.languages == name) & (half == side))
            labels[rows] = world.labels[rows]
            if adjusted:
                labels[rows] = length.match_length(world.labels[rows], world.lengths[rows], seed)
            block = world.responses[rows]
            varies = (block != block[0]).any(0)
            labelled = np.concatenate([labels[rows][None], labels[sources[:, rows]]])
            columns = labelled.transpose(1, 0, 2).reshape(len(rows), -1)
            where = columns >= 0 if adjusted else None
            ap = np.array(average_precision(block[:, varies], columns == 1, where), np.float32)
            ap = ap.reshape(1 + permutations, count, -1)
            for place, level in enumerate(levels):
                called[place, side, language][:, varies] = calibration.fdr_sets(
                    ap[0], ap[1:].swapaxes(0, 1), level)
    return called


def recovered_fractions(
    size: Size, fractions: Sequence[float] = FRACTIONS, seed: int = 0, **planted: Any,
) -> np.ndarray:
    """The shared fraction found (mean over language pairs) in worlds with a planted one.

    Prevalences run from 0.05 to 0.4 over the concepts, d' from 1.5 to 3 over the languages, so that
    the ceilings are unequal.
    """
    found = []
    each = 2 * size.planted
    for fraction in fractions:
        shared = round(fraction * each)
        settings = dict(
            d_prime=np.linspace(1.5, 3, size.languages),
            prevalence=np.geomspace(0.05, 0.4, size.concepts), seed=seed)
        world, _ = plant_size(size, shared=shared, specific=each - shared, **(settings | planted))
        dataset = concept_experts(
            *world, k=each, ks=(each,), permutations=size.permutations, halvings=2, name_draws=19,
            adjustments=("raw",), seed=seed)
        pairs = dataset["shared_fraction"].values[0, :, :, 0]
        found.append(np.mean(pairs[~np.eye(size.languages, dtype=bool)]))
    return np.array(found)


def plant_size(size: Size, **settings: Any) -> tuple[World, Truth]:
    """A world of one of the table's sizes; `settings` as for `plant`."""
    nuisance = size.planted * size.concepts
    neurons = size.neurons
    if settings.get("specific", 0) > size.planted:  # make room for them
        neurons += size.concepts * size.languages * (settings["specific"] - size.planted)
    defaults: dict[str, Any] = dict(
        languages=size.languages, concepts=size.concepts, sentences=size.sentences,
        documents=size.documents, neurons=neurons, shared=size.planted, specific=size.planted,
        anchors=nuisance, length_neurons=nuisance)
    return plant(**(defaults | settings))


def false_positives(worlds: int, permutations: int = 20, level: float = 0.05, seed: int = 0) -> int:
    """In how many small worlds without any signal a calibrated set is not empty."""
    found = 0
    for number in range(worlds):
        world, _ = plant(
            languages=1, concepts=1, sentences=160, documents=40, neurons=200, anchors=20,
            length_neurons=20, d_prime=0, prevalence=0.15, seed=seed + number)
        called = calibrated_sets(world, permutations, [level], adjusted=False, seed=number)
        found += int(called.any())
    return found


def planted_table(
    size: Size, seed: int = 0, progress: Callable[[Iterable], Iterable] = iter,
) -> xr.Dataset:
    """Every bar of the planted truth with what was measured.

    Returns:
        Over the dimension `check`: `measured`, `sd` (binomial, or of the regression), the bar `low`
        to `high`, `barred` (there is a bar) and `met`. A Benjamini-Hochberg set at 1 % has an
        expected precision of hardly more than 0.99, so that bar is met or missed by sampling.
    """
    rows: list[Row] = []
    levels = (0.05, 0.01)
    for d_prime in progress((0.5, 1.0, 2.0, 3.0)):
        world, truth = plant_size(size, d_prime=d_prime, length_link=0, seed=seed)
        called = calibrated_sets(world, size.permutations, levels, adjusted=False, seed=seed)[:, 0]
        for level, sets, precise, recalled in zip(levels, called, (0.94, 0.99), (np.nan, 0.99)):
            hits = (sets & truth.experts).sum()
            if level == 0.05 or d_prime == 3:
                name, of = f"at FDR {level}, d' = {d_prime}", truth.experts.sum()
                rows += [rate(f"precision {name}", hits, sets.sum(), precise),
                         rate(f"recall {name}", hits, of, recalled)]
    world, truth = plant_size(size, d_prime=3.0, length_link=0.7, seed=seed)
    half = resampling.document_halves(
        resampling.independent_blocks(world.documents, world.parallel), world.languages, seed)
    for adjusted in progress((False, True)):
        name = "length-adjusted" if adjusted else "raw"
        called = calibrated_sets(
            world, size.permutations, [0.05], half, adjusted=adjusted, seed=seed)[0]
        hits = (called & truth.experts).sum()
        rows.append(rate(f"precision where concepts have lengths, {name}", hits, called.sum()))
        for kind, neurons in (("anchor", truth.anchors), ("length", truth.length)):
            calls, of = abstract_calls(called[..., neurons])
            low = 0 if adjusted else np.nan
            rows.append(rate(f"{kind} neurons called shared, {name}", calls, of, low, 0.01))
    few, many = scipy.stats.binom.interval(0.95, size.null_worlds, 0.05)
    rows.append(rate(
        f"share of {size.null_worlds} worlds with a false call, d' = 0",
        false_positives(size.null_worlds, seed=seed), size.null_worlds, few / size.null_worlds,
        many / size.null_worlds))
    recovered = recovered_fractions(size, seed=seed)
    for fraction, value in zip(FRACTIONS, recovered):
        rows.append((f"shared fraction, planted {fraction}", value, np.nan, np.nan, np.nan))
    line = scipy.stats.linregress(FRACTIONS, recovered)
    rows.append(("slope of shared fraction", line.slope, line.stderr, 0.95, 1.05))
    rows.append(
        ("intercept of shared fraction", line.intercept, line.intercept_stderr, -0.02, 0.02))
    return as_table(rows, {**size._asdict(), "seed": seed})


def rate(name: str, hits: int, of: int, low: float = np.nan, high: float = 1.0) -> Row:
    """A row of the table: a share with its binomial sd, and its bar, if there is one (`low`)."""
    share = hits / of if of else np.nan
    return name, share, np.sqrt(share * (1 - share) / max(of, 1)), low, high


def as_table(rows: Sequence[Row], attrs: Mapping[str, Any]) -> xr.Dataset:
    """The rows over the dimension `check`; see `planted_table`."""
    measured, sd, lows, highs = np.array([row[1:] for row in rows], float).T
    return xr.Dataset(
        {"measured": ("check", measured), "sd": ("check", sd), "low": ("check", lows),
         "high": ("check", highs), "barred": ("check", ~np.isnan(lows)),
         "met": ("check", (measured >= lows) & (measured <= highs))},
        coords={"check": [row[0] for row in rows]}, attrs=dict(attrs))


def abstract_calls(called: np.ndarray) -> tuple[int, int]:
    """How often a neuron is in the set of A from one half and of B from the other, out of how many.

    Args:
        called: bool[2, G, C, n].
    """
    pairs = ~np.eye(called.shape[1], dtype=bool)
    both = (called[0][:, None] & called[1][None])[pairs]
    return int(both.sum()), both.size
