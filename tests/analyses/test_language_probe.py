"""P14: language probes are honest."""

import jax
import numpy as np
import pytest
from tolerances import close

from xlingjax.analyses.language_probe import ProbeSettings, language_probe, probe_checkpoint
from xlingjax.analyses.probe_splits import sample_positions, split_documents
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError

pytestmark = pytest.mark.promise
LANGUAGES, DOCUMENTS, EACH, WIDTH, OWN, COMMON = 4, 60, 6, 48, 15, 12
SETTINGS = ProbeSettings(seeds=3, bootstraps=100)


def world(kind, seed=0):
    """Parallel documents; four tokens of a language's own types to two of common ones.

    Layer 0 shows a random vector for each type, layer 1 besides what `kind` says: "signal" = the
    language, "types" = nothing, "noise" = neither type nor language.
    """
    rng = np.random.default_rng(seed)
    language = np.tile(np.repeat(np.arange(LANGUAGES), EACH), DOCUMENTS)
    documents = np.repeat(np.arange(DOCUMENTS), LANGUAGES * EACH)
    own = OWN * language + rng.integers(0, OWN, len(language))
    common = OWN * LANGUAGES + rng.integers(0, COMMON, len(language))
    types = np.where(np.tile(np.arange(EACH) < 4, LANGUAGES * DOCUMENTS), own, common)
    embedding = rng.standard_normal((OWN * LANGUAGES + COMMON, WIDTH))
    upper = embedding[types] + 0.3 * rng.standard_normal((len(types), WIDTH))
    if kind == "signal":
        upper += 3 * rng.standard_normal((LANGUAGES, WIDTH))[language]
    if kind == "noise":
        upper = rng.standard_normal(upper.shape)
    states = np.stack([embedding[types], upper]).astype(np.float32)
    pieces = np.where(types < OWN, "a", np.where(types < 2 * OWN, "b", "ж"))
    return states, types, documents, np.array(["eng", "deu", "rus", "bul"])[language], pieces


@pytest.fixture(scope="module")
def probes():
    out = {}
    for kind in ("signal", "types", "noise"):
        states, types, documents, languages, pieces = world(kind)
        out[kind] = language_probe(states, types, documents, languages, SETTINGS, pieces=pieces)
    return out


def test_a_planted_language_signal_is_found(probes):
    accuracy = probes["signal"]["accuracy"].sel(layer=1, subset=["all", "shared"])
    assert (accuracy > 0.95).all()
    assert probes["signal"]["log_loss_bits"].sel(layer=1) < 0.3 < probes["signal"]["entropy_bits"]
    assert (probes["signal"]["accuracy_low"].sel(layer=1, subset=["all", "shared"]) > 0.9).all()
    curve = probes["signal"]["curve"].sel(layer=1)
    assert curve.sel(size=1.0) == accuracy.sel(subset="all") and (np.diff(curve) > -0.02).all()


def test_types_alone_tell_nothing_of_unseen_and_shared_types(probes):
    for kind in ("signal", "types"):
        one = probes[kind].sel(layer=0)
        assert one["accuracy"].sel(subset="all") > 0.6
        assert one["accuracy_low"].sel(subset="shared") <= one["chance"] + 0.03
        assert abs(one["accuracy"].sel(subset="shared") - 0.25) < 0.06


def test_without_signal_accuracy_is_chance_within_its_interval(probes):
    missed = 0
    for seed in range(5):
        one = probes["noise"] if seed == 0 else language_probe(*world("noise", seed)[:4], SETTINGS)
        one = one.sel(layer=1, subset=["all", "shared"])
        inside = (one["accuracy_low"] <= one["chance"]) & (one["chance"] <= one["accuracy_high"])
        missed += int((~inside).sum())
        assert (abs(one["accuracy"] - one["chance"]) < 0.07).all() and one["log_loss_bits"] > 1.9
    assert missed <= 2  # of ten intervals that hold in 19 of 20 cases


