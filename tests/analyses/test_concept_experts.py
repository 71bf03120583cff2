"""Concept experts on small worlds: every measure means what its name says."""

import itertools

import numpy as np
import pytest
import sklearn.metrics
from tolerances import close

from xlingjax.analyses.concept_experts import concept_experts, default_k
from xlingjax.analyses.experts.sharing import _among
from xlingjax.analyses.planted import responses as planted
from xlingjax.errors import InputError
from xlingjax.kernels import resampling

SMALL = dict(
    languages=3, concepts=4, sentences=160, documents=40, neurons=400, shared=8, specific=8,
    anchors=0, length_neurons=10, prevalence=0.2)


@pytest.fixture(scope="module")
def world():
    return planted.plant(**SMALL, d_prime=2.5, seed=3)


@pytest.fixture(scope="module")
def dataset(world):
    strata = np.arange(400) // 100
    return concept_experts(*world[0], strata, k=16, ks=(4, 16, 32), permutations=19,
                           length_permutations=5, halvings=2, name_draws=199, bootstraps=3)


def raw(dataset, name):
    return dataset[name].sel(adjustment="raw")


def test_ap_is_scikit_learns_and_experts_are_the_planted(world, dataset):
    seen, truth = world
    for language, concept in itertools.product(range(3), range(4)):
        rows = np.flatnonzero(seen.languages == f"language {language}")
        best = raw(dataset, "expert").values[language, concept]
        for place in (0, 7, 15):
            expected = sklearn.metrics.average_precision_score(
                seen.labels[rows, concept], seen.responses[rows, best[place]])
            close(raw(dataset, "expert_ap").values[language, concept, place], expected, 2e-6)
        assert truth.experts[language, concept][best].mean() > 0.9
    close(raw(dataset, "prevalence"), np.full((3, 4), 0.2), 1e-9)
    excess = (raw(dataset, "ap_at_k") - 0.2) / 0.8
    close(raw(dataset, "excess_ap_at_k"), excess, 1e-6)
    assert (raw(dataset, "ap_at_k") > raw(dataset, "null_ap_at_k") + 0.1).all()


def test_half_is_shared_and_says_so(dataset):
    off = ~np.eye(3, dtype=bool)
    fraction = raw(dataset, "shared_fraction").sel(k=16).values
    assert np.abs(fraction[off] - 0.5).max() < 0.12
    close(np.diag(fraction), np.ones(3), 1e-9)
    assert (raw(dataset, "p").sel(k=16) == 0.05).all() and raw(dataset, "smallest_p") == 0.05
    assert np.isclose(dataset["smallest_p"].sel(adjustment="length"), 1 / 6)
    drawn = dataset["null_draws"].sel(adjustment="length").isel(language=0, language_b=1, k=0)
    assert drawn.notnull().sum() == 5
    names = raw(dataset, "name_draws")
    assert ((names[1:] >= names[0]).mean("name_draw") < 0.05).all()
    close(names[0], raw(dataset, "overlap_mean").sel(k=16), 1e-6)
    close(names[1:].mean("name_draw"), raw(dataset, "name_null"), 1e-6)
    assert (raw(dataset, "overlap_low") < raw(dataset, "overlap_high")).all()
    ceiling = raw(dataset, "ceiling").sel(k=16).mean("concept")
    assert (ceiling > 0.8).all()
    counts = raw(dataset, "breadth_neurons").mean("concept").values
    assert abs(counts[2] - 8) < 1.5 and abs(counts[0] - 24) < 6
    assert raw(dataset, "breadth_null").mean("concept").values[2] < 0.5


def test_reliability_is_high_for_shared_and_zero_for_specific(dataset):
    reliability = raw(dataset, "reliability").mean("concept").values
    own, other = np.diag(reliability).mean(), reliability[~np.eye(3, dtype=bool)].mean()
    assert abs(other / own - 0.5) < 0.1


def test_calibrated_sets_are_the_planted_ones_and_overlap_by_half(dataset):
    assert abs(raw(dataset, "calibrated").mean() - 16.5) < 1.5
    overlap = raw(dataset, "calibrated_overlap").mean("concept").values
    assert np.abs(overlap[~np.eye(3, dtype=bool)] - 0.5).max() < 0.12
    assert raw(dataset, "calibrated_half").mean() > 12


