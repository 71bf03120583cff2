"""The sharing ladder: how much of what two languages share survives as explanations are taken away.

Rungs (METHOD section 1 B, point 8): token-identity detectors as a pseudo-model; the untrained model;
the trained model; the trained model on positives without anchors; the trained model with anchors left
in the context but out of the pooling. Each rung is the same analysis with the same seed, so that the
numbers can be laid side by side. Sharing is called abstract where the last two stand above both nulls,
jointly permuted labels and permuted concept names.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xlingjax.analyses.concept_experts import concept_experts
from xlingjax.corpora.anchors import (
    concept_anchors,
    shared_pieces,
    token_detectors,
    without_pieces,
    wordless,
)
from xlingjax.corpora.batching import counted
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, pieces
from xlingjax.errors import InputError
from xlingjax.responses.collecting import collect

RUNGS = {
    "tokens": "detectors of single tokens, no model",
    "untrained": "the model before training",
    "trained": "the trained model",
    "no anchor sentences": "trained; positives that hold a shared piece favouring the concept are left out",
    "anchors not pooled": "trained; shared pieces stay in the context but are left out of the pooling",
}
FEW = 4  # draws of the null where every concept leaves out other sentences
KEPT = ("overlap_mean", "null_overlap", "null_overlap_sd", "p", "shared_fraction")
KEPT_AS = ("overlap", *KEPT[1:], "name_null", "name_null_sd")  # what a rung holds


def expert_inputs(corpus: Corpus, tokens: Tokens) -> dict[str, Any]:
    """The arguments of `concept_experts` that a corpus and its tokens give."""
    return {
        "labels": corpus.labels, "languages": corpus.languages, "documents": corpus.documents,
        "parallel": corpus.parallel, "lengths": tokens.real_lengths,
        "characters": np.array([len(text) for text in corpus.texts]), "concepts": corpus.concepts,
        "kinds": corpus.kinds or None}


def rung(dataset: xr.Dataset) -> xr.Dataset:
    """What the ladder keeps of a `concept_experts` dataset: pairs at the default k, raw experts."""
    one = dataset.sel(adjustment="raw", k=dataset.attrs["k"], drop=True)
    chosen, of_names = one[list(KEPT)], one["name_draws"].isel(name_draw=slice(1, None))
    return chosen.rename(overlap_mean="overlap").assign(
        name_null=of_names.mean("name_draw"), name_null_sd=of_names.std("name_draw", ddof=1),
        positives_left=xr.full_like(chosen["p"], 1.0).where(chosen["p"].notnull()))


def token_rung(corpus: Corpus, tokens: Tokens, **options: Any) -> xr.Dataset:
    """Experts among detectors of single tokens: what sharing of words alone amounts to."""
    responses, _ = token_detectors(tokens)
    return rung(concept_experts(
        responses, **expert_inputs(corpus, tokens), adjustments=("raw",), **options))


def choose_pairs(corpus: Corpus, count: int) -> list[tuple[str, str]]:
    """At most `count` language pairs, drawn so that every language is met about equally often.

    Whatever the seed of a trace, the pairs are the same: replicates can be laid side by side.
    """
    names = corpus.language_names
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1:]]
    if count >= len(pairs):
        return pairs
    rng = np.random.default_rng(0)
    met = dict.fromkeys(names, 0)
    chosen: list[tuple[str, str]] = []
    while len(chosen) < count:
        left = [pair for pair in pairs if pair not in chosen]
        order = rng.permutation(len(left))
        best = min(order, key=lambda i: max(met[left[i][0]], met[left[i][1]]) * 10
                   + met[left[i][0]] + met[left[i][1]])
        chosen.append(left[best])
        for name in left[best]:
            met[name] += 1
    return chosen


def anchor_rungs(
    model: Any, groups: Mapping[str, Corpus], tokens: Tokens, responses: Any, strata: np.ndarray,
    pairs: Iterable[tuple[str, str]], *, sites: Sequence[str] | None, pool: str, batch_tokens: int,
    **options: Any,
) -> dict[str, dict[str, xr.Dataset]]:
    """The two rungs that take anchors away, pair by pair, because what is an anchor depends on both.

    Args:
        model: the trained model.
        groups: group of concepts -> the same S sentences with the labels of these concepts.
        tokens: of the sentences.
        responses: float[S, N] of the trained model, as for `concept_experts`.
        strata: int[N].
        pairs: language pairs; all others stay NaN.
        options: of `concept_experts`.

    Returns:
        Group -> rung name -> dataset as of `rung`, with `positives_left`, the share of positive
        sentences that the first of the two rungs still counts.
    """
    out = {group: {name: _empty(corpus) for name in ("no anchor sentences", "anchors not pooled")}
           for group, corpus in groups.items()}
    options = {**options, "adjustments": ("raw",), "strata": strata}
    # Which sentences count differs by concept on the first rung, so that a labelling costs more.
    few = {"halvings": 1, "permutations": min(FEW, options["permutations"])}
    languages = next(iter(groups.values())).languages
    for a, b in pairs:
        chosen = np.flatnonzero(np.isin(languages, (a, b)))
        cut = tokens.rows(chosen)
        in_a, in_b = languages[chosen] == a, languages[chosen] == b
        shared = shared_pieces(cut.rows(in_a), cut.rows(in_b))
        worded = shared[~wordless(pieces(model.tokenizer, shared.tolist()))] if len(shared) else shared
        where = counted(cut, leave_out={a: worded, b: worded}, languages=languages[chosen])
        pooled = collect(model, cut, sites, pool, where=where, batch_tokens=batch_tokens, show=False)
        usable = pooled.pieces > 0
        own, without = _rows_of(responses, chosen), pooled.rows(usable).matrix()
        for group, corpus in groups.items():
            two = corpus.rows(chosen)
            inputs = expert_inputs(two, cut)
            labels = _without_anchored_positives(two.labels, cut, in_a, in_b)
            left = (labels == 1).sum() / max((two.labels == 1).sum(), 1)
            _place(out[group]["no anchor sentences"], a, b, float(left), own,
                   inputs | {"labels": labels}, options | few)
            _place(out[group]["anchors not pooled"], a, b, float(usable.mean()), without,
                   {name: value if name in ("concepts", "kinds") else value[usable]
                    for name, value in inputs.items()}, options)
    return out


def _empty(corpus: Corpus) -> xr.Dataset:
    names = list(corpus.language_names)
    nothing = {name: (("language", "language_b"), np.full((len(names), len(names)), np.nan))
               for name in (*KEPT_AS, "positives_left")}
    return xr.Dataset(nothing, coords={"language": names, "language_b": names})


def _without_anchored_positives(
    labels: np.ndarray, tokens: Tokens, in_a: np.ndarray, in_b: np.ndarray,
) -> np.ndarray:
    """Labels in which positives that hold an anchor of their concept no longer count."""
    out = labels.copy()
    tokens_a, tokens_b = tokens.rows(in_a), tokens.rows(in_b)
    for concept in range(labels.shape[1]):
        anchors = concept_anchors(tokens_a, labels[in_a, concept], tokens_b, labels[in_b, concept])
        held = ~without_pieces(tokens, anchors) & (labels[:, concept] == 1)
        out[held, concept] = -1
    return out


def _place(dataset: xr.Dataset, a: str, b: str, left: float, responses: Any, inputs: dict[str, Any],
           options: dict[str, Any]) -> None:
    """Writes one pair's numbers into both of its cells; NaN stays where nothing is left to analyse."""
    try:
        found = rung(concept_experts(responses, **inputs, **options))
    except InputError:
        found = None
    for x, y in ((a, b), (b, a)):
        if found is not None:
            for name in KEPT_AS:
                dataset[name].loc[x, y] = float(found[name].sel(language=x, language_b=y))
        dataset["positives_left"].loc[x, y] = left


def _rows_of(responses: Any, index: np.ndarray) -> np.ndarray:
    first, last = int(index.min()), int(index.max()) + 1
    return np.asarray(responses[first:last, :])[index - first]
