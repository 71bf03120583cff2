"""Planted truth in the kernels' world, and the mutants that must fail it."""

import numpy as np
import pytest

from xlingjax.analyses.concept_experts import concept_experts
from xlingjax.analyses.planted import responses as planted
from xlingjax.errors import InputError
from xlingjax.kernels import resampling


@pytest.mark.promise
def test_small_table_meets_its_bars_within_sampling_error():
    table = planted.planted_table(planted.SIZES["small"]).to_dataframe()
    barred = table[table.barred]
    assert len(barred) == 11
    slack = 3 * barred.sd + 0.005
    missed = barred[
        (barred.measured < barred.low - slack) | (barred.measured > barred.high + slack)]
    assert missed.empty, missed
    assert table.loc["recall at FDR 0.05, d' = 2.0", "measured"] > 0.95
    precision = table["measured"][table.index.str.contains("concepts have lengths")]
    assert precision.iloc[1] > precision.iloc[0] + 0.03 and precision.iloc[1] > 0.9  # raw, adjusted


@pytest.mark.slow
def test_full_table_meets_its_bars():
    table = planted.planted_table(planted.SIZES["full"]).to_dataframe()
    barred = table[table.barred]
    # expected precision at FDR 1 % is 0.9904 when all is right; so it is held to two sampling sds
    slack = np.where(barred.index.str.contains("FDR 0.01"), 2 * barred.sd, 0)
    missed = barred[(barred.measured < barred.low - slack) | (barred.measured > barred.high)]
    assert missed.empty, missed


def anchored(seed=0):
    """No neuron knows a concept; many know the sentence, and sentences of a document are alike."""
    return planted.plant(
        languages=2, concepts=6, sentences=240, documents=12, neurons=600, shared=0, specific=0,
        anchors=400, length_neurons=0, d_prime=0, prevalence=0.25, clustering=0.8, length_link=0,
        seed=seed)[0]


def sharing(world, seed=0):
    result = concept_experts(
        *world, k=40, ks=(40,), permutations=19, halvings=2, name_draws=19, adjustments=("raw",),
        seed=seed)
    pair = result.isel(adjustment=0, language=0, language_b=1, k=0)
    return {name: float(pair[name]) for name in ("p", "same_half_p", "overlap_mean")} | {
        "same_half": float(pair["same_half_overlap"].mean()),
        "same_half_null": float(pair["same_half_null_draws"].mean())}


def median_p(name):
    return np.median([sharing(anchored(seed), seed)[name] for seed in range(3)])


@pytest.mark.promise
def test_anchors_share_on_the_same_sentences_whatever_the_label():
    found = sharing(anchored())
    assert found["same_half"] > 4 * 40 / 600  # far above chance
    assert abs(found["same_half_null"] - found["same_half"]) < 0.15  # and the joint null knows it
    assert median_p("same_half_p") > 0.2
    assert median_p("p") > 0.2


@pytest.mark.promise
def test_mutant_independent_null_is_caught(monkeypatch):
    """Labels permuted anew in each language: anchors then pass for shared experts."""
    original = resampling.joint_permutations

    def independent(blocks, parallel, languages, draws, seed, within=None):
        source = original(blocks, parallel, languages, draws, seed, within)
        for number, name in enumerate(np.unique(languages)):
            own = original(blocks, parallel, languages, draws, seed + 1 + number, within)
            source[:, languages == name] = own[:, languages == name]
        return source

    monkeypatch.setattr(resampling, "joint_permutations", independent)
    assert median_p("same_half_p") == 0.05


@pytest.mark.promise
def test_mutant_sentence_split_is_caught(monkeypatch):
    """Halves of sentences, not documents: what a document is about lies in both, as if shared."""
    def by_sentence(blocks, languages, seed):
        _, place = np.unique(languages, return_inverse=True)
        half = np.random.default_rng(seed).permutation(np.arange(len(blocks) // 2) % 2)
        return np.concatenate([half, half])

    monkeypatch.setattr(resampling, "document_halves", by_sentence)
    assert median_p("p") <= 0.1


def test_truth_is_where_it_was_planted():
    world, truth = planted.plant(
        languages=2, concepts=2, sentences=400, documents=100, neurons=200, shared=5, specific=5,
        anchors=10, length_neurons=10, d_prime=3, prevalence=(0.1, 0.3), seed=1)
    np.testing.assert_array_equal(world.labels[:400].sum(0), [40, 120])
    first, second = world.responses[:400], world.responses[400:]
    assert truth.constant.sum() == 20 and (world.responses[:, truth.constant] == 0).all()
    correlation = lambda a, b: np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T)])
    assert correlation(first[:, truth.anchors], second[:, truth.anchors]) > 0.85
    lengths = np.tile(world.lengths[:400, None], 10)
    assert correlation(first[:, truth.length], lengths) > 0.2
    assert 0.75 < np.corrcoef(world.lengths[:400], world.lengths[400:])[0, 1] < 0.95
    for concept in range(2):
        shown = world.labels[:400, concept] == 1
        gap = first[shown].mean(0) - first[~shown].mean(0)
        assert gap[truth.experts[0, concept]].min() > 2
        assert (truth.experts[0, concept] & truth.experts[1, concept]).sum() == 5
    other = truth.experts[0, 0] & ~truth.experts[1, 0]
    assert abs(second[world.labels[400:, 0] == 1][:, other].mean()) < 0.5
    with pytest.raises(InputError, match="cannot hold"):
        planted.plant(neurons=100)
    with pytest.raises(InputError, match="equal size"):
        planted.plant(sentences=999)
