"""What is forced, and what is forced beside it so that the difference means something.

A condition is a set of neurons with a value each. The controls: nothing (an edit that reaches no neuron),
nothing at the temperature that makes the texts as unlikely as the forced ones, random neurons with the same number in
every layer and site whose displacement is scaled to the experts', experts of another concept, experts that two
languages share and those of one alone, and other numbers k with random neurons of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from xlingjax.analyses.concept_experts import default_k
from xlingjax.analyses.experts.cells import read
from xlingjax.analyses.steering.settings import SteerSettings
from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.kernels.experts import expert_sets
from xlingjax.kernels.ranking import average_precision
from xlingjax.kernels.resampling import random_like
from xlingjax.models import Edit
from xlingjax.neurons import NeuronIndex

UNFORCED, EXPERTS, RANDOM = "unforced", "experts", "random neurons"
AS_PERPLEXED = "unforced, as perplexed"
ROLES = {"unforced": UNFORCED, "experts": EXPERTS, "random": RANDOM, "as_perplexed": AS_PERPLEXED}
CONTROLS = (UNFORCED, RANDOM, AS_PERPLEXED)  # what an effect of the experts must exceed, each of them
DOSES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class Condition(NamedTuple):
    """Neurons, flat indices, and for each what its value becomes.

    `value` is what it is set to; with `settings.value` "add" or "scale" the amount added or the factor.
    """

    neurons: Int[np.ndarray, "n"]
    value: Float[np.ndarray, "n"]


class Chosen(NamedTuple):
    """The conditions of one checkpoint, and what decided them."""

    conditions: dict[str, Condition]
    ap: Float[np.ndarray, "k"]  # of the forced experts, best first
    k: int
    other_language: str
    other_concept: str
    doses: dict[int, tuple[str, str]]  # k -> its condition, and that of as many random neurons

    @property
    def matched(self) -> dict[str, str]:
        """Random neurons' condition -> the one whose displacement theirs is scaled to."""
        return {random: forced for forced, random in [(EXPERTS, RANDOM), *self.doses.values()]
                if random in self.conditions}


