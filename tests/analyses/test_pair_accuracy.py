"""Minimal pairs asked of a decoder: log-probabilities are torch's, and what is planted is what is found."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_trace
import torch
import transformers

from xlingjax.analyses.minimal_pairs import (
    PairScores,
    compare_pairs,
    pair_accuracy,
    pair_scores,
)
from xlingjax.analyses.reading import _losses
from xlingjax.corpora import MinimalPairs, mini_world, mini_world_pairs
from xlingjax.errors import InputError
from xlingjax.models import Edit, load_model, unembed
from xlingjax.models.taps import Splice
from xlingjax.models.transformer import normalised
from xlingjax.training.tokenizer import train_tokenizer

LANGUAGES = ("eng", "spa")


@pytest.fixture(scope="module")
def pairs():
    every = mini_world_pairs(sentences=80, languages=LANGUAGES, features=("Number", "Tense"), minimum=5)
    return every.rows(np.arange(0, len(every), 3))


def by_hand(*sentences: tuple[str, str], counts=(1, 1), documents=None, values=None) -> MinimalPairs:
    n = len(sentences)
    spans = np.zeros((n, 2), int)
    return MinimalPairs(
        tuple(a for a, _ in sentences), tuple(b for _, b in sentences), spans, spans, np.array(["eng"] * n),
        np.array(documents or [f"d{i}" for i in range(n)]), np.array(["Number"] * n), np.array(values or ["Sing"] * n),
        np.array(["verb"] * n), np.broadcast_to(np.array(counts), (n, 2)), "text")


@pytest.mark.promise
@pytest.mark.parametrize("kind", ["bloom", "gpt2"])
def test_scores_are_those_of_torch(kind, pairs, tmp_path) -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(mini_world("train", sentences=100, languages=LANGUAGES), 400)
    size = dict(vocab_size=len(tokenizer), initializer_range=0.3)
    theirs = transformers.BloomForCausalLM(transformers.BloomConfig(hidden_size=16, n_layer=2, n_head=4, **size)) if (
        kind == "bloom") else transformers.GPT2LMHeadModel(transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=4, n_positions=64, **size))
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    some = pairs.rows(np.arange(12))
    found = pair_scores(model, some, batch_tokens=128)
    for i, texts in enumerate(zip(some.right, some.wrong)):
        ids = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
        start = next(t for t in range(99) if ids[0][:t + 1] != ids[1][:t + 1])
        for side, one in enumerate(ids):
            with torch.no_grad():
                log_p = theirs.eval()(torch.tensor([one])).logits[0].double().log_softmax(-1)
            wanted = sum(float(log_p[t - 1, one[t]]) for t in range(start, len(one)))
            assert found.log_p[i, side] == pytest.approx(wanted, abs=2e-4)
            assert found.tokens[i, side] == len(one) - start
    whole = pair_scores(model, some, batch_tokens=4096)
    np.testing.assert_allclose(whole.log_p, found.log_p, atol=1e-4)


@pytest.fixture(scope="module")
def constant():
    """A state that replaces the last layer's whatever is read, and the log-probabilities it gives every token."""
    model = tiny_trace.model()
    state = jax.random.normal(jax.random.key(3), (model.config.width,)) * 4
    logits = unembed(model.params, model.config, normalised(model.params, model.config, state))
    return model, state, np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32)), np.float64)


@pytest.mark.promise
def test_what_is_planted_is_found(constant, pairs) -> None:
    """With the stream held at one state a token's probability is its own, whatever stands before it."""
    model, state, log_p = constant
    found = pair_scores(model, pairs, {"resid": Edit(value=state)})
    wanted = np.zeros((len(pairs), 2))
    eos = model.tokenizer.eos_token_id
    for i, texts in enumerate(zip(pairs.right, pairs.wrong)):
        ids = [[*model.tokenizer(text)["input_ids"], eos] for text in texts]
        start = next(t for t in range(99) if ids[0][:t + 1] != ids[1][:t + 1])
        wanted[i] = [log_p[one[start:]].sum() for one in ids]
    np.testing.assert_allclose(found.log_p, wanted, atol=2e-3)
    accuracy = pair_accuracy(pairs, found, bootstraps=50)
    for feature in ("Number", "Tense"):
        for language in LANGUAGES:
            rows = (pairs.features == feature) & (pairs.languages == language)
            cell = accuracy.sel(feature=feature, language=language)
            assert float(cell["accuracy"]) == pytest.approx((wanted[rows, 0] > wanted[rows, 1]).mean())
            assert cell["accuracy_low"] <= cell["accuracy"] <= cell["accuracy_high"]
            assert int(cell["pairs"]) == rows.sum() and int(cell["unscored"]) == 0


