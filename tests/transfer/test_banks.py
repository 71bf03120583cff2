"""Banks: taken apart and put together a model is the same, special tokens are shared, what is frozen stays."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_banks import DECODER, ENCODER, SPECIAL, batch, model, tokenizer, with_adapters
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.models.loading import load_model
from xlingjax.models.model import Model
from xlingjax.models.transformer import forward, init_params
from xlingjax.models.weights import fingerprint_params
from xlingjax.training.fitting import FitSettings, compiled_step, fit
from xlingjax.training.objectives import Objective
from xlingjax.training.optimiser import OptimiserSettings
from xlingjax.transfer.banks import (
    Banks,
    adapted,
    flatten,
    fresh_bank,
    join,
    join_params,
    load_banks,
    parted,
    save_banks,
    split,
)
from xlingjax.transfer.losses import LanguageLoss, noisy

KEY = jax.random.key(1)
MASKED, CAUSAL = Objective("masked", 4, 5), Objective("causal")
BOTH = pytest.mark.parametrize("config, objective", [(ENCODER, MASKED), (DECODER, CAUSAL)])


@BOTH
def test_a_model_taken_apart_and_joined_is_the_same(config, objective):
    whole = model(config)
    for positions in (False, True) if config.positions == "learned" else (False,):
        body, bank = split(whole, positions=positions)
        assert bank.own_positions == positions
        assert "head/bias" in flatten(bank.params) if config.head == "masked" else "head/kernel" in flatten(bank.params)
        again = join(body, bank)
        assert fingerprint_params(again.params) == fingerprint_params(whole.params) and again.config == config


@BOTH
def test_another_bank_changes_the_words_and_not_the_body(config, objective):
    body, bank = split(model(config))
    other = fresh_bank(body, tokenizer("b", 30), KEY, "b")
    banks = Banks(body, {"a": bank, "b": other})
    swapped = banks.model("b")
    assert swapped.config.vocab_size == 35 and banks.model("b") is swapped
    special = np.arange(5)
    for path, axis in (("embed/tokens/embedding", 0), ("head/kernel", 1), ("head/bias", 0)):
        rows = [np.take(np.asarray(flatten(banks.model(name).params).get(path, np.zeros((9, 9)))), special, axis)
                for name in "ab"]
        np.testing.assert_array_equal(*rows, err_msg=f"special tokens are shared: {path}")
    tokens = np.array([[0, 2, 4, 3]], np.int32)
    mask = np.ones_like(tokens, bool)
    np.testing.assert_array_equal(banks.model("a")(tokens, mask).hidden, swapped(tokens, mask).hidden)


@pytest.mark.promise
@BOTH
def test_learning_a_bank_leaves_the_body_bit_for_bit(config, objective, tmp_path):
    """P17. The bank learns, its rows of special tokens do not, and the body's bytes are those before."""
    body, _ = split(model(config))
    before = fingerprint_params(body.params)
    bank = fresh_bank(body, tokenizer("b"), KEY, "b", positions=config.positions == "learned", adapter_width=4)
    loss = LanguageLoss(dataclasses.replace(with_adapters(config), vocab_size=bank.vocabulary), objective)
    settings = FitSettings(8, OptimiserSettings(1e-2, 0, weight_decay=0.1))
    fitted = fit(loss, {"bank": bank.params}, lambda step: batch(), settings, tmp_path, about={},
                 frozen={"body": body.params})
    assert fingerprint_params(body.params) == before
    learned = dataclasses.replace(bank, params=fitted.params["bank"])
    joined = flatten(join(body, learned).params)
    for path, leaf in flatten(body.params).items():
        if not path.startswith("specials/") and path not in flatten(bank.params):
            np.testing.assert_array_equal(joined[path], leaf, err_msg=path)
    for path, leaf in flatten(bank.params).items():
        assert not np.array_equal(joined[path], leaf), f"{path} has learned"
    np.testing.assert_array_equal(joined["embed/tokens/embedding"][:5],
                                  body.params["specials"]["embed.tokens.embedding"])