def choose(
    responses: Any, neurons: NeuronIndex, corpus: Corpus, settings: SteerSettings,
) -> Chosen:
    """The conditions, from the responses to the documents that may find experts.

    Args:
        responses: float[S, N] of the sentences of `corpus`, in its order, or what is read like it (`Matrix`).
        corpus: labelled sentences, none of which a judge has seen.

    Raises:
        InputError: of `require_concepts`, or nothing can be an expert.
    """
    other_language, other_concept = require_concepts(corpus, settings)
    total = neurons.total
    k = default_k(total) if settings.k is None else settings.k
    doses = [size for size in settings.ks or DOSES if settings.ks or size <= total // 2]
    widest = max(k, *doses)
    rank = lambda language, concept, seed: _ranked(responses, corpus, language, concept, widest, settings.seed + seed)
    own, ap = rank(settings.source_language, settings.concept, 0)
    theirs, _ = rank(other_language, settings.concept, 1)
    instead, _ = rank(settings.source_language, other_concept, 2) if other_concept else (np.empty(0, int), None)
    value = lambda chosen, language, concept: Condition(
        chosen, _values(responses, corpus, chosen, language, concept, settings))
    here = lambda chosen: value(chosen, settings.source_language, settings.concept)
    alike = lambda chosen: here(random_like(chosen, neurons.strata, chosen, settings.seed))
    top = own[:k]
    shared = np.isin(top, theirs[:k])
    conditions = {
        UNFORCED: Condition(np.empty(0, int), np.empty(0, np.float32)),
        EXPERTS: here(top),
        RANDOM: alike(top),
        f"experts shared with {other_language}": here(top[shared]),
        f"experts of {settings.source_language} only": here(top[~shared]),
        f"experts of {other_language} only": value(
            theirs[:k][~np.isin(theirs[:k], top)], other_language, settings.concept)}
    if other_concept:
        conditions[f"experts of {other_concept}"] = value(
            instead[:k][~np.isin(instead[:k], top)], settings.source_language, other_concept)
    names = {}
    for size in doses:
        names[size] = (EXPERTS, RANDOM) if size == k else (f"{size} experts", f"{size} random neurons")
        for name, made in zip(names[size], (here, alike)):
            if name not in conditions:
                conditions[name] = made(own[:size])
    return Chosen({name: one for name, one in conditions.items() if name == UNFORCED or len(one.neurons)},
                  ap[:k], k, other_language, other_concept, names)


def require_concepts(corpus: Corpus, settings: SteerSettings) -> tuple[str, str]:
    """The other language and the other concept, "" without any, of the controls.

    Raises:
        InputError: a language or concept is not in the corpus, or a concept has no positive or no negative sentence in
            the language whose experts are wanted.
    """
    for name in (settings.source_language, *([settings.other_language] if settings.other_language else [])):
        corpus.language(name)
    corpus.with_concepts([settings.concept, *([settings.other_concept] if settings.other_concept else [])])
    others = [name for name in corpus.language_names if name != settings.source_language]
    if not others:
        raise InputError(f"corpus {corpus.name!r} has one language; which language answers needs two")
    other_language = settings.other_language or others[0]
    other_concept = settings.other_concept or _other_concept(corpus, settings.concept)
    wanted = [(settings.source_language, settings.concept), (other_language, settings.concept)]
    for language, concept in wanted + ([(settings.source_language, other_concept)] if other_concept else []):
        labels = corpus.labels[corpus.languages == language, corpus.concepts.index(concept)]
        for value, what in ((1, "positive"), (0, "negative")):
            if not (labels == value).any():
                raise InputError(
                    f"concept {concept!r} has no {what} sentence in {language} among the documents that find experts; "
                    "give more sentences")
    return other_language, other_concept


def _other_concept(corpus: Corpus, concept: str) -> str:
    """Another concept, of the same group if there is one; "" without any."""
    group = corpus.groups[corpus.concepts.index(concept)]
    alike = [name for name, of in zip(corpus.concepts, corpus.groups) if of == group and name != concept]
    return next(iter(alike or [name for name in corpus.concepts if name != concept]), "")


def _ranked(
    responses: Any, corpus: Corpus, language: str, concept: str, width: int, seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The `width` best detectors of a concept in a language, and their average precision."""
    column = corpus.labels[:, corpus.concepts.index(concept)]
    rows = np.flatnonzero((corpus.languages == language) & (column >= 0))
    positive = column[rows] == 1
    block = read(responses, rows, slice(None))
    ap = np.array(average_precision(block, positive[:, None]))[0]
    ap[(block == block[0]).all(0)] = np.nan  # a neuron that never varies detects nothing
    chosen = np.asarray(expert_sets(ap[None], width, seed))[0]
    chosen = chosen[chosen >= 0]
    if not len(chosen):
        raise InputError(f"every neuron is constant or not finite in {language}; the expert set is empty")
    return chosen, ap[chosen]


def _values(
    responses: Any, corpus: Corpus, chosen: np.ndarray, language: str, concept: str, settings: SteerSettings,
) -> np.ndarray:
    """What each neuron is forced to, from its responses to positive sentences of a language."""
    if settings.value == "zero":
        return np.zeros(len(chosen), np.float32)
    if settings.value == "scale":
        return np.full(len(chosen), settings.amount, np.float32)
    rows = np.flatnonzero(corpus.languages == language)
    own = read(responses, rows, slice(None))[:, chosen]
    if settings.value == "add":
        return (settings.amount * own.std(0)).astype(np.float32)
    shown = own[corpus.labels[rows, corpus.concepts.index(concept)] == 1]
    if settings.value == "mean":
        return shown.mean(0).astype(np.float32)
    return np.quantile(shown, 0.5 if settings.value == "median" else 0.9, axis=0).astype(np.float32)


def edits_of(
    neurons: NeuronIndex, rows: Sequence[Condition], value: str, where: np.ndarray,
) -> dict[str, Edit]:
    """Each row's condition as edits of all sites, the same fields whatever the rows are.

    Args:
        rows: the condition of each row. value: of `SteerSettings`. where: bool[1, T], edited positions.
    """
    out = {}
    for site, (layers, units) in neurons.shapes.items():
        start = neurons.starts[site]
        shape = (layers, len(rows), 1, units)
        mask = np.zeros(shape, bool)
        number = np.full(shape, 1.0 if value == "scale" else 0.0, np.float32)
        for row, one in enumerate(rows):
            inside = (one.neurons >= start) & (one.neurons < start + layers * units)
            layer, unit = np.divmod(one.neurons[inside] - start, units)
            mask[layer, row, 0, unit] = True
            number[layer, row, 0, unit] = one.value[inside]
        out[site] = (Edit(add=number, where=where) if value == "add" else Edit(scale=number, where=where)
                     if value == "scale" else Edit(value=number, mask=mask, where=where))
    return out


def scaled(condition: Condition, base: Float[np.ndarray, "n"], factor: float, value: str) -> Condition:
    """The condition with `factor` times its displacement from where its neurons are without it.

    Args:
        base: their mean without the edit, from which "median", "mean", "p90" and "zero" displace them.
    """
    if value == "add":
        return condition._replace(value=(factor * condition.value).astype(np.float32))
    if value == "scale":
        return condition._replace(value=(1 + factor * (condition.value - 1)).astype(np.float32))
    return condition._replace(value=(base + factor * (condition.value - base)).astype(np.float32))


def sizes(conditions: Mapping[str, Condition]) -> dict[str, int]:
    """Neurons of each condition."""
    return {name: len(one.neurons) for name, one in conditions.items()}
