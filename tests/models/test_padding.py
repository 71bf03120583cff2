"""P2: batching and padding never change a number, and nothing under the mask leaks out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import BATCHING, close

from experiments import _parity_oracle as parity_reference
from experiments._parity_cases import CASES
from xlingjax.errors import InputError
from xlingjax.models import Edit, Model, forward, unembed
from xlingjax.models.taps import REDUCTIONS, site_shapes

LENGTHS = (1, 9, 4, 4)


@pytest.fixture(scope="module", params=[CASES[0], CASES[3], CASES[5]], ids=str)
def model(request):
    config, params = parity_reference.our_params(parity_reference.build(request.param), "float32")
    return Model(params, config, name=request.param.name)


def _sentences(model):
    rng = np.random.default_rng(1)
    return [rng.integers(2, model.config.vocab_size, n) for n in LENGTHS]


def _pad(sentences, side, extra=0, filler=0):
    length = max(map(len, sentences)) + extra
    tokens = np.full((len(sentences), length), filler)
    mask = np.zeros(tokens.shape, bool)
    for row, sentence in enumerate(sentences):
        start = {"left": length - len(sentence), "right": 0, "both": (length - len(sentence)) // 2}[
            side
        ]
        tokens[row, start : start + len(sentence)] = sentence
        mask[row, start : start + len(sentence)] = True
    return tokens, mask


REAL = [how for how in REDUCTIONS if how != "argmax"]


def _all_reductions(h, where):
    """One program for all of them; the reductions themselves are those that users name."""
    return {"tokens": h} | {how: REDUCTIONS[how](h, where) for how in REAL}


def _everything(model, tokens, mask, params=None):
    """Every site but the pattern, token by token and reduced, and the logits."""
    sites = [site for site in model.sites if site != "attn.pattern"]
    pooled = ("embed", "mlp.up", "resid")
    model = Model(params or model.params, model.config)
    capture = dict.fromkeys(sites) | dict.fromkeys(pooled, _all_reductions)
    out = model(tokens, mask, capture=capture)
    seen = out.captured | {site: out.captured[site]["tokens"] for site in pooled}
    reduced = {how: {site: out.captured[site][how] for site in pooled} for how in REAL}
    return seen | {"logits": out.logits()[None]}, reduced


@pytest.fixture(scope="module")
def alone(model):
    """Every sentence in a batch of its own, without padding."""
    return [_everything(model, s[None], np.ones((1, len(s)), bool)) for s in _sentences(model)]


@pytest.mark.promise
@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("extra, filler", [(0, 10**6), (5, -1)])
def test_a_sentence_in_any_batch_is_the_sentence_alone(model, alone, side, extra, filler):
    tokens, mask = _pad(_sentences(model), side, extra, filler)
    tokens_seen, reductions = _everything(model, tokens, mask)
    for row, (own_tokens, own_reductions) in enumerate(alone):
        for site, own in own_tokens.items():
            close(tokens_seen[site][:, row][:, mask[row]], own[:, 0], BATCHING, f"{site} {row}")
        for how, own_sites in own_reductions.items():
            for site, own in own_sites.items():
                scale = max(1.0, float(np.abs(own).max()))  # sums grow with the sentence
                ours = np.asarray(reductions[how][site])[:, row] / scale
                close(ours, own[:, 0] / scale, BATCHING, f"{site} {how} {row}")


@pytest.mark.promise
def test_pattern_gives_nothing_to_padding(model):
    tokens, mask = _pad(_sentences(model), "left", extra=2)
    pattern = np.asarray(model(tokens, mask, capture=("attn.pattern",)).captured["attn.pattern"])
    real = np.moveaxis(pattern, 3, 2)[:, mask]  # [L, real queries, H, keys]
    keys = np.broadcast_to(mask[:, None], (*mask.shape, mask.shape[1]))[mask]
    assert (real[np.broadcast_to(~keys[None, :, None], real.shape)] == 0).all()
    close(real.sum(axis=-1), np.ones(real.shape[:-1]), 1e-5)


def _poison(params, row, also_positions):
    """NaN in the embedding of one token, and where learned in the positions no token takes."""
    tables = params["embed"]
    tables = tables | {"tokens": {"embedding": tables["tokens"]["embedding"].at[row].set(jnp.nan)}}
    if also_positions and "positions" in tables:
        rows = tables["positions"]["embedding"].at[:2].set(jnp.nan)
        tables = tables | {"positions": {"embedding": rows}}
    return dict(params) | {"embed": tables}


@pytest.mark.promise
@pytest.mark.parametrize("filler", [0, 1])
def test_nan_in_the_padding_embedding_never_leaks(model, filler):
    tokens, mask = _pad(_sentences(model), "left", extra=2, filler=filler)
    poisoned = _poison(model.params, filler, also_positions=True)
    poisoned = _poison(poisoned, 0, also_positions=False)
    clean, clean_reductions = _everything(model, tokens, mask)
    seen, reductions = _everything(model, tokens, mask, poisoned)
    head = {"logits"}  # a tied head scores the poisoned token itself
    for site in seen.keys() - head:
        assert np.isfinite(seen[site]).all(), site
        close(seen[site][:, mask], clean[site][:, mask], 0, site)
    for how, sites in reductions.items():
        for site, value in sites.items():
            close(value, clean_reductions[how][site], 0, f"{site} {how}")
    spoilt = [0, filler]
    others = np.delete(np.asarray(seen["logits"])[:, mask], spoilt, axis=-1)
    close(others, np.delete(np.asarray(clean["logits"])[:, mask], spoilt, axis=-1), 0)


@pytest.mark.promise
def test_gradients_stay_finite_with_nan_under_the_mask(model):
    tokens, mask = (jnp.asarray(x) for x in _pad(_sentences(model), "left", extra=2, filler=0))
    config = model.config
    pools = {"resid": "mean", "mlp.up": "max", "attn.q": "last", "mlp.act": "sum"}

    def loss(params, add):
        edits = {"mlp.up": Edit(add=add), "embed": Edit(scale=1.0 + add[:1, ..., :1])}
        hidden, captured = forward(params, config, tokens, mask, capture=pools, edits=edits)
        pooled = sum(jnp.square(x).sum() for x in jax.tree.leaves(captured))
        return jnp.where(mask[..., None], jnp.square(hidden), 0).sum() + 1e-3 * pooled

    poisoned = _poison(model.params, 0, also_positions=True)
    add = jnp.zeros((config.layers, *tokens.shape, config.mlp_width))
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    found, clean = gradient(poisoned, add), gradient(model.params, add)
    for ours, reference in zip(jax.tree.leaves(found), jax.tree.leaves(clean)):
        assert np.isfinite(ours).all()
        close(ours, reference, 0)
    assert (np.asarray(found[1])[:, ~np.asarray(mask)] == 0).all()
    assert (np.abs(np.asarray(found[1])[:, np.asarray(mask)]).max() > 0).all()


@pytest.mark.promise
def test_row_without_a_counted_token_is_nan_and_spoils_no_other(model):
    tokens, mask = _pad(_sentences(model), "right")
    where = mask.copy()
    where[1] = False
    mask[2] = False

    def pools(h, where):
        return {how: reduce(h, where) for how, reduce in REDUCTIONS.items()}

    captured = model(tokens, mask, {"mlp.up": pools}, where=where).captured["mlp.up"]
    for how, pooled in jax.tree.map(np.asarray, captured).items():
        missing = pooled == -1 if how == "argmax" else np.isnan(pooled)
        assert missing[:, [1, 2]].all() and not missing[:, [0, 3]].any(), how
    hidden = model(tokens, mask).hidden
    assert (
        np.isfinite(hidden).all() and np.isfinite(unembed(model.params, model.config, hidden)).all()
    )


def test_padding_never_counts_even_where_asked(model):
    tokens, mask = _pad(_sentences(model), "right")
    ours = model(tokens, mask, {"resid": "mean"}, where=np.ones_like(mask)).captured["resid"]
    close(ours, model(tokens, mask, {"resid": "mean"}).captured["resid"], 0)


@pytest.mark.parametrize(
    "tokens, mask, message",
    [
        (np.ones(3, int), None, "tokens are int64 of shape"),
        (np.ones((1, 3)), None, "tokens are float64"),
        (np.ones((0, 3), int), None, "not empty"),
        (np.full((1, 3), 10**6), None, "token 1000000 lies outside the vocabulary"),
        (np.full((1, 3), -1), None, "token -1 lies outside"),
        (np.ones((1, 3), int), np.ones((1, 4), bool), r"mask is bool of shape \(1, 4\)"),
        (np.ones((1, 3), int), np.full((1, 3), 0.5), "mask is float64"),
        (np.ones((1, 3), int), np.full((1, 3), 2), "mask is int64"),
    ],
)
def test_batch_that_cannot_be_read_is_named(model, tokens, mask, message):
    with pytest.raises(InputError, match=message):
        model(tokens, mask)


def test_sentence_beyond_the_learned_positions(model):
    if not model.config.max_length:
        pytest.skip("this model's positions have no end")
    with pytest.raises(InputError, match="521 tokens, the model 520 positions"):
        model(np.full((1, 521), 5))
    tokens = np.full((1, 600), 5)
    assert np.isfinite(model(tokens, np.arange(600)[None] < 520).hidden).all()


def test_mask_of_zeros_and_ones_and_no_mask(model):
    tokens = np.full((2, 5), 7)
    with_ones = model(tokens, np.ones((2, 5), np.int64)).hidden
    close(model(tokens).hidden, with_ones, 0)


def test_more_embedding_rows_than_vocabulary_give_no_logits(model):
    """Rows that pad the vocabulary to a mesh."""
    params = dict(model.params)
    if "kernel" in params.get("head", {}):
        pytest.skip("untied")
    rows = jnp.pad(params["embed"]["tokens"]["embedding"], ((0, 5), (0, 0)), constant_values=9.0)
    params["embed"] = params["embed"] | {"tokens": {"embedding": rows}}
    if "head" in params:
        params["head"] = params["head"] | {"bias": jnp.pad(params["head"]["bias"], (0, 5))}
    tokens = np.full((1, 4), 7)
    padded = Model(params, model.config)(tokens).logits()
    close(padded, model(tokens).logits(), 1e-6)
    assert site_shapes(model.config)["embed"] == (1, model.config.width)
