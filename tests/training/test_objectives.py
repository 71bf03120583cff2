"""Objectives against torch's cross-entropy and hand-counted masking."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from tiny_run import DECODER, ENCODER
from tolerances import close

from xlingjax.models.loading import load_model
from xlingjax.models.transformer import forward, init_params, unembed
from xlingjax.training import objectives
from xlingjax.training.objectives import Objective, hide_tokens, row_losses

KEY = jax.random.key(0)
MASKED = Objective("masked", mask_id=4, ordinary=5)


def batch(rows=4, length=24, vocabulary=97):
    random = np.random.default_rng(0)
    tokens = random.integers(5, vocabulary, (rows, length)).astype(np.int32)
    tokens[:, ::7] = 2
    mask = np.arange(length)[None] < random.integers(5, length + 1, rows)[:, None]
    return tokens, mask


def sharp(config, scale=8.0):
    """Parameters whose logits differ between tokens as a trained model's do."""
    return jax.tree.map(lambda x: x * scale if x.ndim > 1 else x, init_params(config, KEY))


def test_causal_loss_is_torchs_over_real_targets():
    config = dataclasses.replace(DECODER, vocab_size=97)
    params, (tokens, mask) = sharp(config), batch()
    nll, count = row_losses(params, config, Objective(), tokens, mask, KEY)
    logits = unembed(params, config, forward(params, config, tokens, mask)[0])
    labels = torch.tensor(np.where(mask, tokens, -100)[:, 1:]).long()
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(np.asarray(logits))[:, :-1].flatten(0, 1), labels.flatten(), reduction="none"
    )
    close(nll, theirs.reshape(labels.shape).sum(1), 1e-4)
    np.testing.assert_array_equal(count, mask[:, 1:].sum(1))


def test_masked_loss_is_torchs_over_hidden_tokens():
    config = dataclasses.replace(ENCODER, vocab_size=97)
    params, (tokens, mask) = sharp(config, 4.0), batch()
    shown, positions, counted = hide_tokens(KEY, tokens, mask, MASKED, 97)
    nll, count = row_losses(params, config, MASKED, tokens, mask, KEY)
    labels = np.full(tokens.shape, -100)
    for row in range(len(tokens)):
        chosen = np.asarray(positions)[row][np.asarray(counted)[row]]
        labels[row, chosen] = tokens[row, chosen]
    logits = unembed(params, config, forward(params, config, shown, mask)[0])
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(np.asarray(logits)).flatten(0, 1),
        torch.tensor(labels).long().flatten(),
        reduction="none",
    )
    close(nll, theirs.reshape(labels.shape).sum(1), 1e-4)
    np.testing.assert_array_equal(count, (labels >= 0).sum(1))


@pytest.mark.parametrize(
    "config, objective, places", [(DECODER, Objective(), 23), (ENCODER, MASKED, 4)]
)
def test_chunks_change_neither_loss_nor_gradient(config, objective, places, monkeypatch):
    config = dataclasses.replace(config, vocab_size=97)
    params, (tokens, mask) = init_params(config, KEY), batch(rows=6)

    def compiled():
        def loss(params):
            nll, count = row_losses(params, config, objective, tokens, mask, KEY)
            return nll.sum() / count.sum()

        return jax.jit(jax.value_and_grad(loss)).lower(params)

    whole = compiled()
    monkeypatch.setattr(objectives, "LOGITS_AT_ONCE", 2 * places * 97)
    pieces = compiled()
    assert f"6x{places}x97xf32" in whole.as_text() and f"6x{places}x97xf32" not in pieces.as_text()
    assert f"2x{places}x97xf32" in pieces.as_text()
    outcomes = whole.compile()(params), pieces.compile()(params)
    jax.tree.map(lambda a, b: close(a, b, 1e-6), *outcomes)


def test_padding_tokens_never_count():
    config = dataclasses.replace(DECODER, vocab_size=97)
    params, (tokens, mask) = init_params(config, KEY), batch()
    other = np.where(mask, tokens, 77)
    for objective in (Objective(), MASKED):
        ours = row_losses(params, config, objective, tokens, mask, KEY)
        theirs = row_losses(params, config, objective, other, mask, KEY)
        close(ours[0], theirs[0], 1e-5)