def sparse(seed, language_signal):
    """Most types occur once or twice, so that many test types are unseen."""
    states, types, documents, languages, _ = world("types", seed)
    rng = np.random.default_rng(seed)
    types = rng.integers(0, 1500, len(types))
    embedding = rng.standard_normal((1500, WIDTH))
    language = np.unique(languages, return_inverse=True)[1]
    states = np.stack([embedding[types]] * 2).astype(np.float32)
    if language_signal:
        states += 3 * rng.standard_normal((LANGUAGES, WIDTH))[language].astype(np.float32)
    return states, types, documents, languages


def test_the_control_task_is_at_chance_on_unseen_types_only(probes):
    settings = ProbeSettings(seeds=3, bootstraps=100, l2=1e-2)
    result = language_probe(*sparse(0, True), settings)
    unseen = result["tested"].sel(subset="unseen")
    bound = 4 * np.sqrt(0.25 * 0.75 / (unseen * settings.seeds))
    assert unseen > 80 and (abs(result["control"].sel(subset="unseen") - 0.25) < bound).all()
    assert (result["accuracy"].sel(subset="unseen") > 0.95).all()
    # With few types the control is solved: it shows what a probe can learn by heart.
    assert (probes["types"]["control_seen"] > 0.5).all() and (
        probes["types"]["control_seen"] > result["control"].sel(subset="unseen") + 0.2).all()


def test_baselines_without_a_model(probes):
    one = probes["types"]
    # 4 of 6 tokens are of the language's own types; the common ones are a guess among four.
    assert abs(one["lookup"].sel(subset="all") - (4 / 6 + 2 / 6 / 4)) < 0.05
    assert abs(one["lookup"].sel(subset="shared") - 0.25) < 0.08
    assert one["script"].sel(subset="all") > 0.4 and one["chance"] == 0.25
    without = language_probe(*world("types")[:4], SETTINGS)
    assert np.isnan(without["script"]).all()


def test_confusions_add_up_and_stand_by_script(probes):
    one = probes["types"]
    close(one["confusion"].sum("predicted"), np.ones((2, LANGUAGES)), 1e-9)
    wrong = one["confused_within_script"] + one["confused_across_scripts"]
    close(1 - wrong, one["accuracy"].sel(subset="all"), 1e-6)
    assert (one["confused_across_scripts"] > 0).all() and (one["confused_within_script"] > 0).all()


def test_probes_have_converged(probes):
    assert max(float(one["gradient"].max()) for one in probes.values()) < 1e-4


def test_reproducible_by_seed(probes):
    states, types, documents, languages, pieces = world("types")
    again = language_probe(states, types, documents, languages, SETTINGS, pieces=pieces)
    assert again.identical(probes["types"])
    other = language_probe(states, types, documents, languages, SETTINGS, seed=1, pieces=pieces)
    assert not np.array_equal(other["accuracy"], again["accuracy"])


def test_a_layer_that_is_not_finite_is_left_out():
    states, types, documents, languages, _ = world("signal")
    states[1, 5, 3] = np.nan
    result = language_probe(states, types, documents, languages, SETTINGS)
    left_out = np.isnan(result["accuracy"].sel(subset=["all", "shared"])).all("subset")
    assert left_out.values.tolist() == [False, True]


@pytest.mark.parametrize("seed", range(5))
def test_no_document_lies_on_both_sides_and_languages_count_alike(seed):
    rng = np.random.default_rng(seed)
    documents = rng.integers(0, 40, 2000)
    language = rng.integers(0, 3, 2000) * (documents % 4 > 0)  # some documents in one language only
    split = split_documents(documents, language, 0.3, seed)
    assert not set(documents[split.train]) & set(documents[split.test])
    for side in (split.train, split.test):
        assert len(set(np.bincount(language[side]))) == 1
    assert 0.15 < len(set(documents[split.test])) / 40 < 0.45
    smaller = split.train & (split.rank < 20)
    assert np.bincount(language[smaller]).tolist() == [20, 20, 20]


