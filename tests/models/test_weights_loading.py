"""Checkpoints as Hugging Face saves them become our parameters; what does not fit is named."""

import json
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from xlingjax.errors import InputError
from xlingjax.models.families import family_of
from xlingjax.models.transformer import init_params
from xlingjax.models.weights import load_params, open_checkpoint
from xlingjax.models.weights.fingerprint import fingerprint

pytestmark = pytest.mark.promise

BLOOM = transformers.BloomConfig(vocab_size=37, hidden_size=16, n_layer=3, n_head=4)


def bloom(seed=0, kind=transformers.BloomForCausalLM):
    torch.manual_seed(seed)
    return kind(BLOOM)


def load(folder, dtype="float32", put=None, config=None):
    hf = json.loads((folder / "config.json").read_text()) | (config or {})
    family = family_of(hf)
    ours = family.read_config(hf)
    target = jax.eval_shape(lambda: init_params(ours, jax.random.key(0)))
    return load_params(
        open_checkpoint(folder), family.entries(ours), target, dtype, put,
        prefixes=family.prefixes, unused=family.unused, vocab_size=ours.vocab_size,
    )  # fmt: skip


def save_bin(folder, state, shards=1):
    """What `save_pretrained(safe_serialization=False)` wrote in older versions."""
    (folder / "config.json").write_text(json.dumps(BLOOM.to_diff_dict() | {"model_type": "bloom"}))
    if shards == 1:
        return torch.save(state, folder / "pytorch_model.bin")
    names = {
        key: f"pytorch_model-{i % shards + 1:05d}-of-{shards:05d}.bin"
        for i, key in enumerate(state)
    }
    for file in set(names.values()):
        torch.save({k: v for k, v in state.items() if names[k] == file}, folder / file)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))


def equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_every_leaf_is_the_tensor_it_is_named_after(tmp_path):
    model = bloom()
    model.save_pretrained(tmp_path)
    params, _, health = load(tmp_path)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    embed, layers = params["embed"], params["layers"]
    np.testing.assert_array_equal(
        embed["tokens"]["embedding"], state["transformer.word_embeddings.weight"]
    )
    for layer in range(3):
        ours = jax.tree.map(lambda leaf, layer=layer: np.asarray(leaf[layer]), layers)
        theirs = {n.removeprefix(f"transformer.h.{layer}."): t for n, t in state.items()}
        np.testing.assert_array_equal(
            ours["attn"]["qkv"]["kernel"], theirs["self_attention.query_key_value.weight"].T
        )
        np.testing.assert_array_equal(
            ours["attn"]["out"]["bias"], theirs["self_attention.dense.bias"]
        )
        np.testing.assert_array_equal(
            ours["mlp"]["down"]["kernel"], theirs["mlp.dense_4h_to_h.weight"].T
        )
    assert health == {}


@pytest.mark.parametrize("config, kind", [
    (transformers.XGLMConfig(vocab_size=37, d_model=16, num_layers=2, attention_heads=4,
                             ffn_dim=24),
     transformers.XGLMForCausalLM),
    (transformers.XLMRobertaConfig(vocab_size=37, hidden_size=16, num_hidden_layers=2,
                                   num_attention_heads=4, intermediate_size=24),
     transformers.XLMRobertaForMaskedLM),
    (transformers.XLMRobertaConfig(vocab_size=37, hidden_size=16, num_hidden_layers=2,
                                   num_attention_heads=4, intermediate_size=24),
     transformers.XLMRobertaModel),
])  # fmt: skip
def test_other_families_load_from_safetensors_and_bin(tmp_path, config, kind):
    model = kind(config)
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    again = load(tmp_path)
    equal(loaded.params, again.params)
    assert loaded.fingerprint == again.fingerprint


def test_every_way_of_saving_gives_the_same_parameters_and_fingerprint(tmp_path):
    model, body = bloom(), bloom(kind=transformers.BloomModel)
    folders = [tmp_path / str(i) for i in range(6)]
    for folder in folders:
        folder.mkdir()
    model.save_pretrained(folders[0])
    model.save_pretrained(folders[1], max_shard_size="8KB")
    assert len(list(folders[1].glob("model-*.safetensors"))) > 2
    save_bin(folders[2], model.state_dict())  # holds the tied lm_head.weight as well
    save_bin(folders[3], model.state_dict(), shards=3)
    body.load_state_dict(model.transformer.state_dict())
    body.save_pretrained(folders[4])  # without the prefix `transformer.`
    save_bin(folders[5], body.state_dict())
    loaded = [load(folder) for folder in folders]
    for other in loaded[1:]:
        equal(loaded[0].params, other.params)
        assert other.fingerprint == loaded[0].fingerprint
    other = bloom(seed=1)
    other.save_pretrained(folders[0])
    assert load(folders[0]).fingerprint != loaded[0].fingerprint


def test_a_fingerprint_sees_one_bit_and_two_tensors_exchanged(tmp_path):
    state = dict(bloom().state_dict())
    save_bin(tmp_path, state)
    first = load(tmp_path).fingerprint
    name, other = (f"transformer.h.{i}.mlp.dense_h_to_4h.weight" for i in (0, 1))
    save_bin(tmp_path, state | {name: state[other], other: state[name]})
    assert load(tmp_path).fingerprint != first
    changed = state[name].clone()
    changed.view(torch.int32)[0, 0] ^= 1
    save_bin(tmp_path, state | {name: changed})
    assert load(tmp_path).fingerprint != first
    assert fingerprint({"a": "1"}) != fingerprint({"b": "1"})


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_half_precision_checkpoints(tmp_path, kind, dtype):
    model = bloom().to(kind)
    (tmp_path / "safe").mkdir()
    model.save_pretrained(tmp_path / "safe")
    save_bin(tmp_path, model.state_dict())
    params = load(tmp_path, dtype).params
    equal(load(tmp_path / "safe", dtype).params, params)
    theirs = model.transformer.h[1].mlp.dense_h_to_4h.weight.to(getattr(torch, dtype)).float()
    ours = params["layers"]["mlp"]["up"]["kernel"]
    assert ours.dtype == dtype
    np.testing.assert_array_equal(np.asarray(ours[1], np.float32), theirs.detach().numpy().T)


