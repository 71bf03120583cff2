"""Whole models from folders and back: values, tokenizers, damage, and no connection at all."""

import json
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tolerances import PARITY, close

from xlingjax.errors import InputError
from xlingjax.models import init_params, load_model, placing, save_model
from xlingjax.models.model import Model
from xlingjax.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.promise
TOKENS = np.arange(1, 11).reshape(2, 5)


@pytest.fixture(scope="module")
def bloom():
    torch.manual_seed(0)
    config = transformers.BloomConfig(vocab_size=37, hidden_size=16, n_layer=2, n_head=4)
    return transformers.BloomForCausalLM(config)


def make_tokenizer(words=("a", "b", "c")):
    """Words to ids, `<s>` in front as the template says."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}
    vocabulary |= {word: 4 + i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")  # noqa: S106
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


@pytest.fixture
def folder(tmp_path, bloom):
    """A checkpoint with a tokenizer, as on the hub."""
    bloom.save_pretrained(tmp_path / "model")
    make_tokenizer().save(str(tmp_path / "model" / "tokenizer.json"))
    return tmp_path / "model"


def edit_json(path, **changes):
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | changes))


def same(a, b):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


@pytest.mark.parametrize("shards, prefix, kind", [
    (1, True, "safetensors"), (3, True, "safetensors"), (1, False, "safetensors"),
    (1, True, "bin"), (3, True, "bin"), (1, False, "bin"), (1, True, "legacy"),
])  # fmt: skip
def test_logits_are_those_of_hugging_face(tmp_path, bloom, shards, prefix, kind):
    saved = bloom if prefix else bloom.transformer
    saved.save_pretrained(tmp_path, max_shard_size="5KB" if shards > 1 else "1GB")
    if kind != "safetensors":
        for path in tmp_path.glob("model*.safetensors*"):
            path.unlink()
        state = dict(saved.state_dict())
        options = {} if kind == "bin" else {"_use_new_zipfile_serialization": False}
        if shards == 1:
            torch.save(state, tmp_path / "pytorch_model.bin", **options)
        else:
            weight_map = {name: f"part{i % shards}.bin" for i, name in enumerate(state)}
            for file in set(weight_map.values()):
                part = {name: state[name] for name in state if weight_map[name] == file}
                torch.save(part, tmp_path / file)
            edit_json(tmp_path / "pytorch_model.bin.index.json", weight_map=weight_map)
    model = load_model(tmp_path)
    with torch.no_grad():
        theirs = bloom(torch.tensor(TOKENS)).logits
    close(model(TOKENS).logits(), theirs, PARITY["float32"])
    assert model.family == "bloom" and model.tokenizer is None and model.health == {}
    assert model.name == str(tmp_path) and len(model.fingerprint) == 64


def test_text_works_with_a_tokenizer_and_only_then(folder):
    tokens, mask = load_model(folder).encode(["a b", "c"])
    np.testing.assert_array_equal(tokens, [[1, 4, 5], [1, 6, 0]])
    np.testing.assert_array_equal(mask, [[1, 1, 1], [1, 1, 0]])
    (folder / "tokenizer.json").unlink()
    model = load_model(folder)
    model(TOKENS)
    with pytest.raises(InputError, match="no tokenizer"):
        model.encode(["a"])


def test_special_tokens_come_from_whatever_file_names_them(folder):
    edit_json(folder / "config.json", bos_token_id=1, eos_token_id=2, pad_token_id=3)
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<s>",
        "</s>",
        "<pad>",
    )
    unknown = {"pad_token": {"content": "[not in the vocabulary]"}, "unk_token": "<unk>"}
    edit_json(folder / "tokenizer_config.json", eos_token="<s>", **unknown)
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "<pad>")
    assert tokenizer.unk_token == "<unk>" and len(tokenizer) == 7


def test_a_tokenizer_without_a_json_is_read_by_its_class(tmp_path):
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ja"])
    )
    edit_json(tmp_path / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    assert load_tokenizer(tmp_path)("ja")["input_ids"] == [2, 5, 3]


def test_the_tokenizer_may_come_from_elsewhere(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    make_tokenizer(("c", "a")).save(str(other / "tokenizer.json"))
    assert load_model(folder, tokenizer=other).encode(["a"])[0].tolist() == [[1, 5]]
    given = load_tokenizer(other)
    assert load_model(folder, tokenizer=given).tokenizer is given
    (other / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="holds no tokenizer"):
        load_model(folder, tokenizer=str(other))


def test_a_tokenizer_that_does_not_fit_is_refused(folder):
    many = make_tokenizer([f"w{i}" for i in range(40)])
    many.save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match="'w39' the id 43, but the vocabulary of the model has 37"):
        load_model(folder)
    for broken in ("", "{", "[]", '{"version": "1.0"}'):
        (folder / "tokenizer.json").write_text(broken)
        with pytest.raises(InputError, match="tokenizer"):
            load_model(folder)


def test_no_code_of_a_checkpoint_runs(folder, tmp_path):
    executed = tmp_path / "executed"
    evil = f"open({str(executed)!r}, 'w')\nclass Evil: pass\n"
    (folder / "evil.py").write_text(evil)
    template = "{{ cycler.__init__.__globals__.os.system('touch " + str(executed) + "') }}"
    auto_map = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoModel": "evil.Evil"}
    edit_json(
        folder / "tokenizer_config.json", auto_map=auto_map, chat_template=template,
        tokenizer_class="Evil",
    )  # fmt: skip
    (folder / "chat_template.jinja").write_text(template)
    edit_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Evil"})
    (folder / "setup.yaml").write_text("!!python/object/apply:os.system ['touch x']")
    load_model(folder).encode(["a"])
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("a\n")
    with pytest.raises(InputError, match="without running its code"):
        load_model(folder)
    assert not executed.exists()
    with pytest.raises(InputError, match="'evil'"):
        edit_json(folder / "config.json", model_type="evil")
        load_model(folder)
    assert not executed.exists()


def test_a_folder_needs_no_connection(folder, tmp_path, monkeypatch):
    def blocked(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", blocked)
    monkeypatch.setattr(socket.socket, "connect_ex", blocked)
    monkeypatch.setattr(socket, "create_connection", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    model = load_model(folder)
    save_model(model, tmp_path / "own")
    assert load_model(tmp_path / "own").encode(["a"])[0].tolist() == [[1, 4]]


@pytest.mark.parametrize("dtype", ["float64", "int32", "half", None, 3])
def test_types_that_cannot_be_are_refused(folder, dtype):
    with pytest.raises(InputError, match="dtype is"):
        load_model(folder, dtype=dtype)


def test_float64_where_jax_keeps_64_bits(folder):
    program = (
        "import sys; from xlingjax.models import load_model\n"
        "m = load_model(sys.argv[1], dtype='float64')\n"
        "sys.exit(m.params['norm']['scale'].dtype != 'float64')"
    )
    environment = os.environ | {"JAX_ENABLE_X64": "1"}
    assert subprocess.run([sys.executable, "-c", program, folder], env=environment).returncode == 0


def test_what_is_not_there_is_named(folder, tmp_path):
    (tmp_path / "run" / "checkpoints" / "128").mkdir(parents=True)
    with pytest.raises(InputError, match="no config.json; give revision=, one of 128"):
        load_model(tmp_path / "run")
    with pytest.raises(InputError, match="no checkpoint '12'; near are 128"):
        load_model(tmp_path / "run", "12")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json is not JSON"):
        load_model(folder)


def test_our_own_checkpoints_come_back_whole(folder, tmp_path):
    model = load_model(folder)
    (tmp_path / "run" / "checkpoints" / "64").mkdir(parents=True)  # an empty folder may be there
    save_model(model, tmp_path / "run" / "checkpoints" / "64")
    again = load_model(tmp_path / "run", "64")
    same(again.params, model.params)
    assert (again.config, again.family) == (model.config, model.family)
    assert again.fingerprint == model.fingerprint and again.name.endswith("run@64")
    assert again.encode(["c b"])[0].tolist() == model.encode(["c b"])[0].tolist()
    half = load_model(tmp_path / "run", "64", dtype="bfloat16")
    same(half.params, load_model(folder, dtype="bfloat16").params)
    with pytest.raises(InputError, match="exists and is not empty"):
        save_model(model, tmp_path / "run" / "checkpoints" / "64")


def test_equal_trained_models_have_equal_fingerprints(tmp_path, folder):
    config = load_model(folder).config
    models = [Model(init_params(config, jax.random.key(seed)), config) for seed in (0, 0, 1)]
    for number, model in enumerate(models):
        save_model(model, tmp_path / str(number))
    first, second, third = (load_model(tmp_path / str(i)).fingerprint for i in range(3))
    assert first == second != third


def test_nan_in_our_own_checkpoint_is_counted(tmp_path, folder):
    model = load_model(folder)
    kernel = model.params["layers"]["mlp"]["up"]["kernel"].at[1, 0, :3].set(np.nan)
    params = jax.tree.map(lambda leaf: leaf, model.params)
    params["layers"]["mlp"]["up"]["kernel"] = kernel
    save_model(Model(params, model.config), tmp_path / "own")
    assert load_model(tmp_path / "own").health == {"layers/mlp/up/kernel[1]": 3}


def test_an_unfinished_checkpoint_is_refused(folder, tmp_path, monkeypatch):
    model = load_model(folder)
    own = tmp_path / "own"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("xlingjax.models.loading.write_json", full)
        with pytest.raises(OSError, match="No space"):
            save_model(model, own)
    assert not own.exists() and sorted(tmp_path.iterdir()) == [folder]
    save_model(model, own)
    (own / "xlingjax.json").unlink()
    with pytest.raises(InputError, match="unfinished"):
        load_model(own)


def test_the_manifest_is_written_last_and_the_name_given_after(folder, tmp_path, monkeypatch):
    import xlingjax.models.loading as loading

    events = []
    replace, write, fsync = os.replace, loading.write_json, os.fsync
    monkeypatch.setattr(loading, "write_json", lambda *a: (events.append("manifest"), write(*a)))
    monkeypatch.setattr(os, "replace", lambda *a: (events.append("name"), replace(*a)))
    monkeypatch.setattr(os, "fsync", lambda *a: (events.append("sync"), fsync(*a)))
    model = load_model(folder)
    events.clear()
    save_model(model, tmp_path / "own")
    last = events.index("manifest")
    assert "sync" in events[:last]  # everything else is on disk before
    assert events[last:] == ["manifest", "sync", "sync", "name", "sync"]


def test_damage_to_our_own_checkpoint_is_found(folder, tmp_path):
    model = load_model(folder)
    save_model(model, tmp_path / "own")
    refused = 0
    for file in sorted((tmp_path / "own").rglob("*")):
        if not file.is_file():
            continue
        kept = file.read_bytes()
        middle = len(kept) // 2
        flipped = kept[:middle] + bytes([kept[middle] ^ 1]) + kept[middle + 1 :] if kept else b""
        for damaged in (None, b"", kept[:middle], flipped):
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            if damaged != kept:
                with pytest.raises(InputError, match=rf"{file.name}|unfinished"):
                    load_model(tmp_path / "own")
                refused += 1
            file.write_bytes(kept)
    assert refused > 20
    same(load_model(tmp_path / "own").params, model.params)
    manifest = json.loads((tmp_path / "own" / "xlingjax.json").read_text())
    for key in manifest:
        without = {name: value for name, value in manifest.items() if name != key}
        (tmp_path / "own" / "xlingjax.json").write_text(json.dumps(without))
        with pytest.raises(InputError, match="xlingjax.json"):
            load_model(tmp_path / "own")


def test_another_models_parameters_are_refused(folder, tmp_path):
    model = load_model(folder)
    save_model(model, tmp_path / "one")
    save_model(Model(init_params(model.config, jax.random.key(1)), model.config), tmp_path / "two")
    shutil.rmtree(tmp_path / "one" / "params")
    shutil.copytree(tmp_path / "two" / "params", tmp_path / "one" / "params")
    with pytest.raises(InputError, match="params/.* is (missing|damaged)"):
        load_model(tmp_path / "one")


def test_a_model_larger_than_a_device_is_refused_before_its_weights_are_read(tmp_path, monkeypatch):
    config = transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path)
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(load_model(tmp_path).params))
    monkeypatch.setattr(placing, "device_memory", lambda: needed)
    load_model(tmp_path)
    monkeypatch.setattr(placing, "device_memory", lambda: needed // 3)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(InputError, match=r"GB for its float32 parameters .*--mesh=model:4\), or load .* bfloat16"):
        load_model(tmp_path)