@pytest.mark.promise
def test_edits_are_data_and_nothing_compiles_twice(constant, pairs) -> None:
    model, state, _ = constant
    first = pair_scores(model, pairs, {"resid": Edit(value=state)})
    programs = _losses._cache_size()
    other = pair_scores(model, pairs, {"resid": Edit(value=-state)})
    pair_scores(model, pairs.rows(np.arange(len(pairs))[::-1]), {"resid": Edit(value=state * 2)})
    assert _losses._cache_size() == programs
    assert np.abs(first.difference - other.difference).max() > 0.1
    plain = pair_scores(model, pairs)
    spliced = pair_scores(model, pairs, {"resid": Splice(_same, layer=1)})
    np.testing.assert_allclose(spliced.log_p, plain.log_p, atol=1e-5)


def _same(h, params, rows):
    return h


def test_every_figure_by_hand() -> None:
    """Five pairs in three documents; one tie, one not scored."""
    pairs = by_hand(*[("a b", "a c")] * 5, documents=["x", "x", "y", "z", "z"],
                    values=["Sing", "Sing", "Sing", "Plur", "Plur"])
    counts = np.array([[5, 1], [1, 5], [2, 2], [1, 3], [1, 3]])
    pairs = dataclasses.replace(pairs, counts=counts)
    scores = PairScores(np.array([[-1.0, -2], [-3, -2], [-2, -2], [-4, -5], [np.nan] * 2]),
                        np.array([[1, 2], [1, 1], [2, 1], [4, 5], [0, 0]]))
    found = pair_accuracy(pairs, scores, bootstraps=200).isel(feature=0, language=0)
    assert float(found["accuracy"]) == (1 + 0 + 0.5 + 1) / 4 and int(found["unscored"]) == 1
    assert float(found["balanced"]) == ((1 + 0 + 0.5) / 3 + 1) / 2
    assert float(found["normalised"]) == (0.5 + 0 + 1 + 0.5) / 4, "-1 = -2/2, -1 > -2, -1 = -1"
    assert float(found["unigram"]) == (1 + 0 + 0.5 + 0) / 4 and float(found["rare_right"]) == 0.5
    assert int(found["uneven"]) == 3 and int(found["documents"]) == 3 and int(found["pairs"]) == 4
    assert 0 <= float(found["accuracy_low"]) < 0.625 < float(found["accuracy_high"]) <= 1
    none = pair_accuracy(pairs, scores, bootstraps=0).isel(feature=0, language=0)
    assert np.isnan(none["accuracy_low"]) and none["accuracy"] == found["accuracy"]
    assert pair_accuracy(pairs, scores).attrs["chance"] == 0.5


def test_changes_are_of_the_same_pairs() -> None:
    pairs = by_hand(*[("a b", "a c")] * 3, documents=["x", "y", "z"])
    score = lambda *values: PairScores(np.array([[value, 0.0] for value in values]), np.ones((3, 2), int))
    found = compare_pairs(pairs, score(1, 1, np.nan), score(-1, 3, 1)).isel(feature=0, language=0)
    assert float(found["change"]) == -0.5 and float(found["log_odds"]) == 0 and int(found["pairs"]) == 2
    assert found["change_low"] == -1 and found["change_high"] == 0
    same = compare_pairs(pairs, score(1, 1, 1), score(1, 1, 1)).isel(feature=0, language=0)
    assert float(same["change"]) == float(same["change_low"]) == float(same["change_high"]) == 0


def test_what_cannot_be_asked_is_not_scored() -> None:
    model = tiny_trace.model()
    text = "the dogs see the horse"
    ids = model.tokenizer(text)["input_ids"]
    longer = by_hand((text, text + " the"), ("the dog", "the dog"))
    open_end = pair_scores(model, longer, end=False)
    assert np.isnan(open_end.log_p).all(), "all tokens of one begin the other"
    closed = pair_scores(model, longer)
    assert not np.isnan(closed.log_p[0]).any() and closed.tokens[0].tolist() == [1, 2]
    assert np.isnan(closed.log_p[1]).all()
    short = dataclasses.replace(model, config=dataclasses.replace(model.config, max_length=len(ids)))
    cut = pair_scores(short, by_hand(("the dogs see", "the dogs sees"), (text + " today", text + " now")))
    assert not np.isnan(cut.log_p[0]).any() and np.isnan(cut.log_p[1]).all()
    accuracy = pair_accuracy(longer, open_end)
    assert np.isnan(accuracy["accuracy"]).all() and int(accuracy["unscored"][0, 0]) == 2


def test_models_that_have_no_probability_are_named(pairs) -> None:
    model = tiny_trace.model()
    with pytest.raises(InputError, match="has no tokenizer"):
        pair_scores(dataclasses.replace(model, tokenizer=None), pairs)
    with pytest.raises(InputError, match="no decoder with a head"):
        pair_scores(dataclasses.replace(model, config=dataclasses.replace(model.config, causal=False)), pairs)
    with pytest.raises(InputError, match="no minimal pairs"):
        pair_scores(model, pairs.rows(np.zeros(0, int)))