def test_a_frozen_body_costs_no_gradient_of_its_weights():
    """By the compiler's own count: fewer operations, less memory, no moments."""
    config = dataclasses.replace(ENCODER, width=64, mlp_width=256, layers=4)
    body, bank = split(model(config))
    loss, settings = LanguageLoss(config, MASKED), FitSettings(8)
    rows = batch(16, 24)
    learned, rest = parted(body)
    whole = compiled_step(loss, {"bank": bank.params, "body": learned}, rows, settings, {"body": rest})
    frozen = compiled_step(loss, {"bank": bank.params}, rows, settings, {"body": body.params})
    cost = [one.cost_analysis()["flops"] for one in (whole, frozen)]
    assert cost[1] < 0.8 * cost[0], cost
    assert frozen.memory_analysis().output_size_in_bytes < 0.1 * whole.memory_analysis().output_size_in_bytes
    assert frozen.memory_analysis().temp_size_in_bytes < whole.memory_analysis().temp_size_in_bytes


@BOTH
def test_what_is_saved_is_read_back_by_load_model(config, objective, tmp_path):
    body, bank = split(model(config))
    own = config.positions == "learned"
    banks = Banks(body, {"a": bank, "other one": fresh_bank(
        body, tokenizer("b", 30), KEY, "other one", positions=own, adapter_width=3)})
    save_banks(banks, tmp_path)
    loaded = load_model(tmp_path, revision="other_one")
    assert loaded.fingerprint == banks.model("other one").fingerprint and loaded.config.adapter_width == 3
    assert loaded.encode(["b3 b29"])[0].tolist() == [[0, 8, 34, 2]]
    again = load_banks(tmp_path)
    assert list(again.banks) == ["a", "other one"] and again.banks["other one"].own_positions == own
    for name in again.banks:
        assert again.model(name).fingerprint == banks.model(name).fingerprint
    with pytest.raises(InputError, match="exists and is not empty"):
        save_banks(banks, tmp_path)
    with pytest.raises(InputError, match="holds no banks"):
        load_banks(tmp_path / "nothing")


def test_banks_of_different_bodies_are_refused(tmp_path):
    for seed, name in enumerate(("a", "b")):
        body, bank = split(model(seed=seed), name)
        save_banks(Banks(body, {name: bank}), tmp_path)
    listed = {name: {"name": name, "positions": False} for name in "ab"}
    (tmp_path / "banks.json").write_text(json.dumps(listed))
    with pytest.raises(InputError, match="different bodies; b is not"):
        load_banks(tmp_path)


def test_what_does_not_fit_is_refused_by_name():
    body, bank = split(model(), "a")
    renamed = ("<s>", "<pad>", "</s>", "<unk>", "<hole>")
    moved = tokenizer("b", special=("<s>", "</s>", "<pad>", "<unk>", "<mask>"))
    for made, message in [
        (lambda: fresh_bank(body, tokenizer("b", special=renamed), KEY, "b"), "bank 'b' has the special token"),
        (lambda: fresh_bank(body, moved, KEY, "b"), "bank 'b' has the special token '</s>' at 1, the body at 2"),
        (lambda: fresh_bank(body, tokenizer("b", 40), KEY, "b", vocabulary=20), "has 20 rows, fewer"),
        (lambda: fresh_bank(body, None, KEY, "b"), "bank 'b' has no tokenizer"),
        (lambda: fresh_bank(body, tokenizer("b"), KEY, "b", start=np.zeros((20, 8))), r"start of bank 'b' .*20, 8"),
        (lambda: split(dataclasses.replace(model(), tokenizer=None)), "has no tokenizer"),
        (lambda: split(model(DECODER), positions=True), "has alibi positions, which no bank can own"),
        (lambda: fresh_bank(split(model(DECODER))[0], tokenizer("b"), KEY, "b", positions=True), "alibi positions"),
        (lambda: Banks(body, {"a": bank}).model("c"), "there is no bank 'c'; there are a"),
    ]:
        with pytest.raises(InputError, match=message):
            made()
    wide = split(model(dataclasses.replace(ENCODER, width=32)), "wide")[1]
    with pytest.raises(InputError, match="bank 'wide' has embeddings of width 32, the body of 16"):
        join(body, wide)
    long = split(model(dataclasses.replace(ENCODER, max_length=40)), "long", positions=True)[1]
    with pytest.raises(InputError, match="bank 'long' holds embed/positions/embedding of shape"):
        join(body, long)
    deep = fresh_bank(split(model(dataclasses.replace(ENCODER, layers=3)))[0], tokenizer("b"), KEY, "deep",
                      adapter_width=2)
    with pytest.raises(InputError, match="bank 'deep' holds layers/attn_adapter"):
        join(body, deep)
    assert SPECIAL[4] in body.specials