def test_chance_lines(dataset):
    alive = dataset.attrs["alive"]
    assert alive == 360 and (dataset["constant_neurons"] == 40).all()
    close(raw(dataset, "chance_uniform"), np.array([4, 16, 32]) / alive, 1e-9)
    # neurons are spread over the strata at random, so stratified chance is nearly the uniform one
    assert np.abs(raw(dataset, "chance_stratified") - 16 / alive).max() < 0.03
    shared = raw(dataset, "stratum_shared").sum("stratum") / 16
    close(shared, raw(dataset, "overlap").sel(k=16).mean("concept"), 1e-6)
    close(raw(dataset, "stratum_chance").sum("stratum") / 16,
          raw(dataset, "chance_stratified").mean("concept"), 1e-6)
    null = raw(dataset, "stratum_null_draws").sum("stratum") / 16
    close(null, raw(dataset, "null_draws").sel(k=16), 1e-6)


def test_overlap_grows_with_k_as_its_chance_does(dataset):
    null = raw(dataset, "null_draws").mean(("draw", "language", "language_b")).values
    assert (np.diff(null) > 0).all() and np.abs(null - np.array([4, 16, 32]) / 360).max() < 0.05


@pytest.mark.promise
def test_shuffled_labels_find_nothing(world):
    seen = world[0]
    order = np.random.default_rng(0).permutation(160)
    rows = np.concatenate([i * 160 + order for i in range(3)])
    shuffled = seen._replace(labels=seen.labels[rows])
    result = concept_experts(
        *shuffled, k=16, permutations=19, halvings=2, adjustments=("raw",), name_draws=19)
    assert (result["calibrated"].values <= 3).all()
    assert np.nanmin(result["p"].sel(k=16).values) > 0.05
    off = ~np.eye(3, dtype=bool)
    assert np.isnan(result["shared_fraction"].sel(k=16).values[0][off]).all()


def test_length_neurons_lead_until_length_is_matched():
    settings = SMALL | dict(sentences=400, documents=100, shared=4, specific=4, length_neurons=60)
    world, truth = planted.plant(**settings, d_prime=0, length_link=0.8, seed=1)
    result = concept_experts(*world, k=16, permutations=8, halvings=2, name_draws=19)
    linked = result["expert"].isel(concept=[1, 3])
    share = truth.length[linked.values].mean((1, 2, 3))
    assert share[0] > 0.7 and share[1] < 0.4  # by chance 60 / 360
    excess = result["covariate_ap"].sel(covariate="tokens") - result["prevalence"]
    excess = excess.isel(concept=[1, 3]).mean(("language", "concept"))
    assert excess.sel(adjustment="raw") > 0.3 and excess.sel(adjustment="length") < 0.07
    p = result["covariate_p"].sel(covariate="tokens", adjustment="raw").isel(concept=[1, 3])
    assert (p == 1 / 5).all()  # the least that 8 permutations dealt to 2 halvings can give


def test_concepts_missing_in_a_language_are_nan_and_counted(world):
    seen = world[0]
    labels = seen.labels.copy()
    labels[:160, 0] = 0
    labels[160:320, 1] = -1
    result = concept_experts(*seen._replace(labels=labels), k=16, permutations=4, halvings=2,
                             adjustments=("raw",), name_draws=19).isel(adjustment=0)
    assert not result["usable"][0, 0] and not result["usable"][1, 1]
    assert result["usable"].sum() == 10
    assert np.isnan(result["overlap"].sel(k=16)[0, :, 0]).all()
    assert np.isnan(result["overlap"].sel(k=16)[:, 1, 1]).all()
    assert not np.isnan(result["overlap"].sel(k=16)[1:, 1:, 0]).any()
    assert (result["expert"][0, 0] == -1).all()
    assert (result["positives"][:, 2] == 32).all()