def test_all_that_does_not_fit_is_named_together(tmp_path):
    state = dict(bloom().state_dict())
    del state["transformer.h.1.mlp.dense_h_to_4h.bias"], state["transformer.ln_f.weight"]
    state["transformer.h.3.mlp.dense_h_to_4h.bias"] = torch.zeros(64)
    state["transformer.h.0.self_attention.masked_bias"] = torch.zeros(())
    state["transformer.h.0.input_layernorm.weight"] = torch.zeros(15)
    state["transformer.h.2.mlp.dense_4h_to_h.bias"] = torch.zeros(16, dtype=torch.int64)
    save_bin(tmp_path, state)
    with pytest.raises(InputError) as error:
        load(tmp_path)
    said = str(error.value)
    assert "missing: h.1.mlp.dense_h_to_4h.bias, ln_f.weight" in said
    assert "unexpected: transformer.h.0.self_attention.masked_bias" in said
    assert "transformer.h.3.mlp.dense_h_to_4h.bias" in said
    assert "wrong shape: transformer.h.0.input_layernorm.weight is [15] instead of [16]" in said
    assert "wrong type: transformer.h.2.mlp.dense_4h_to_h.bias is int64 instead of a float" in said


def test_one_parameter_under_two_names_is_refused(tmp_path):
    state = dict(bloom().state_dict())
    state["word_embeddings.weight"] = torch.zeros(37, 16)
    save_bin(tmp_path, state)
    with pytest.raises(InputError, match="holds both 'transformer.word_embeddings.weight' and"):
        load(tmp_path)


def test_a_transposed_tensor_has_the_wrong_shape(tmp_path):
    state = dict(bloom().state_dict())
    name = "transformer.h.0.mlp.dense_h_to_4h.weight"
    save_bin(tmp_path, state | {name: state[name].T.contiguous()})
    with pytest.raises(InputError, match=r"is \[16, 64\] instead of \[64, 16\]"):
        load(tmp_path)


def test_rows_of_a_padded_vocabulary_are_dropped_but_missing_rows_refused(tmp_path):
    state = dict(bloom().state_dict())
    name = "transformer.word_embeddings.weight"
    save_bin(tmp_path, state | {name: torch.cat([state[name], torch.ones(3, 16)])})
    embedding = load(tmp_path).params["embed"]["tokens"]["embedding"]
    np.testing.assert_array_equal(np.asarray(embedding), state[name].numpy())
    save_bin(tmp_path, state | {name: state[name][:-1]})
    with pytest.raises(InputError, match=r"word_embeddings.weight is \[36, 16\] instead of"):
        load(tmp_path)
    other = "transformer.ln_f.bias"  # longer, but no vocabulary
    save_bin(tmp_path, state | {other: torch.zeros(17)})
    with pytest.raises(InputError, match=r"ln_f.bias is \[17\] instead of \[16\]"):
        load(tmp_path)


def test_nan_and_infinity_are_counted_by_tensor(tmp_path):
    model = bloom()
    with torch.no_grad():
        model.transformer.h[1].mlp.dense_h_to_4h.weight[3, 5:7] = torch.nan
        model.transformer.h[2].self_attention.dense.bias[0] = -torch.inf
        model.transformer.ln_f.bias[1] = 1e30
    model.save_pretrained(tmp_path)
    planted = {
        "transformer.h.1.mlp.dense_h_to_4h.weight": 2,
        "transformer.h.2.self_attention.dense.bias": 1,
    }
    assert load(tmp_path).health == planted
    assert load(tmp_path, "float16").health == planted | {"transformer.ln_f.bias": 1}  # overflow


def test_parameters_arrive_in_their_sharding(tmp_path):
    bloom().save_pretrained(tmp_path)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = load(tmp_path, put=lambda _, values: jax.device_put(values, sharding)).params
    assert {leaf.sharding for leaf in jax.tree.leaves(params)} == {sharding}


@pytest.mark.parametrize("name, save", [
    ("model.safetensors", save_file), ("pytorch_model.bin", torch.save),
])  # fmt: skip
def test_the_host_never_holds_the_weights_twice(tmp_path, name, save):
    config = transformers.BloomConfig(vocab_size=64, hidden_size=128, n_layer=8, n_head=4)
    model = transformers.BloomForCausalLM(config)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    save(state, tmp_path / name)
    load(tmp_path)  # imports
    weights = sum(tensor.nbytes for tensor in state.values())
    largest = 8 * 4 * 128 * 128 * 4  # the stacked leaf of one MLP map
    tracemalloc.start()
    params = load(tmp_path).params
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert jax.tree.leaves(params) and peak < weights + 1.3 * largest, (peak, weights, largest)


def test_a_family_table_must_cover_the_parameters(tmp_path):
    bloom().save_pretrained(tmp_path)
    hf = json.loads((tmp_path / "config.json").read_text())
    family = family_of(hf)
    ours = family.read_config(hf)
    target = jax.eval_shape(lambda: init_params(ours, jax.random.key(0)))
    with pytest.raises(ValueError, match="norm/bias"):
        load_params(open_checkpoint(Path(tmp_path)), family.entries(ours)[:-1], target)
