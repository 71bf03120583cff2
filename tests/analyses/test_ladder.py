"""The rungs without anchors: what they leave out, and that they say how much that is."""

import numpy as np
import pytest
import tiny_trace
import xarray as xr

from xlingjax.analyses.trace.ladder import KEPT, anchor_rungs, choose_pairs, rung
from xlingjax.corpora import mini_world
from xlingjax.corpora.anchors import concept_anchors, without_pieces
from xlingjax.corpora.tokenising import tokenise
from xlingjax.responses import collect


@pytest.fixture(scope="module")
def rungs():
    """A topic with loanwords in about half of its sentences on the two anchor rungs."""
    world = mini_world(sentences=160, languages=("eng", "spa"))
    corpus = world.with_concepts(["animals"])
    model = tiny_trace.model()
    tokens = tokenise(model.tokenizer, corpus.texts, 64)
    responses = collect(model, corpus)
    found = anchor_rungs(
        model, {"topic": corpus}, tokens, responses.matrix(), responses.neurons.strata, [("eng", "spa")],
        sites=None, pool="max", batch_tokens=2048, k=5, permutations=4, halvings=1)  # fmt: skip
    return corpus, tokens, found["topic"]


def test_what_is_left_is_said_and_is_what_holds_no_anchor(rungs) -> None:
    corpus, tokens, found = rungs
    parts = [np.flatnonzero(corpus.languages == name) for name in ("eng", "spa")]
    anchors = concept_anchors(
        *(x for rows in parts for x in (tokens.rows(rows), corpus.labels[rows, 0])))
    assert len(anchors), "elephants and crocodiles have one name"
    positive = corpus.labels[:, 0] == 1
    by_hand = without_pieces(tokens, anchors)[positive].mean()
    left = found["no anchor sentences"]["positives_left"]
    assert 0.3 < by_hand < 0.8
    assert np.isfinite(found["no anchor sentences"]["overlap"].sel(language="eng", language_b="spa"))
    for a, b in (("eng", "spa"), ("spa", "eng")):
        assert float(left.sel(language=a, language_b=b)) == pytest.approx(by_hand)
    assert np.isnan(left.sel(language="eng", language_b="eng")), "a pair that was not asked for"


def test_pooling_without_anchors_keeps_the_sentences(rungs) -> None:
    corpus, tokens, found = rungs
    one = found["anchors not pooled"].sel(language="eng", language_b="spa")
    assert float(one["positives_left"]) > 0.9 and np.isfinite(one["overlap"])


def test_the_chosen_pairs_meet_every_language_about_equally_often() -> None:
    corpus = mini_world(sentences=40)
    languages = corpus.language_names
    chosen = choose_pairs(corpus, len(languages))
    met = [sum(name in pair for pair in chosen) for name in languages]
    assert len(set(chosen)) == len(languages) and set(met) <= {1, 2, 3}
    assert len(choose_pairs(corpus, 10_000)) == len(languages) * (len(languages) - 1) // 2


def test_a_rung_keeps_the_null_of_permuted_names() -> None:
    """Each pair's mean and spread over the permutations, the unpermuted draw left out."""
    rng = np.random.default_rng(0)
    draws = rng.random((5, 2, 2, 2))
    pair = ("language", "language_b", "k")
    full = {name: (("adjustment", *pair), rng.random((1, 2, 2, 2))) for name in KEPT}
    dataset = xr.Dataset(
        {**full, "name_draws": (("adjustment", "name_draw", *pair), draws[None])},
        coords={"adjustment": ["raw"], "k": [5, 10]},
        attrs={"k": 10},
    )
    found = rung(dataset)
    np.testing.assert_allclose(found["name_null"], draws[1:, ..., 1].mean(0))
    np.testing.assert_allclose(found["name_null_sd"], draws[1:, ..., 1].std(0, ddof=1))
