"""Taking a language's neurons away hurts that language, and random ones hurt nobody in particular."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_trace

from xlingjax.analyses.language_neurons import damage, find_language_neurons, silenced
from xlingjax.analyses.trace import trace
from xlingjax.corpora import mini_world
from xlingjax.errors import InputError
from xlingjax.neurons import Neuron
from xlingjax.report.trace_page import write_report


@pytest.fixture(scope="module")
def given():
    """A model whose first MLP has four neurons that fire on Cyrillic pieces only, and a corpus."""
    model = tiny_trace.model()
    corpus = mini_world(sentences=60, languages=tiny_trace.LANGUAGES)
    russian = tiny_trace.russian_pieces(model, corpus)
    # One direction of the stream says whether a piece is Russian; no other neuron looks at it, and these fire seldom.
    rng = np.random.default_rng(0)
    width = model.config.width
    towards = rng.standard_normal(width)
    towards = (towards - towards.mean()) / np.linalg.norm(towards - towards.mean())
    aside = np.eye(width) - np.outer(towards, towards)
    params = jax.tree.map(np.array, model.params)
    embedding = rng.standard_normal((len(russian), width)) @ aside + 3 * np.where(russian, 1.0, -1.0)[:, None] * towards
    params["embed"]["tokens"]["embedding"] = embedding.astype(np.float32)
    for name in ("up", "down"):
        params["layers"]["mlp"][name]["kernel"] *= 20
    up = params["layers"]["mlp"]["up"]
    up["kernel"][:] = np.einsum("ab,lbf->laf", aside, up["kernel"])
    up["bias"][:] = -0.5
    up["kernel"][0, :, :4] = 3 * towards[:, None]
    params["layers"]["mlp"]["down"]["kernel"][0, :4] = 2 * towards
    return dataclasses.replace(model, params=jax.tree.map(jax.numpy.asarray, params), fingerprint="planted"), corpus


def test_lape_finds_the_planted_neurons(given) -> None:
    model, corpus = given
    found, index = find_language_neurons(model, corpus, "lape", part=0.05)
    planted = {index.flat(Neuron("mlp.act", 0, unit)) for unit in range(4)}
    assert planted <= set(found["rus"].tolist()) and not planted & {*found["eng"].tolist(), *found["spa"].tolist()}


def test_both_ends_find_them_too(given) -> None:
    model, corpus = given
    found, index = find_language_neurons(model, corpus, "both_ends", ends=60)
    planted = {index.flat(Neuron("mlp.up", 0, unit)) for unit in range(4)}
    assert planted <= set(found["rus"].tolist())
    assert all(len(neurons) <= 120 for neurons in found.values())


def test_their_language_suffers_and_random_neurons_hurt_none_more(given) -> None:
    model, corpus = given
    _, index = find_language_neurons(model, corpus, "lape")
    planted = np.array([index.flat(Neuron("mlp.act", 0, unit)) for unit in range(4)])
    found = damage(model, corpus, {"rus": planted, "eng": np.empty(0, int)}, index)
    assert float(found["damage"].sel(removed="rus", language="rus").item()) > 0.05
    assert float(found["own"].sel(removed="rus")) > 3 * float(np.abs(found["own_random"].sel(removed="rus")).max())
    assert (found["damage"].sel(removed="eng") == 0).all(), "to remove nothing changes nothing"
    assert found["size"].values.tolist() == [4, 0]


def test_silencing_is_zero_at_these_neurons_alone(given) -> None:
    model, _ = given
    index = model.neurons(("mlp.act",))
    out = model([[1, 2, 3]], capture=("mlp.act",), edits=silenced(index, np.array([0, 70])))
    acted = np.asarray(out.captured["mlp.act"])
    width = model.config.mlp_width
    assert (acted[0, :, :, 0] == 0).all() and (acted[70 // width, :, :, 70 % width] == 0).all()
    assert (acted == 0).sum() <= 2 * 3 + 3, "and no others, but by chance"


def test_what_cannot_be_found_is_named(given) -> None:
    model, corpus = given
    with pytest.raises(InputError, match="method 'apes' is unknown"):
        find_language_neurons(model, corpus, "apes")
    with pytest.raises(InputError, match="neurons of one language need two"):
        find_language_neurons(model, corpus.language("eng"))


@pytest.mark.slow
@pytest.mark.promise
def test_a_trace_holds_them_at_every_checkpoint(tmp_path) -> None:
    sources = tiny_trace.checkpoints(tmp_path / "model", {"step0": tiny_trace.model(), "step8": tiny_trace.model(1)})
    settings = dataclasses.replace(
        tiny_trace.SETTINGS, probe=None, ladder_pairs=0, language_neurons="both_ends")
    tree = trace(sources, tiny_trace.corpus(), settings, tmp_path / "trace")
    found = tree["language_neurons"].to_dataset(inherit=False)
    assert found["damage"].sizes == {"checkpoint": 2, "removed": 3, "language": 3}
    assert np.isfinite(found["own"]).all() and found.attrs["method"] == "both_ends"
    page = write_report(tree, tmp_path / "page").read_text(encoding="utf-8")
    assert "Neurons of one language" in page and (tmp_path / "page" / "damage_01.png").exists()
    with pytest.raises(InputError, match="language_neurons 'LAPE' is unknown"):
        dataclasses.replace(settings, language_neurons="LAPE")