def test_fifteen_percent_are_hidden_eighty_ten_ten():
    random = np.random.default_rng(0)
    tokens = random.integers(5, 1000, (400, 101)).astype(np.int32)
    tokens[:, 0], tokens[:, 50] = 0, 2
    mask = np.ones(tokens.shape, bool)
    mask[::2, 61:] = False
    shown, positions, counted = map(
        np.asarray, hide_tokens(KEY, jnp.asarray(tokens), jnp.asarray(mask), MASKED, 1000)
    )
    ordinary = (mask & (tokens >= 5)).sum(1)
    np.testing.assert_array_equal(counted.sum(1), np.floor(0.15 * ordinary + 0.5))
    rows = np.nonzero(counted)[0]
    places = positions[counted]
    assert len({*zip(rows.tolist(), places.tolist())}) == len(rows), "a token was chosen twice"
    assert mask[rows, places].all() and (tokens[rows, places] >= 5).all()
    untouched = np.ones(tokens.shape, bool)
    untouched[rows, places] = False
    np.testing.assert_array_equal(shown[untouched], tokens[untouched])
    new, old = shown[rows, places], tokens[rows, places]
    share = np.array([(new == 4).mean(), ((new != 4) & (new != old)).mean(), (new == old).mean()])
    np.testing.assert_allclose(share, [0.8, 0.1, 0.1], atol=4 * np.sqrt(0.16 / len(rows)))
    drawn = new[(new != 4) & (new != old)]
    assert drawn.min() >= 5 and drawn.max() < 1000 and len(set(drawn.tolist())) > 300
    everywhere = np.bincount(places, minlength=101)[1:50]
    assert everywhere.min() > 0.5 * everywhere.mean()


def test_a_row_without_ordinary_tokens_has_no_targets():
    tokens = jnp.full((2, 24), 2)
    _, count = row_losses(
        init_params(dataclasses.replace(ENCODER, vocab_size=97), KEY),
        dataclasses.replace(ENCODER, vocab_size=97),
        MASKED,
        tokens,
        tokens > 0,
        KEY,
    )
    assert count.tolist() == [0, 0]


def test_kernels_of_the_loss_pass_strict_promotion():
    config = dataclasses.replace(DECODER, vocab_size=97)
    params, (tokens, mask) = init_params(config, KEY), batch()
    with jax.numpy_dtype_promotion("strict"):
        for objective in (Objective(), MASKED):

            def loss(params, objective=objective):
                return row_losses(params, config, objective, tokens, mask, KEY)[0].sum()

            jax.jit(jax.grad(loss))(params)


def test_losses_are_hugging_faces(tmp_path):
    torch.manual_seed(0)
    tokens, mask = batch()
    real = torch.tensor(mask).long()
    ids = torch.tensor(np.where(mask, tokens, 1)).long()
    shape = dict(vocab_size=97, initializer_range=0.3)
    bloom = transformers.BloomForCausalLM(
        transformers.BloomConfig(hidden_size=16, n_layer=2, n_head=4, **shape)
    )
    encoder = transformers.XLMRobertaForMaskedLM(
        transformers.XLMRobertaConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=40,
            hidden_act="gelu",
            **shape,
        )  # fmt: skip
    )
    shown, positions, counted = map(np.asarray, hide_tokens(KEY, tokens, mask, MASKED, 97))
    masked_labels = torch.full(tokens.shape, -100)
    for row in range(len(tokens)):
        chosen = positions[row][counted[row]]
        masked_labels[row, chosen] = ids[row, chosen]
    for name, theirs, objective, given, labels in [
        ("bloom", bloom, Objective(), ids, torch.where(real > 0, ids, -100)),
        ("encoder", encoder, MASKED, torch.tensor(np.where(mask, shown, 1)).long(), masked_labels),
    ]:
        theirs.eval().save_pretrained(tmp_path / name)
        model = load_model(tmp_path / name)
        nll, count = row_losses(model.params, model.config, objective, tokens, mask, KEY)
        with torch.no_grad():
            expected = theirs(input_ids=given, attention_mask=real, labels=labels).loss
        targets = labels[:, 1:] if name == "bloom" else labels
        assert int(count.sum()) == int(targets.ne(-100).sum())
        close(nll.sum() / count.sum(), np.float32(expected), 2e-5, name)
