"""The bars of the planted truth in the model's world, from texts to calls."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from xlingjax.analyses.concept_experts import concept_experts
from xlingjax.analyses.experts.pieces import shared_experts
from xlingjax.analyses.planted.model import SITE, observe, plant_model
from xlingjax.analyses.planted.responses import Row, Truth, as_table, calibrated_sets, rate
from xlingjax.corpora.corpus import Corpus
from xlingjax.models import Model
from xlingjax.responses import collect


class Size(NamedTuple):
    """How large the worlds of the table are."""

    languages: int
    sentences: int
    documents: int
    mlp_width: int
    permutations: int
    worlds: int  # whose calls are counted together, and over which p-values are medians


SIZES = {"small": Size(3, 240, 60, 512, 20, 3), "full": Size(4, 480, 120, 1024, 20, 10)}
FRACTIONS = (0.0, 0.5, 1.0)
EACH = 16  # detectors for each concept and language


def plant_size(size: Size, **settings: Any) -> tuple[Model, Corpus, Truth]:
    """A world of one of the table's sizes; `settings` as for `plant_model`."""
    return plant_model(**(dict(
        languages=size.languages, sentences=size.sentences, documents=size.documents,
        mlp_width=size.mlp_width, shared=EACH // 2, specific=EACH // 2) | settings))


def model_table(
    size: Size, seed: int = 0, progress: Callable[[Iterable], Iterable] = iter,
) -> xr.Dataset:
    """Every bar of the planted truth in the model's world with what was measured.

    Returns:
        As `planted.planted_table`.
    """
    parts = (calibrated_rows, fraction_rows, call_rows, name_rows)
    return as_table([row for part in progress(parts) for row in part(size, seed)],
                    {**size._asdict(), "seed": seed})


def calibrated_rows(size: Size, seed: int = 0) -> list[Row]:
    """Precision and recall of the calibrated sets."""
    levels, bars, rows = (0.05, 0.01), (0.94, 0.99), []
    for strength in (2.5, 8.0):
        hits, called, there, names = np.zeros((4, 2), int)
        for world in range(size.worlds):
            model, corpus, truth = plant_size(size, strength=strength, seed=seed + world)
            sets = calibrated_sets(
                observe(model, corpus).world, size.permutations, levels, adjusted=False, seed=seed)
            sets = sets[:, 0]
            hits += (sets & truth.experts).sum((1, 2, 3))
            called += sets.sum((1, 2, 3))
            there += truth.experts.sum()
            names += sets[..., truth.anchors].sum((1, 2, 3))
        for i, (level, bar) in enumerate(zip(levels, bars)):
            low = bar if level == 0.05 or strength == 8 else np.nan
            rows += [rate(f"precision at FDR {level}, strength {strength}", hits[i],
                          called[i], low),
                     rate(f"recall at FDR {level}, strength {strength}", hits[i], there[i],
                          0.99 if strength == 8 else np.nan)]
        rows.append(rate(f"name neurons among the called, strength {strength}", names[0],
                         called[0], 0, 0.01))
    return rows


def fraction_rows(size: Size, seed: int = 0) -> list[Row]:
    """The shared fraction, mean over language pairs, of concepts whose words are disjoint.

    The bar is 0.05 on either side: one detector of 16 is 0.06, and at this strength the sets of
    either half should hold every detector.
    """
    rows: list[Row] = []
    for fraction in FRACTIONS:
        shared = round(fraction * EACH)
        model, corpus, _ = plant_size(
            size, shared=shared, specific=EACH - shared, loans=0, seed=seed)
        found = concept_experts(
            *observe(model, corpus).world, k=EACH, ks=(EACH,), permutations=size.permutations,
            halvings=2, name_draws=19, adjustments=("raw",), seed=seed)
        pairs = found["shared_fraction"].values[0, :, :, 0][~np.eye(size.languages, dtype=bool)]
        rows.append((f"shared fraction, planted {fraction}", float(np.mean(pairs)),
                     float(np.std(pairs)), fraction - 0.05, fraction + 0.05))
    return rows


def call_rows(size: Size, seed: int = 0) -> list[Row]:
    """What the shared experts are called, where every second concept lives in long sentences.

    Sets hold half as many neurons again as were planted, so that others come in as well.
    """
    model, corpus, truth = plant_size(size, length_link=0.7, seed=seed)
    seen = observe(model, corpus)
    experts = concept_experts(
        *seen.world, concepts=corpus.concepts, k=EACH * 3 // 2, ks=(EACH * 3 // 2,),
        permutations=8, length_permutations=2, halvings=1, name_draws=19, seed=seed)
    places = collect(model, corpus, (SITE,), "argmax", show=False)
    shown, _ = shared_experts(
        model.tokenizer, corpus, seen.tokens, seen.responses, places, experts, "planted", 10**6)
    calls: dict[str, list[str]] = {"shared": [], "loan": [], "length": [], "name": []}
    for one in shown:
        concept = corpus.concepts.index(one.concept)
        neuron = one.layer * model.config.mlp_width + one.unit
        kind = ("length" if truth.length[neuron] else "name" if truth.anchors[neuron] else
                "shared" if truth.experts[:, concept, neuron].all() else "")
        if kind == "shared" and one.concept.startswith("loan"):
            kind = "loan"
        if kind:
            calls[kind].append(one.call)
    share = lambda kind, call: (calls[kind].count(call), len(calls[kind]))
    rows = [rate("shared detectors called abstract", *share("shared", "abstract"), 0.95),
            rate("loan detectors called anchor", *share("loan", "anchor"), 0.95),
            rate("loan detectors called abstract", *share("loan", "abstract"), 0, 0.01),
            rate("length neurons called length", *share("length", "length"))]
    level, every = [0.05], np.zeros(len(corpus), int)
    for adjusted, name in ((False, "raw"), (True, "length-adjusted")):
        sets = calibrated_sets(
            seen.world, size.permutations, level, every, adjusted=adjusted, seed=seed)[0, 0]
        sets = sets[:, np.arange(len(corpus.concepts)) % 2 == 1]
        rows.append(rate(f"length neurons in the sets of long concepts, {name}",
                         sets[..., truth.length].sum(), sets[..., truth.length].size,
                         0 if adjusted else np.nan, 0.01))
    return rows


def name_rows(size: Size, seed: int = 0) -> list[Row]:
    """p of sharing where translations share names and no neuron knows a concept.

    Topics are strong (12 documents), so that halves by sentence, or labels permuted anew in each
    language, would find experts of names and call them shared.
    """
    found = []
    for world in range(size.worlds):
        model, corpus, _ = plant_size(
            size, shared=0, specific=0, loans=0, concepts=6, identity=EACH * 12, documents=12,
            names=12, name_share=0.9, clustering=0.8, prevalence=0.25, seed=seed + world)
        found.append(concept_experts(
            *observe(model, corpus).world, k=2 * EACH, ks=(2 * EACH,), permutations=19, halvings=2,
            name_draws=19, adjustments=("raw",), seed=seed))
    pair = np.triu_indices(size.languages, 1)
    p = lambda name: float(np.median([one[name].values[0, :, :, 0][pair] for one in found]))
    return [("names only, median p across halves", p("p"), np.nan, 0.1, 1.0),
            ("names only, median p in the same half", p("same_half_p"), np.nan, 0.1, 1.0)]
