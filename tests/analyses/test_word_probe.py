"""Probes of words: what is planted is found where it was planted, and what is not is at chance."""

import dataclasses

import numpy as np
import pytest
import tiny_trace
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from xlingjax.analyses.word_probe import WordProbeSettings, sample_words, word_probe, word_probes, word_states
from xlingjax.corpora import mini_world_words
from xlingjax.corpora.tokenising import tokenise
from xlingjax.corpora.words import read_words, word_positions
from xlingjax.errors import InputError

SETTINGS = WordProbeSettings(words=300, minimum=10, bootstraps=20, batch_tokens=2048)
LANGUAGES, SIZE, WIDTH = ("eng", "spa", "rus"), 300, 24


def planted(seed: int = 0):
    """Layer 0: noise. Layer 1: units 0 and 1 hold the class in all languages. Layer 2: in each its own units.

    Layer 3 knows the form of a word and nothing else.
    """
    rng = np.random.default_rng(seed)
    n = SIZE * len(LANGUAGES)
    language = np.repeat(LANGUAGES, SIZE)
    documents = np.tile(np.repeat(np.arange(30), SIZE // 30), len(LANGUAGES))
    number = rng.integers(0, 140, n)
    forms = np.array([f"{g}{i}" for g, i in zip(language, number)])
    labels = rng.choice(["A", "B", "C"], 140, p=[0.5, 0.3, 0.2])[number]  # the class belongs to the form
    states = rng.standard_normal((4, n, WIDTH)).astype(np.float32)
    y = np.unique(labels, return_inverse=True)[1]
    states[1, :, 0] += 4 * (y == 0)
    states[1, :, 1] += 4 * (y == 1)
    for g, name in enumerate(LANGUAGES):
        rows = language == name
        states[2, rows, 4 + 2 * g] += 4 * (y[rows] == 0)
        states[2, rows, 5 + 2 * g] += 4 * (y[rows] == 1)
    for form in np.unique(forms):
        states[3, forms == form] = 3 * rng.standard_normal(WIDTH)
    return states, labels, language, documents, forms


@pytest.fixture(scope="module")
def found():
    return word_probe(*planted(), SETTINGS)


def off_diagonal(values):
    return values[~np.eye(len(values), dtype=bool)]


def test_what_is_shared_transfers_and_what_is_each_languages_own_does_not(found) -> None:
    accuracy = found["accuracy"].transpose("layer", "language", "language_b").values
    assert np.diagonal(accuracy[1]).min() > 0.9 and off_diagonal(accuracy[1]).min() > 0.8
    assert np.diagonal(accuracy[2]).min() > 0.8 and off_diagonal(accuracy[2]).max() < 0.6
    assert np.abs(accuracy[0] - 1 / 3).max() < 0.15, "noise is at chance"
    np.testing.assert_allclose(found["chance"], 1 / 3)
    inside = (found["accuracy_low"] <= found["accuracy"]) & (found["accuracy"] <= found["accuracy_high"])
    assert float(inside.mean()) > 0.9


def test_knowing_the_form_is_told_from_knowing_the_class(found) -> None:
    of = lambda name, layer: found[name].sel(layer=layer).values
    assert of("control", 3).mean() > 0.55 > 0.5 > of("control", 1).mean(), "a control task is solved by the form alone"
    assert of("selectivity", 1).min() > 0.4 > 0.2 > of("selectivity", 3).mean()
    assert np.nanmean(of("unseen", 1)) > 0.8 and np.nanmean(of("unseen", 3)) < 0.5
    own = np.einsum("gg->g", found["accuracy"].sel(layer=3).transpose("language", "language_b").values)
    assert own.mean() > np.nanmean(of("unseen", 3)) + 0.1, "knowing a seen form is not knowing the class"
    assert float(found["lookup"].mean()) > 0.7
    assert of("compression", 1).min() > 1.8 > 1.3 > of("compression", 0).max()


def test_nested_probes_find_the_units(found) -> None:
    nested = found["nested"].transpose("layer", "language", "units")
    assert float(nested.sel(layer=1, units=2).min()) > 0.9 > float(nested.sel(layer=1, units=1).max())
    shared = found["units_shared"].transpose("layer", "language", "language_b").values
    assert np.diagonal(shared[1]).min() == 1
    assert found.attrs["units_chance"] == 20 / WIDTH


def test_the_probe_is_scikit_learns() -> None:
    states, labels, language, documents, forms = planted(2)
    states[:, :, 5] *= 7
    ours = word_probe(states, labels, language, documents, forms, SETTINGS)
    from xlingjax.kernels.resampling import document_parts

    part = document_parts(documents, language, (7, 3), 0)
    x = (states - states.mean(1, keepdims=True)) / states.std(1, keepdims=True)
    for name in ("eng", "rus"):
        train, test = ((language == name) & (part == which) for which in (0, 1))
        size = min(((language == g) & (part == 0)).sum() for g in LANGUAGES)
        assert train.sum() == size, "nothing is left out here, so that the order does not matter"
        peer = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8).fit(x[1][train], labels[train])
        wanted = balanced_accuracy_score(labels[test], peer.predict(x[1][test]))
        assert float(ours["accuracy"].sel(layer=1, language=name, language_b=name)) == pytest.approx(wanted, abs=0.01)
        assert float(ours["lookup"].sel(language=name)) > 0.7
        assert float(ours["majority"].sel(language=name)) == pytest.approx(1 / 3)


def test_a_broken_layer_is_nan_and_the_others_are_not(found) -> None:
    states, *rest = planted()
    states[0, 3, 2] = np.nan
    broken = word_probe(states, *rest, SETTINGS)
    assert np.isnan(broken["accuracy"].sel(layer=0)).all()
    np.testing.assert_allclose(broken["accuracy"].sel(layer=1), found["accuracy"].sel(layer=1), atol=1e-6)


def test_words_are_drawn_alike_in_every_language() -> None:
    labels = np.array(["A", "B", ""] * 200 + ["A"] * 100)
    language = np.array(["eng"] * 300 + ["spa"] * 300 + ["deu"] * 100)
    chosen = sample_words(labels, language, np.ones(700, bool), SETTINGS, 0)
    assert {name: int((language[chosen] == name).sum()) for name in ("eng", "spa", "deu")} == {
        "eng": 200, "spa": 200, "deu": 0}
    assert (labels[chosen] != "").all()
    with pytest.raises(InputError, match="1 languages have two classes"):
        sample_words(labels, language, language == "eng", SETTINGS, 0)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tiny_trace.treebanks(tmp_path_factory.mktemp("bank"), tiny_trace.corpus())
    return read_words(folder, ["upos"])


def test_a_models_words(bank) -> None:
    """Vectors are those of a full forward pass, first token or mean of tokens; an untrained model knows long words."""
    model = tiny_trace.model()
    tokens = tokenise(model.tokenizer, bank.texts, 64)
    places = word_positions(model.tokenizer, bank, tokens)
    words = np.flatnonzero(places[:, 0] >= 0)[[0, 5, 17, 60]]
    for align in ("first", "mean"):
        settings = dataclasses.replace(SETTINGS, align=align)
        states = word_states(model, tokens, bank, places, words, settings)
        for i, word in enumerate(words):
            ids = tokens.ids[bank.row[word]][None]
            out = model(ids, np.ones(ids.shape, bool), capture=("resid",))
            first, last = places[word]
            every = np.asarray(out.captured["resid"])[:, 0, first:last + 1]
            wanted = every[:, 0] if align == "first" else every.mean(1)
            np.testing.assert_allclose(states[1:, i], wanted, atol=1e-5)
    found = word_probes(model, bank, SETTINGS)["upos"]
    assert found.sizes["layer"] == 3 and found.attrs["task"] == "upos"
    assert float(found["accuracy"].sel(layer=0, language="eng", language_b="eng")) > 0.6


@pytest.mark.parametrize(("settings", "said"), [
    ({"align": "last"}, "align 'last'"), ({"words": 5}, "words is 5"), ({"held_out": 0.0}, "held_out is 0")])
def test_settings_that_cannot_be(settings, said) -> None:
    with pytest.raises(InputError, match=said):
        dataclasses.replace(SETTINGS, **settings)


@pytest.mark.slow
def test_the_words_of_the_embedded_corpus() -> None:
    """Its treebank is probed as any other; what every language says in one way only cannot be."""
    model = tiny_trace.model()
    treebank = mini_world_words(sentences=100, languages=tiny_trace.LANGUAGES, tasks=("upos", "Number", "order:obj"))
    asked = dataclasses.replace(treebank, labels={task: treebank.labels[task] for task in ("upos", "Number")})
    found = word_probes(model, asked, SETTINGS)
    for task in ("upos", "Number"):
        assert found[task].language.values.tolist() == list(tiny_trace.LANGUAGES)
        assert float(found[task]["lookup"].min()) > 0.55, "word forms tell"
    accuracy = found["upos"]["accuracy"].transpose("layer", "language", "language_b").values
    assert np.diagonal(accuracy[0]).min() > float(found["upos"]["chance"].max()) + 0.15
    with pytest.raises(InputError, match="0 languages have two classes"):
        word_probes(model, dataclasses.replace(treebank, labels={"order:obj": treebank.labels["order:obj"]}), SETTINGS)
