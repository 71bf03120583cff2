"""Sparse probing and absorption on planted latents, whose truth is known."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.probing import ProbingSettings, _probe, _split, feature_absorption, sparse_probing

WIDTH, NAMES, EACH, DOCUMENTS = 40, ("eng", "swh", "zho"), 900, 90
RNG = np.random.default_rng(0)
ROWS = np.linalg.qr(RNG.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
CENTRE = np.float32(RNG.standard_normal(WIDTH))


def orthonormal() -> Dictionary:
    """A latent for each of 40 directions at right angles: it finds again what is planted."""
    params = {"encoder": {"kernel": ROWS.T, "bias": np.full(WIDTH, -0.1, np.float32)},
              "decoder": {"kernel": ROWS, "bias": CENTRE}}
    return Dictionary(params, DictionaryConfig("relu", WIDTH, WIDTH), "resid", 0)


LANGUAGE = np.repeat(NAMES, EACH)
PLACE = np.tile(np.arange(EACH), len(NAMES))
DOCUMENT = PLACE * DOCUMENTS // EACH  # parallel: a document lies in all languages
LABEL = (RNG.random(EACH) < 0.3).astype(int)[PLACE]


def background() -> np.ndarray:
    """Strengths [n, 40] of latents 20 and up, which fire at random, and of no other."""
    strength = np.zeros((len(LABEL), WIDTH))
    strength[:, 20:] = (RNG.random((len(LABEL), 20)) < 0.3) * RNG.uniform(1, 3, (len(LABEL), 20))
    return strength


def states(strength: np.ndarray) -> np.ndarray:
    return (strength @ ROWS + CENTRE + 0.01 * RNG.standard_normal((len(strength), WIDTH))).astype(np.float32)


def probe(strength: np.ndarray, label: np.ndarray = LABEL, **settings):
    return sparse_probing(orthonormal(), states(strength), label, LANGUAGE, DOCUMENT,
                          ProbingSettings(**{"ks": (1, 2, 5), "draws": 3} | settings))


@pytest.fixture(scope="module")
def shared():
    """Latent 3 shows the concept in English and Swahili, latent 5 in Chinese; latent 4 does so weakly everywhere."""
    strength = background()
    strength[:, 3] = 2 * LABEL * (LANGUAGE != "zho")
    strength[:, 5] = 2 * LABEL * (LANGUAGE == "zho")
    strength[:, 4] = (RNG.random(len(LABEL)) < np.where(LABEL, 0.8, 0.2)) * 1.0
    return probe(strength)


@pytest.mark.promise
def test_the_planted_latents_are_chosen_and_carry_over_where_they_are_shared(shared) -> None:
    assert shared.latents.values[:, 0].tolist() == [3, 3, 5] and shared.latents.values[:, 1].tolist() == [4, 4, 4]
    one = shared.accuracy.sel(k=1)
    same = one.sel(language=["eng", "swh"], language_b=["eng", "swh"])
    close(same, np.ones((2, 2)), 1e-9)
    assert one.sel(language="zho", language_b="zho") == 1
    for a, b in (("eng", "zho"), ("swh", "zho"), ("zho", "eng"), ("zho", "swh")):
        assert one.sel(language=a, language_b=b) == 0.5, "silent latents say the same of every token"
    assert (shared.accuracy.sel(k=5) >= 0.5).all()
    close(shared.difference.values[:, 0], [1.9] * 3, 0.03)


def test_what_stands_beside_it(shared) -> None:
    diagonal = [shared.dense.sel(language=name, language_b=name) for name in NAMES]
    close(diagonal, np.ones(3), 0.01)
    random = shared.random.sel(k=1).values
    assert (np.abs(random - 0.5) < 0.12).all() and shared.chance == 0.5
    assert shared.tested.values.tolist() == [270] * 3


@pytest.mark.promise
@pytest.mark.slow
def test_labels_without_a_latent_and_latents_of_documents_are_chance() -> None:
    few = DOCUMENT * 18 // DOCUMENTS  # documents, each with a latent and a label of its own, as topics have them
    label = np.random.default_rng(4).permutation(np.arange(18) % 2)[few]
    strength = 0 * background()
    strength[np.arange(len(few)), 20 + few] = 2
    given = dict(dictionary=orthonormal(), states=states(strength), labels=label, languages=LANGUAGE)
    found = sparse_probing(**given, documents=few, settings=ProbingSettings(ks=(1, 5, 20), draws=2))
    assert (np.abs(found.accuracy - 0.5) < 0.1).all() and (np.abs(found.dense - 0.5) < 0.15).all()
    leaking = sparse_probing(**given, documents=np.arange(len(few)), settings=ProbingSettings(ks=(20,), draws=1))
    assert (leaking.dense > 0.95).all() and (leaking.accuracy > 0.95).all(), "tokens of a document on both sides"


def test_probes_are_scikit_learns_balanced_ones(shared) -> None:
    strength = background()
    strength[:, 6] = (RNG.random(len(LABEL)) < np.where(LABEL, 0.7, 0.3)) * RNG.uniform(0.5, 3, len(LABEL))
    x = states(strength)
    parts = _split(orthonormal(), x, LABEL, LANGUAGE, DOCUMENT, ProbingSettings())
    kernel, bias = _probe(parts, 1, x[None, :, :8], 2.0)
    rows = parts.rows(1, False)
    scaled = (x[rows, :8] - x[rows, :8].mean(0)) / x[rows, :8].std(0)
    reference = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-10, max_iter=5000).fit(scaled, LABEL[rows])
    ours = x[rows, :8] @ (kernel[0, :, 1] - kernel[0, :, 0]) + bias[0, 1] - bias[0, 0]
    close(ours, reference.decision_function(scaled), 2e-3)


SILENT = 0.25


@pytest.fixture(scope="module")
def absorbed():
    """In a quarter of the Swahili tokens latent 7 stands for the concept in place of latent 3; in a quarter of the
    Chinese ones ten latents do, each a little."""
    rng = np.random.default_rng(7)
    strength = background()
    strength[:, 3] = 2.0 * LABEL
    silent = (rng.random(len(LABEL)) < SILENT) & (LABEL == 1)
    swahili, chinese = silent & (LANGUAGE == "swh"), silent & (LANGUAGE == "zho")
    strength[swahili | chinese, 3] = 0
    strength[swahili, 7] = 2.0
    strength[np.ix_(chinese, range(8, 18))] = 1.0
    found = feature_absorption(orthonormal(), states(strength), LABEL, LANGUAGE, DOCUMENT, ProbingSettings())
    parts = _split(orthonormal(), states(strength), LABEL, LANGUAGE, DOCUMENT, ProbingSettings())
    share = [silent[rows][LABEL[rows] == 1].mean() for rows in (parts.rows(1, True), parts.rows(2, True))]
    return found, share


@pytest.mark.promise
def test_planted_absorption_is_found_and_nothing_else(absorbed) -> None:
    found, (swahili, chinese) = absorbed
    assert found.main.values[:, 0].tolist() == [3, 3, 3] and (found.probe_accuracy > 0.99).all()
    for a in NAMES:
        row = found.sel(language=a)
        assert row.missed.sel(language_b="eng") == 0 and row.absorbed.sel(language_b="eng") == 0
        close(row.missed.sel(language_b="swh"), swahili, 0.02)
        close(row.absorbed.sel(language_b="swh"), swahili, 0.02)
        close(row.missed.sel(language_b="zho"), chinese, 0.02)
        assert row.absorbed.sel(language_b="zho") < 0.02, "no single latent accounts for it"
        assert row.absorber.sel(language_b="swh") == 7 and row.absorber_share.sel(language_b="swh") == 1
        assert row.absorber.sel(language_b="eng") == -1 and np.isnan(row.absorber_share.sel(language_b="eng"))
        assert row.control.sel(language_b="swh") < 0.6 * swahili


def test_two_main_latents_absorb_nothing(absorbed) -> None:
    rng = np.random.default_rng(7)
    strength = background()
    half = rng.random(len(LABEL)) < 0.5
    strength[:, 3], strength[:, 7] = 2.0 * LABEL * half, 2.0 * LABEL * ~half
    x = states(strength)
    one, two = (feature_absorption(orthonormal(), x, LABEL, LANGUAGE, DOCUMENT, ProbingSettings(main=main))
                for main in (1, 2))
    assert (one.absorbed > 0.35).all() and (two.absorbed == 0).all() and (two.missed == 0).all()
    assert sorted(two.main.values[0].tolist()) == [3, 7]


@pytest.mark.parametrize("change, said", [
    ({"labels": LABEL + 1}, r"labels are \[1, 2\]; give 1"),
    ({"labels": LABEL[:5]}, "do not fit"),
    ({"states": np.zeros((len(LABEL), 3), np.float32)}, r"give \[n, 40\]"),
    ({"states": np.full((len(LABEL), WIDTH), np.nan, np.float32)}, "2700 of 2700 states are NaN"),
    ({"labels": LABEL * (LANGUAGE != "zho")}, "language zho has not both kinds of tokens"),
    ({"documents": np.zeros(len(LABEL), int)}, "2 parts need as many"),
])
def test_what_does_not_fit_is_named(change, said) -> None:
    given = {"states": states(background()), "labels": LABEL, "languages": LANGUAGE, "documents": DOCUMENT} | change
    for measure in (sparse_probing, feature_absorption):
        with pytest.raises(InputError, match=said):
            measure(orthonormal(), **given)


def test_settings_are_checked() -> None:
    for wrong, said in (({"ks": ()}, "ks are"), ({"ks": (0,)}, "ks are"), ({"held_out": 1.0}, "held_out is 1.0"),
                        ({"main": 0}, "main is 0"), ({"draws": 0}, "draws is 0")):
        with pytest.raises(InputError, match=said):
            ProbingSettings(**wrong)
    with pytest.raises(InputError, match="the dictionary has 40 latents"):
        probe(background(), ks=(41,))
    transcoder = dataclasses.replace(orthonormal(), target=("mlp.down", 0))
    with pytest.raises(InputError, match="writes where it reads"):
        feature_absorption(transcoder, states(background()), LABEL, LANGUAGE, DOCUMENT)
