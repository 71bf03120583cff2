"""Pairs of text: what follows does follow, what does not is from another document; the loss is the sum of two means."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_run import corpus

from xlingjax.errors import InputError
from xlingjax.models.transformer import forward, init_params
from xlingjax.training.next_sentence import PairStream
from xlingjax.training.objectives import Objective, hide_tokens, row_losses
from xlingjax.training.shapes import small_config
from xlingjax.training.streams import token_texts
from xlingjax.training.tokenizer import train_tokenizer
from xlingjax.transfer.banks import join_params, split
from xlingjax.transfer.losses import LanguageLoss

LENGTH = 12


@pytest.fixture(scope="module")
def read():
    text = corpus(languages=("lat", "cyr"))
    tokenizer = train_tokenizer(text, 400, objective="masked")
    return tokenizer, token_texts(text, tokenizer, LENGTH)


def test_half_of_the_pairs_follow_each_other(read):
    tokenizer, texts = read
    stream = PairStream(texts, 200, LENGTH, (0, 2), 1.0, 0)
    batch = stream.batch(3)
    np.testing.assert_array_equal(batch["tokens"], stream.batch(3)["tokens"])
    assert 0.4 < batch["follows"].mean() < 0.6
    half = (LENGTH - 3) // 2
    everything = {name: " ".join(map(str, text.tokens)) for name, text in texts.items()}
    for row, follows in zip(batch["tokens"], batch["follows"]):
        assert row[0] == 0 and row[1 + half] == 2 and row[2 + 2 * half] == 2
        a, b = row[1:1 + half], row[2 + half:2 + 2 * half]
        together = " ".join(map(str, [*a, *b]))
        if follows:
            assert any(f" {together} " in f" {text} " for text in everything.values())
        assert any(f" {' '.join(map(str, b))} " in f" {text} " for text in everything.values())
    assert batch["mask"].sum(1).tolist() == [3 + 2 * half] * 200


def test_too_few_documents_are_refused(read):
    tokenizer, texts = read
    with pytest.raises(InputError, match="'lat' has 0 documents of 396 tokens"):
        PairStream(texts, 2, 400, (0, 2), 1.0, 0)


def test_the_loss_is_that_of_hidden_tokens_and_of_the_pairs(read):
    tokenizer, texts = read
    config = dataclasses.replace(small_config("xlm_roberta", 1, 16, 2, 16), vocab_size=400)
    from xlingjax.models.model import Model

    body, bank = split(Model(init_params(config, jax.random.key(0)), config, tokenizer))
    head = {"kernel": jax.random.normal(jax.random.key(1), (16, 2)), "bias": np.array([0.3, -0.2], np.float32)}
    batch, key, objective = PairStream(texts, 8, LENGTH, (0, 2), 1.0, 0).batch(1), jax.random.key(2), Objective(
        "masked", 4, 5)
    total, count = jax.jit(LanguageLoss(config, objective))(
        {"bank": bank.params}, {"body": {**body.params, "next": head}}, batch, key)
    params = join_params({**body.params, "next": head}, bank.params)
    assert "next" not in params

    @jax.jit
    def apart(params, tokens, mask):
        shown, _, _ = hide_tokens(key, tokens, mask, objective, 400)
        return row_losses(params, config, objective, tokens, mask, key), forward(params, config, shown, mask)[0][:, 0]

    (nll, counts), first = apart(params, batch["tokens"], batch["mask"])
    first = np.asarray(first)
    from sklearn.metrics import log_loss

    logits = first @ np.asarray(head["kernel"]) + head["bias"]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = nll.sum() / counts.sum() + log_loss(batch["follows"], shares, labels=[0, 1])
    assert float(total / count) == pytest.approx(float(expected), abs=1e-4)