def test_new_adapters_change_nothing_and_old_ones_are_houlsbys():
    """By hand in NumPy: x + up(gelu(down(x))) on each sublayer's output, before it is added and normed."""
    whole = model()
    body, bank = split(whole)
    rows = batch()
    plain = whole(rows["tokens"], rows["mask"]).hidden
    same = adapted(bank, body, 4)
    np.testing.assert_array_equal(join(body, same)(rows["tokens"], rows["mask"]).hidden, plain)
    params = join_params(body.params, same.params)
    params["layers"] |= {name: jax.tree.map(lambda x: x + 0.3 * jax.random.normal(KEY, x.shape), params["layers"][name])
                         for name in ("attn_adapter", "mlp_adapter")}
    sites = ("embed", "attn.out", "resid.mid", "mlp.down", "resid")
    seen = forward(params, with_adapters(ENCODER), rows["tokens"], rows["mask"], capture=sites)[1]
    from scipy.stats import norm

    def adapter(h, p):
        inner = h @ p["down"]["kernel"] + p["down"]["bias"]
        return h + (inner * norm.cdf(inner)) @ p["up"]["kernel"] + p["up"]["bias"]

    def normed(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    mask = rows["mask"]
    for layer in range(2):
        p = jax.tree.map(lambda x, layer=layer: np.asarray(x[layer], np.float64), params["layers"])
        before = np.asarray(seen["embed"][0] if layer == 0 else seen["resid"][layer - 1], np.float64)
        middle = normed(before + adapter(np.asarray(seen["attn.out"][layer], np.float64), p["attn_adapter"]),
                        p["attn_norm"])
        close(np.asarray(seen["resid.mid"][layer])[mask], middle[mask], 2e-5)
        after = normed(middle + adapter(np.asarray(seen["mlp.down"][layer], np.float64), p["mlp_adapter"]),
                       p["mlp_norm"])
        close(np.asarray(seen["resid"][layer])[mask], after[mask], 2e-5)


def test_a_bare_first_token_has_neither_position_nor_segment():
    params = init_params(ENCODER, KEY)
    params["embed"]["norm"] = {"scale": jnp.ones(16), "bias": jnp.zeros(16)}
    tokens, mask = np.array([[1, 0, 7, 7]], np.int32), np.array([[False, True, True, True]])
    read = lambda bare: np.asarray(forward(
        params, dataclasses.replace(ENCODER, bare_first=bare), tokens, mask, capture=("embed",))[1]["embed"][0, 0])
    first = np.asarray(params["embed"]["tokens"]["embedding"][0], np.float64)
    first = first - first.mean()
    close(read(True)[1], first / np.sqrt((first**2).mean() + 1e-5), 1e-5)
    assert not np.allclose(read(False)[1], read(True)[1])
    np.testing.assert_array_equal(read(True)[2:], read(False)[2:])


def test_noise_is_on_every_tokens_own_embedding():
    whole, rows = model(), batch(64, 24)
    params, tokens = noisy(whole.params, rows["tokens"], 0.075, KEY)
    table = np.asarray(whole.params["embed"]["tokens"]["embedding"])
    added = np.asarray(params["embed"]["tokens"]["embedding"])[tokens] - table[rows["tokens"]]
    assert abs(added.std() - 0.075) < 0.002 and abs(added.mean()) < 0.002
    flat = added.reshape(-1, 16)
    assert abs(np.corrcoef(flat[0::2].ravel(), flat[1::2].ravel())[0, 1]) < 0.05, "no two tokens have the same noise"
    assert isinstance(whole, Model)