def test_the_nearest_training_id_predicts_no_better_than_the_majority():
    """Labels of whole documents: in a split that tears documents apart the neighbour tells them."""
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(300), 8)
    label = (rng.random(300) < 0.6)[documents]
    language = np.tile(np.arange(2), 1200)
    hits = majority = total = 0
    for seed in range(10):
        split = split_documents(documents, language, 0.3, seed)
        train, test = np.flatnonzero(split.train), np.flatnonzero(split.test)
        after = np.searchsorted(train, test).clip(1, len(train) - 1)
        before = test - train[after - 1] < train[after] - test
        nearest = np.where(before, train[after - 1], train[after])
        hits += (label[nearest] == label[test]).sum()
        majority += max(label[test].sum(), (~label[test]).sum())
        total += len(test)
    assert hits / total < majority / total + 0.02


def test_positions_are_real_tokens_equal_in_every_language():
    rng = np.random.default_rng(0)
    ids = tuple(np.arange(rng.integers(2, 12)) for _ in range(50))
    special = tuple(np.isin(np.arange(len(one)), [0, len(one) - 1]) for one in ids)
    languages = np.array(["x", "y"])[np.arange(50) % 3 // 2]
    tokens = Tokens(ids, special)
    chosen = sample_positions(tokens, languages, 1000, 3, seed=0)
    counts = np.array([len(places) for places in chosen])
    assert counts.max() == 3 and len({counts[languages == name].sum() for name in "xy"}) == 1
    for places, one in zip(chosen, special):
        assert not one[places].any() and (np.diff(places) > 0).all()
    assert sum(map(len, sample_positions(tokens, languages, 7, 3, seed=0))) == 14
    again = sample_positions(tokens, languages, 1000, 3, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(chosen, again))
    with pytest.raises(InputError, match="language y has no real token"):
        none = Tokens(ids, tuple(np.ones(len(one), bool) for one in ids))
        sample_positions(none, np.array(["y"] * 50), 5, 3, 0)


def test_unusable_input_is_named():
    states, types, documents, languages, _ = world("types")
    with pytest.raises(InputError, match="1 language"):
        language_probe(states, types, documents, np.full(len(types), "eng"), SETTINGS)
    with pytest.raises(InputError, match="held out"):
        language_probe(states, types, np.zeros_like(documents), languages, SETTINGS)
    with pytest.raises(InputError, match="held_out is 1"):
        ProbeSettings(held_out=1.0)
    with pytest.raises(InputError, match="sizes"):
        ProbeSettings(sizes=(0.5,))


def test_a_whole_model_is_probed():
    from xlingjax.models import Model, TransformerConfig, init_params

    config = TransformerConfig(vocab_size=50, layers=2, width=16, heads=2, mlp_width=32)
    model = Model(init_params(config, jax.random.key(0)), config)
    rng = np.random.default_rng(0)
    words = [rng.integers(1, 25, 6) + 24 * (row % 2) for row in range(80)]
    ids = tuple(np.concatenate([[0], row]).astype(np.int32) for row in words)
    tokens = Tokens(ids, tuple(np.arange(7) == 0 for _ in ids))
    pairs = np.repeat(np.arange(40), 2).astype(str)
    corpus = Corpus(
        ("text",) * 80, np.array(["x", "y"] * 40), pairs, pairs, np.zeros((80, 0), np.int8))
    settings = ProbeSettings(tokens=80, seeds=2, bootstraps=20)
    result = probe_checkpoint(model, corpus, tokens, settings)
    assert result.sizes["layer"] == 3 and result["accuracy"].sel(layer=0, subset="all") > 0.55
    assert result["lookup"].sel(subset="all") > 0.8
    assert np.isnan(result["accuracy"].sel(subset="shared")).all()
