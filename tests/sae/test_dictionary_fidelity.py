"""What a model loses by a reconstruction: the bounds that must hold, the formulas of the peers, batches, languages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tolerances import close

from xlingjax.corpora.batching import Batch
from xlingjax.errors import InputError
from xlingjax.models import Edit, Model, TransformerConfig, init_params
from xlingjax.sae import fidelity
from xlingjax.sae.coder import init_dictionary
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.fidelity import measure_in_model
from xlingjax.sae.measures import ALL

CONFIG = TransformerConfig(vocab_size=31, layers=3, width=12, heads=3, mlp_width=20)
NAMES = ["eng", "swh"]
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 31, (6, 9))
MASK = np.arange(9) < np.array([9, 4, 7, 2, 9, 1])[:, None]
WHERE = MASK & (np.arange(9) > 0)  # a special token at the front
LANGUAGE = np.array([0, 1, 1, 0, 0, 1])


@pytest.fixture(scope="module")
def model() -> Model:
    params = jax.tree.map(lambda x: 6 * x if x.ndim > 1 else x, init_params(CONFIG, jax.random.key(0)))
    return Model(params, CONFIG, name="tiny")


def batch(rows, where=WHERE, width=9) -> Batch:
    rows = np.array(rows)
    at = np.maximum(rows, 0)
    cut = lambda values: (values[at] & (rows >= 0)[:, None] if values.dtype == bool else values[at])[:, :width]
    return Batch(cut(TOKENS), cut(MASK), cut(where), rows)


WHOLE = [batch(range(6))]


def identity(width: int = 12, site: str = "resid", layer: int = 1, by: float = 1.0) -> Dictionary:
    eye = np.eye(width, dtype=np.float32)
    params = {"encoder": {"kernel": np.hstack([eye, -eye]), "bias": np.zeros(2 * width, np.float32)},
              "decoder": {"kernel": np.float32(by) * np.vstack([eye, -eye]), "bias": np.zeros(width, np.float32)}}
    return Dictionary(params, DictionaryConfig("relu", width, 2 * width), site, layer)


def random(site: str = "resid", layer: int = 1) -> Dictionary:
    config = DictionaryConfig("topk", 12, 40, k=6)
    return Dictionary(init_dictionary(config, jax.random.key(1)), config, site, layer)


@pytest.mark.promise
@pytest.mark.parametrize("site, layer, width", [("resid", 0, 12), ("resid", 2, 12), ("mlp.down", 1, 12),
                                                ("embed", 0, 12), ("mlp.act", 1, 20), ("attn.out", 2, 12)])
def test_identity_recovers_everything_and_zero_nothing(model, site, layer, width) -> None:
    found = measure_in_model(model, identity(width, site, layer), WHOLE, LANGUAGE, NAMES)
    close(found.recovered, np.ones(3), 1e-5)
    close(found.recovered_mean, np.ones(3), 1e-5)
    close(found.kl.sel(condition="replaced"), np.zeros(3), 1e-7)
    assert (found.kl.sel(condition=["zero", "mean"]) > 0).all()
    nothing = measure_in_model(model, identity(width, site, layer, by=0), WHOLE, LANGUAGE, NAMES)
    close(nothing.recovered, np.zeros(3), 1e-6)
    close(nothing.kl_recovered, np.zeros(3), 1e-6)
    assert (nothing.recovered_mean.values != 0).any(), "the other floor is another one"


def test_the_constant_mean_recovers_nothing_against_mean_ablation(model) -> None:
    out = model(TOKENS, MASK, ("resid",)).captured["resid"][1]
    config = DictionaryConfig("relu", 12, 4)
    params = {"encoder": {"kernel": np.zeros((12, 4), np.float32), "bias": -np.ones(4, np.float32)},
              "decoder": {"kernel": np.zeros((4, 12), np.float32), "bias": np.asarray(out)[WHERE].mean(0)}}
    found = measure_in_model(model, Dictionary(params, config, "resid", 1), WHOLE, LANGUAGE, NAMES)
    close(found.recovered_mean, np.zeros(3), 1e-4)
    close(found.kl_recovered_mean, np.zeros(3), 1e-4)


@pytest.mark.promise
def test_costs_are_those_of_torch_on_edited_passes(model) -> None:
    """Each condition run by an `Edit`, scored as dictionary_learning does, at the positions that count."""
    one = random()
    found = measure_in_model(model, one, WHOLE, LANGUAGE, NAMES)
    plain = model(TOKENS, MASK, ("resid",))
    held = np.asarray(plain.captured["resid"][1])
    mean = held[WHERE].mean(0)
    only = np.zeros((3, 1, 1, 12), bool)
    only[1] = True
    logits = {"original": plain.logits()}
    for name, value in (("replaced", one(held)), ("zero", np.zeros((6, 9, 12))), ("mean", mean)):
        value = jnp.broadcast_to(jnp.asarray(value, jnp.float32), (6, 9, 12))[None]
        logits[name] = model(TOKENS, MASK, edits={"resid": Edit(mask=only, value=value, where=WHERE)}).logits()
    scored = WHERE[:, :-1] & MASK[:, 1:]
    for number, name in enumerate([*NAMES, ALL]):
        rows = scored & ((LANGUAGE == number)[:, None] if name != ALL else True)
        first = torch.log_softmax(torch.tensor(np.array(logits["original"]))[:, :-1][torch.tensor(rows)], -1)
        for condition, values in logits.items():
            chosen = torch.tensor(np.array(values))[:, :-1][torch.tensor(rows)]
            cost = torch.nn.functional.cross_entropy(chosen, torch.tensor(TOKENS[:, 1:][rows]))
            kl = torch.nn.functional.kl_div(torch.log_softmax(chosen, -1), first, reduction="batchmean",
                                            log_target=True)
            np.testing.assert_allclose(found.cross_entropy.sel(condition=condition, language=name), cost, rtol=2e-5)
            np.testing.assert_allclose(found.kl.sel(condition=condition, language=name), kl, rtol=1e-4, atol=1e-6)
        entropy = found.cross_entropy.sel(language=name)
        share = (entropy.sel(condition="replaced") - entropy.sel(condition="zero")) / (
            entropy.sel(condition="original") - entropy.sel(condition="zero"))
        np.testing.assert_allclose(found.recovered.sel(language=name), share)
        assert found.tokens.sel(language=name) == rows.sum()


@pytest.mark.promise
def test_batches_padding_and_fillers_change_nothing(model) -> None:
    one = random()
    whole = measure_in_model(model, one, WHOLE, LANGUAGE, NAMES)
    parts = [batch([1, -1, 3], width=4), batch([0, 4, -1]), batch([2, 5, -1], width=8)]
    for values in parts:  # what stands under the mask is never read
        values.tokens[~values.mask] = 30
    found = measure_in_model(model, one, parts, LANGUAGE, NAMES)
    for name, values in whole.data_vars.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_special_tokens_keep_their_state_and_are_not_scored(model) -> None:
    one = random()
    with_special = measure_in_model(model, one, [batch(range(6), where=MASK)], LANGUAGE, NAMES)
    without = measure_in_model(model, one, WHOLE, LANGUAGE, NAMES)
    assert with_special.tokens.values.tolist() == [8 + 1 + 8, 3 + 6, 26] and without.tokens.values[-1] == 21
    lone = measure_in_model(model, one, [batch([3, 5])], LANGUAGE, NAMES)
    assert lone.tokens.values.tolist() == [0, 0, 0] and np.isnan(lone.recovered).all()


def test_a_transcoder_replaces_what_it_writes(model) -> None:
    """A linear MLP in one layer is exactly a skip path from its input to its output."""
    params = jax.tree.map(lambda x: x, model.params)
    up, down = (params["layers"]["mlp"][name] for name in ("up", "down"))
    config = dataclasses.replace(CONFIG, activation="relu")
    up["bias"] = up["bias"] + 1e4  # every unit is in the linear part
    down["bias"] = down["bias"] - 1e4 * down["kernel"].sum(1)
    linear = Model(params, config, name="linear")
    kernel = np.asarray(up["kernel"][1], np.float64) @ np.asarray(down["kernel"][1], np.float64)
    bias = (np.asarray(up["bias"][1], np.float64) @ np.asarray(down["kernel"][1], np.float64)
            + np.asarray(down["bias"][1], np.float64))
    made = DictionaryConfig("relu", 12, 4, centred=False, skip=True)
    coder = {"encoder": {"kernel": np.zeros((12, 4), np.float32), "bias": -np.ones(4, np.float32)},
             "decoder": {"kernel": np.zeros((4, 12), np.float32), "bias": bias.astype(np.float32)},
             "skip": kernel.astype(np.float32)}
    exact = Dictionary(coder, made, "mlp.in", 1, target=("mlp.down", 1))
    found = measure_in_model(linear, exact, WHOLE, LANGUAGE, NAMES)
    close(found.recovered, np.ones(3), 0.02)
    wrong = dataclasses.replace(exact, params={**coder, "skip": -coder["skip"]})
    assert (measure_in_model(linear, wrong, WHOLE, LANGUAGE, NAMES).kl.sel(condition="replaced") >
            10 * found.kl.sel(condition="replaced")).all()


def test_what_is_not_finite_is_counted(model) -> None:
    params = jax.tree.map(lambda x: x, model.params)
    table = params["embed"]["tokens"]["embedding"]
    params["embed"]["tokens"]["embedding"] = table.at[int(TOKENS[4, 3])].set(jnp.nan)
    found = measure_in_model(Model(params, CONFIG), random(), WHOLE, LANGUAGE, NAMES)
    assert found.broken.values[-1] > 0 and found.broken.values[-1] + found.tokens.values[-1] == 21
    assert np.isnan(found.cross_entropy).sum() == 0 or found.tokens.values.min() == 0


@pytest.mark.promise
def test_one_program_a_shape(model) -> None:
    measure_in_model(model, random(), WHOLE, LANGUAGE, NAMES)
    before = [one._cache_size() for one in (fidelity._scores, fidelity._sums)]
    measure_in_model(model, random(layer=2), [*WHOLE, batch([5, 4, 3, 2, 1, 0])], LANGUAGE, NAMES)
    assert [one._cache_size() for one in (fidelity._scores, fidelity._sums)] == before


def test_what_does_not_fit_is_named(model) -> None:
    for changes, said in (({"layer": 3}, "layer 3"), ({"site": "nowhere"}, "site 'nowhere'"),
                          ({"site": "mlp.act"}, "12 units at 'mlp.act'")):
        with pytest.raises(InputError, match=said):
            measure_in_model(model, dataclasses.replace(random(), **changes), WHOLE, LANGUAGE, NAMES)
    headless = Model(model.params, dataclasses.replace(CONFIG, head=""), name="encoder")
    with pytest.raises(InputError, match="model 'encoder' predicts no next token"):
        measure_in_model(headless, random(), WHOLE, LANGUAGE, NAMES)
    with pytest.raises(InputError, match="no token of the batches counts"):
        measure_in_model(model, random(), [batch(range(6), where=np.zeros_like(MASK))], LANGUAGE, NAMES)