def test_nothing_usable_and_wrong_shapes_are_one_sentence(world):
    seen = world[0]
    for change, message in (
            (dict(labels=np.zeros_like(seen.labels)), "no concept has positive and negative"),
            (dict(labels=seen.labels[:-1]), "labels has 479 entries for 480"),
            (dict(labels=seen.labels + 2), "1, 0 or -1"),
            (dict(responses=np.ones_like(seen.responses)), "every neuron is constant"),
            (dict(parallel=seen.parallel[:3]), "parallel has 3 entries"),
            (dict(documents=np.full(480, "one")), "2 parts need as many")):
        with pytest.raises(InputError, match=message):
            concept_experts(*seen._replace(**change), permutations=2)
    with pytest.raises(InputError, match="strata have shape"):
        concept_experts(*seen, np.zeros(3))
    with pytest.raises(InputError, match="choose among raw, length"):
        concept_experts(*seen, adjustments=("lengths",))


def test_without_parallel_ids_it_says_so(world):
    seen = world[0]
    alone = seen._replace(parallel=np.full(480, ""))
    result = concept_experts(
        *alone, k=16, permutations=4, halvings=1, adjustments=("raw",), name_draws=19)
    assert "no parallel ids" in result.attrs["permutation"]
    assert result.attrs["documents"] == 40


def test_same_seed_same_numbers_and_blocks_do_not_matter(world, monkeypatch):
    from xlingjax.analyses.experts import cells
    settings = dict(k=16, permutations=4, halvings=2, adjustments=("raw",), name_draws=19, seed=5)
    first = concept_experts(*world[0], **settings)
    monkeypatch.setattr(cells, "BLOCK_BYTES", 4 * 100 * 12)
    monkeypatch.setattr(cells, "IN_MEMORY", 0)
    second = concept_experts(*world[0], **settings)
    assert first.equals(second)
    third = concept_experts(*world[0], **(settings | dict(seed=6)))
    assert not third["overlap"].equals(first["overlap"])


def test_default_k_is_the_papers_share():
    assert default_k(221_184) == 500 and default_k(1_105_920) == 2500 and default_k(100) == 20



@pytest.mark.promise
def test_neurons_of_a_slot_are_no_neurons_of_the_words_that_fill_it():
    """Two words of a slot and two of another; in both languages 16 neurons know which slot is filled."""
    rng = np.random.default_rng(0)
    sentences, languages = 800, ("a", "b")
    word = np.repeat(rng.integers(0, 4, sentences // 4), 4)  # documents of four sentences
    labels = np.tile(word[:, None] == np.arange(4), (2, 1)).astype(np.int8)
    responses = rng.normal(size=(2 * sentences, 300)).astype(np.float32)
    responses[:, :16] += 3 * labels[:, :2].any(1)[:, None]
    responses[:, 16:32] += 3 * labels[:, 2:].any(1)[:, None]
    parallel = np.tile(np.arange(sentences).astype(str), 2)
    documents = np.tile((np.arange(sentences) // 4).astype(str), 2)
    length = rng.integers(5, 9, 2 * sentences)
    found = {
        name: concept_experts(
            responses, labels, np.repeat(languages, sentences), documents, parallel, length, length,
            kinds=kinds, k=16, ks=(16,), permutations=19, halvings=2, adjustments=("raw",),
        ).isel(adjustment=0).sel(language="a", language_b="b")
        for name, kinds in (("slots", ("x", "x", "y", "y")), ("none", None))}  # fmt: skip
    slots, none = found["slots"], found["none"]
    assert (slots["overlap"].sel(k=16) > 0.9).all() and float(slots["p"].sel(k=16)) == 0.05, "above the joint null"
    close(slots["kind_overlap"], slots["overlap"].sel(k=16).values, 0.15)
    p = lambda one: float((one["name_draws"][1:] >= one["name_draws"][0] - 1e-6).mean())
    assert p(slots) > 0.2 > p(none)
    assert (none["kind_overlap"] < 0.5).all() and none["kind"].values.tolist() == [""] * 4


def test_names_stay_within_their_kind_where_a_concept_is_not_found():
    names = resampling.name_permutations(list("nvnnv"), 40, 0)
    usable, kinds = np.array([False, True, True, True, True]), np.array(list("nvnnv"))
    order = _among(names, usable, kinds)
    assert (kinds[order] == kinds).all() and (order[:, 0] == 0).all()
    assert len(np.unique(order, axis=0)) == 4, "two orders of the nouns left, two of the verbs"


def test_kinds_are_one_a_concept(world):
    with pytest.raises(InputError, match="3 kinds for 4 concepts"):
        concept_experts(*world[0], kinds=["a", "a", "b"])
