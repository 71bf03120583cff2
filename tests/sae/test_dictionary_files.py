"""Files of dictionary_learning, SAELens and sparsify against those libraries' own figures; P9 and P11 for these."""

import dataclasses
import functools
import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.sae.coder import init_dictionary
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.files import LAYOUTS, read_dictionary, write_dictionary
from xlingjax.sae.files.folding import recentred
from xlingjax.sae.files.places import of_hook, of_label, of_module

GOLDEN = Path(__file__).parent / "golden"
EVERY = sorted(path.parent for path in GOLDEN.rglob("golden.safetensors"))
NEEDS = {"scaled": {"scale": 1.7}}  # what only the caller knows, by kind
EXACT = 1e-5


def name_of(folder: Path) -> str:
    return str(folder.relative_to(GOLDEN))


def read(folder: Path) -> Dictionary:
    return read_dictionary(folder, **NEEDS.get(folder.name, {}))


@pytest.mark.promise
@pytest.mark.parametrize("folder", EVERY, ids=name_of)
def test_latents_and_reconstructions_are_the_librarys(folder) -> None:
    one, golden = read(folder), load_file(folder / "golden.safetensors")
    close(one.encode(golden["x"]), golden["f"], EXACT, "latents")
    close(one.decode(golden["f"], golden["x"]), golden["y"], EXACT, "decoded")
    close(one(golden["x"]), golden["y"], EXACT, "reconstructed")
    assert (golden["f"] > 0).any(0).sum() > 5 and (golden["f"] == 0).any(), "the figures show something"


def test_every_kind_of_every_toolkit_has_figures() -> None:
    assert [(name.split("/")[0], read(folder).config.kind) for folder in EVERY for name in [name_of(folder)]] == [
        ("dictionary_learning", kind) for kind in (
            "relu", "relu", "topk", "batch_topk", "gated", "jumprelu", "matryoshka")
    ] + [("saelens", kind) for kind in (
        "jumprelu", "batch_topk", "gated", "jumprelu", "jumprelu", "jumprelu", "matryoshka", "relu", "topk", "topk",
        "relu", "relu", "relu", "topk", "topk", "relu")] + [("sparsify", "topk")] * 4


@pytest.mark.parametrize("name, place, target, model", [
    ("dictionary_learning/BatchTopKSAE", ("resid", 3), None, "tiny/model"),
    ("saelens/standard", ("resid", 3), None, "gpt2"),
    ("saelens/old_standard", ("resid", 3), None, "gpt2-small"),  # before block 4 is after block 3
    ("saelens/standard_uncentred", ("attn.heads", 3), None, "gpt2"),
    ("saelens/transcoder", ("resid.mid", 3), ("mlp.down", 3), "gpt2"),
    ("sparsify/topk/layers.3", ("resid", 3), None, ""),
    ("sparsify/transcoder/layers.3.mlp", ("mlp.in", 3), ("mlp.down", 3), ""),
])
def test_where_it_reads_is_said_in_our_terms(name, place, target, model) -> None:
    one = read(GOLDEN / name)
    assert ((one.site, one.layer), one.target, one.model) == (place, target, model)
    given = read_dictionary(GOLDEN / name, site="mlp.up", layer=7, target=("mlp.act", 8))
    assert (given.site, given.layer, given.target) == ("mlp.up", 7, ("mlp.act", 8))


def test_names_of_places() -> None:
    assert of_hook("blocks.12.hook_mlp_out", "google/gemma-2-2b") is None, "there it comes after a norm"
    assert of_hook("blocks.12.hook_resid_post", "gemma-2-2b") == ("resid", 12)
    assert of_hook("blocks.2.attn.hook_q") is None and of_hook("hook_embed") is None
    assert of_hook("model.layers.5.self_attn.o_proj") == ("attn.out", 5)
    assert of_module("transformer.h.3.mlp.dense_4h_to_h") == ("mlp.down", 3)
    assert of_module("transformer.h.3.self_attention") is None, "BLOOM adds the stream inside"
    assert of_module("h.3.attn") == ("attn.out", 3) and of_module("layers.0", reads=True) == ("embed", 0)
    assert of_module("gpt_neox.layers.2.attention.dense", reads=True) == ("attn.heads", 2)
    assert of_label("attention_out_layer_4") == ("attn.out", 4) and of_label("resid_pre_layer_4") is None


def random_dictionary(kind: str, centred: bool = True, **changes) -> Dictionary:
    options = {"k": 3} if kind in ("topk", "batch_topk", "matryoshka") else {}
    options |= {"groups": (3, 10)} if kind == "matryoshka" else {}
    target = changes.pop("target", None)
    config = DictionaryConfig(kind, 6, 10, centred=centred, **options, **changes)
    rng = np.random.default_rng(5)
    params = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32) * 0.7,
                          init_dictionary(config, jax.random.key(0)))
    if "threshold" in params:
        params["threshold"] = np.abs(params["threshold"])
    return Dictionary(params, config, "resid", 3, target, "tiny", "f" * 64)


X = 1.5 * np.random.default_rng(9).standard_normal((20, 6)).astype(np.float32)
DOWN = ("mlp.down", 4)
WRITTEN = [
    *[("dictionary_learning", kind, {"centred": centred}) for kind in (
        "relu", "gated", "topk", "batch_topk", "matryoshka", "jumprelu") for centred in (True, False)],
    *[("saelens", kind, {"centred": centred}) for kind in (
        "relu", "gated", "topk", "batch_topk", "matryoshka", "jumprelu") for centred in (True, False)],
    *[("saelens", kind, {"centred": False, "target": DOWN, **more}) for kind in ("relu", "jumprelu", "batch_topk")
      for more in ({}, {"skip": True}, {"outputs": 5})],
    ("saelens", "relu", {"skip": True}),
    *[("sparsify", "topk", more) for more in (
        {}, {"centred": False}, {"skip": True}, {"centred": False, "target": DOWN},
        {"centred": True, "target": DOWN, "skip": True})],
]


def written_name(case) -> str:
    return "-".join([*case[:2], *(f"{name}={value}" for name, value in case[2].items())])


@pytest.mark.promise
@pytest.mark.parametrize("case", WRITTEN, ids=written_name)
def test_what_is_written_is_read_again(tmp_path, case) -> None:
    layout, kind, options = case
    one = random_dictionary(kind, **options)
    write_dictionary(one, tmp_path / "any", layout)
    again = read_dictionary(tmp_path / "any")
    close(again(X), one(X), 3e-5, "reconstructed")
    if (layout, kind) != ("dictionary_learning", "relu"):  # whose loader makes rows of norm 1
        close(again.encode(X), one.encode(X), 3e-5, "latents")
    assert (again.site, again.layer, again.model) == (one.site, one.layer, "" if layout == "sparsify" else "tiny")
    assert again.fingerprint == one.fingerprint
    assert again.target == one.target
    stored_as = {"batch_topk": "jumprelu", "matryoshka": "jumprelu"}.get(kind, kind) if layout == "saelens" else kind
    assert again.config.kind == stored_as


def test_writing_twice_gives_equal_bytes_and_never_over_another(tmp_path) -> None:
    for layout, files in LAYOUTS.items():
        for copy in "ab":
            write_dictionary(random_dictionary("topk"), tmp_path / copy / layout, layout)
        for file in (files.weights, files.settings):
            assert (tmp_path / "a" / layout / file).read_bytes() == (tmp_path / "b" / layout / file).read_bytes()
        with pytest.raises(InputError, match="holds a .* already"):
            write_dictionary(random_dictionary("topk"), tmp_path / "a" / layout, layout)


def test_torch_reads_what_is_written_without_it(tmp_path) -> None:
    one = random_dictionary("matryoshka")
    write_dictionary(one, tmp_path / "x", "dictionary_learning")
    state = torch.load(tmp_path / "x" / "ae.pt", weights_only=True)
    assert {name: (str(t.dtype), tuple(t.shape)) for name, t in state.items()} == {
        "W_enc": ("torch.float32", (6, 10)), "b_enc": ("torch.float32", (10,)), "W_dec": ("torch.float32", (10, 6)),
        "b_dec": ("torch.float32", (6,)), "k": ("torch.int32", ()), "threshold": ("torch.float32", ()),
        "group_sizes": ("torch.int64", (2,))}
    np.testing.assert_array_equal(state["W_dec"].numpy(), one.params["decoder"]["kernel"])
    assert state["k"].item() == 3 and state["group_sizes"].tolist() == [3, 7]
    mapped = torch.load(tmp_path / "x" / "ae.pt", weights_only=True, mmap=True)
    assert all(torch.equal(mapped[name], state[name]) for name in state)


def peers_python() -> str | None:
    """An interpreter with the three libraries: named by XLINGJAX_PEERS, or this one."""
    if os.environ.get("XLINGJAX_PEERS"):
        return os.environ["XLINGJAX_PEERS"]
    here = all(importlib.util.find_spec(name) for name in ("dictionary_learning", "sae_lens", "sparsify"))
    return sys.executable if here else None


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_librarys_own_loader_reads_what_we_write(tmp_path, layout) -> None:
    python = peers_python()
    if python is None:
        pytest.skip("the peers are not installed; set XLINGJAX_PEERS to a python with xlingjax[peers]")
    cases = [case for case in WRITTEN if case[0] == layout]
    for case in cases:
        folder = tmp_path / written_name(case)
        write_dictionary(random_dictionary(case[1], **case[2]), folder, layout)
        save_file({"x": X}, folder / "x.safetensors")
    done = subprocess.run([python, str(Path(__file__).parent / "peers_read.py"), layout, str(tmp_path)],
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    for case in cases:
        found = load_file(tmp_path / written_name(case) / "peer.safetensors")
        one = random_dictionary(case[1], **case[2])
        close(found["y"], one(X), 3e-5, written_name(case))
        if (layout, case[1]) != ("dictionary_learning", "relu"):
            close(found["f"], one.encode(X), 3e-5, written_name(case))


@pytest.mark.parametrize("folder", [folder for folder in EVERY if "transcoder" not in str(folder)], ids=name_of)
def test_rows_of_norm_one_change_no_reconstruction(folder) -> None:
    golden = load_file(folder / "golden.safetensors")
    if read(folder).config.kind not in ("relu", "gated", "jumprelu") and "scaled" not in folder.name:
        norms = np.linalg.norm(read(folder).directions, axis=1)
        if not np.allclose(norms, 1, atol=1e-4):
            with pytest.raises(InputError, match="would be other ones"):
                read_dictionary(folder, unit_norm=True)
            return
    if folder.name == "scaled":
        return
    one = read_dictionary(folder, unit_norm=True)
    np.testing.assert_allclose(np.linalg.norm(one.directions, axis=1), 1, atol=1e-5)
    close(one(golden["x"]), golden["y"], EXACT)


@pytest.mark.parametrize("kind", ["relu", "gated", "topk", "jumprelu"])
def test_a_bias_taken_from_the_input_or_not_is_the_same_dictionary(kind) -> None:
    one = random_dictionary(kind)
    other = dataclasses.replace(one, params=recentred(one.params, one.config, False),
                                config=dataclasses.replace(one.config, centred=False))
    close(other.encode(X), one.encode(X), EXACT)
    back = recentred(other.params, other.config, True)
    jax.tree.map(lambda a, b: close(a, b, 1e-5), back, dict(one.params))


# What is wrong is named


def copied(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(GOLDEN / name, tmp_path / Path(name).name))


KINDS = [name_of(folder) for folder in EVERY]
SETTINGS = {layout: files.settings for layout, files in LAYOUTS.items()}
WEIGHTS = {layout: files.weights for layout, files in LAYOUTS.items()}


def resave(folder: Path, layout: str, change) -> None:
    path = folder / WEIGHTS[layout]
    if path.suffix == ".pt":
        state = {name: tensor.numpy() for name, tensor in torch.load(path).items()}
        torch.save({name: torch.tensor(values) for name, values in change(state).items()}, path)
    else:
        save_file({name: np.array(values, order="C") for name, values in change(load_file(path)).items()}, path)


def without(tensor: str, state: dict) -> dict:
    return {name: values for name, values in state.items() if name != tensor}


def reshaped(tensor: str, state: dict) -> dict:
    return state | {tensor: np.zeros((*state[tensor].shape, 2), state[tensor].dtype)}


@pytest.mark.promise
@pytest.mark.parametrize("name", KINDS)
def test_tensors_missing_left_over_or_of_another_shape_are_named(tmp_path, name) -> None:
    layout = name.split("/")[0]
    sound = copied(tmp_path, name)
    state = load_file(sound / WEIGHTS[layout]) if layout != "dictionary_learning" else torch.load(sound / "ae.pt")
    given = NEEDS.get(sound.name, {})
    for number, tensor in enumerate(state):
        for change, said in ((without, "lacks the tensor"), (reshaped, "shape|one axis")):
            folder = Path(shutil.copytree(sound, tmp_path / f"{change.__name__}{number}" / sound.name))
            resave(folder, layout, functools.partial(change, tensor))
            with pytest.raises(InputError, match=said) as error:
                read_dictionary(folder, **given)
            assert repr(tensor) in str(error.value) and str(folder) in str(error.value)
    resave(sound, layout, lambda s: s | {"surplus": np.zeros(3, np.float32)})
    with pytest.raises(InputError, match="holds 'surplus', which a dictionary"):
        read_dictionary(sound, **given)


@pytest.mark.parametrize("name", ["dictionary_learning/AutoEncoder", "saelens/standard", "sparsify/topk/layers.3"])
def test_damaged_files_are_named(tmp_path, name) -> None:
    layout, folder = name.split("/")[0], copied(tmp_path, name)
    weights, settings = folder / WEIGHTS[layout], folder / SETTINGS[layout]
    whole, said = weights.read_bytes(), settings.read_bytes()
    for size in (0, 1, 20, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:size])
        with pytest.raises(InputError, match=str(weights)):
            read_dictionary(folder)
    weights.write_bytes(whole)
    for text in (b"", b"{", b"[]", b"\xff"):
        settings.write_bytes(text)
        with pytest.raises(InputError, match=str(settings)):
            read_dictionary(folder)
    settings.unlink()
    with pytest.raises(InputError, match=f"{settings} is missing"):
        read_dictionary(folder)
    settings.write_bytes(said)
    resave(folder, layout, lambda s: {n: np.where(np.arange(v.size).reshape(v.shape) == 1, np.nan, v).astype(v.dtype)
                                      for n, v in s.items()})
    with pytest.raises(InputError, match="holds 1 values of .* that are NaN or infinite"):
        read_dictionary(folder)
    weights.unlink()
    with pytest.raises(InputError, match="holds no dictionary"):
        read_dictionary(folder)
    with pytest.raises(InputError, match=r"give one of its folders \(layers.3\)"):
        read_dictionary(GOLDEN / "sparsify" / "topk")


@pytest.mark.promise
def test_a_poisoned_pickle_does_nothing(tmp_path) -> None:
    folder = copied(tmp_path, "dictionary_learning/AutoEncoder")
    trace = tmp_path / "executed"

    class Poison:
        def __reduce__(self):
            return os.mkdir, (str(trace),)

    with zipfile.ZipFile(folder / "ae.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "ae.pt", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, pickle.dumps({"bias": Poison()}, 2) if name.endswith("data.pkl") else data)
    with pytest.raises(InputError, match="posix.mkdir, which no dictionary of tensors needs"):
        read_dictionary(folder)
    (folder / "ae.pt").write_bytes(pickle.dumps({"bias": Poison()}, 2))
    with pytest.raises(InputError):
        read_dictionary(folder)
    assert not trace.exists()


SAELENS, SPARSIFY, LEARNING = "saelens/topk", "sparsify/topk/layers.3", "dictionary_learning/BatchTopKSAE"


@pytest.mark.parametrize("name, change, said", [
    (SAELENS, {"d_in": 7}, r"by cfg.json it is \[7, 10\]"),
    (SAELENS, {"d_sae": None}, "lacks d_sae"),
    (SAELENS, {"d_in": "six"}, "d_in in .* is 'six'; it must be a whole number"),
    (SAELENS, {"k": 11}, "k of a topk dictionary of 10 latents is 11"),
    (SAELENS, {"k": 0}, "k of a topk dictionary of 10 latents is 0"),
    (SAELENS, {"architecture": "temporal"}, "architecture in .* is 'temporal', which is not supported"),
    (SAELENS, {"architecture": "abstopk"}, "architecture"),
    (SAELENS, {"normalize_activations": "layer_norm"}, "normalize_activations in .* is 'layer_norm'"),
    (SAELENS, {"normalize_activations": "constant_norm_rescale"}, "constant_norm_rescale"),
    (SAELENS, {"normalize_activations": "expected_average_only_in"}, "give it as scale="),
    (SAELENS, {"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
    (SAELENS, {"activation_fn": "tanh-relu"}, "activation_fn in .* is 'tanh-relu'"),
    (SAELENS, {"reshape_activations": "other"}, "reshape_activations"),
    (SAELENS, {"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input in .* must be true or false"),
    (SAELENS, {"metadata": {"hook_name": "blocks.3.hook_resid_post", "hook_head_index": 0}}, "give site= and layer="),
    (SAELENS, {"metadata": {"hook_name": "blocks.3.hook_resid_post",
                            "model_from_pretrained_kwargs": {"fold_ln": True}}}, "give site= and layer="),
    (SAELENS, {"metadata": {"hook_name": "blocks.3.mlp.hook_pre"}}, "reads blocks.3.mlp.hook_pre, which is no site"),
    (SAELENS, {"metadata": {}}, "reads a place that it does not name"),
    (SAELENS, {"metadata": 3}, "metadata in .* must be an object"),
    (SAELENS, {"xlingjax": {"site": "resid", "layer": "3"}}, "layer in .* must be a whole number"),
    (SAELENS, {"xlingjax": {"site": "resid", "layer": 3, "target": ["a"]}}, "target in .* give a site and the number"),
    ("saelens/transcoder", {"metadata": {"hook_name": "blocks.3.hook_resid_post"}}, "where it writes; give target="),
    (SPARSIFY, {"activation": "groupmax"}, "activation in .* is 'groupmax'"),
    (SPARSIFY, {"signed": True}, "signed"),
    (SPARSIFY, {"num_latents": 12}, r"by cfg.json it is \[12, 6\]"),
    (SPARSIFY, {"num_latents": 0, "expansion_factor": 2}, r"it is \[12, 6\]"),
    (SPARSIFY, {"k": 2.5}, "k in .* is 2.5"),
    (SPARSIFY, {"skip_connection": True}, "lacks the tensor 'W_skip'"),
    (LEARNING, {"dict_class": "IdentityDict"}, "dict_class in .* is 'IdentityDict', which is not supported"),
    (LEARNING, {"k": 4}, "k in .* is 4 and in .* 3"),
    (LEARNING, {"activation_dim": 8}, r"by config.json it is \[10, 8\]"),
    (LEARNING, {"submodule_name": None}, "a place that it does not name"),
    (LEARNING, {"submodule_name": "transformer.h.3.mlp"}, "reads transformer.h.3.mlp, which is no site that we know"),
])
def test_what_we_do_not_honour_is_refused_by_name(tmp_path, name, change, said) -> None:
    layout, folder = name.split("/")[0], copied(tmp_path, name)
    path = folder / SETTINGS[layout]
    settings = json.loads(path.read_text())
    (settings["trainer"] if layout == "dictionary_learning" else settings).update(change)
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=said):
        read_dictionary(folder)


@pytest.mark.parametrize("change, sound", [({"scaling_factor": 1.0}, True), ({"scaling_factor": 2.0}, False)])
def test_a_finetuned_scale_is_refused_unless_it_is_one(tmp_path, change, sound) -> None:
    folder = copied(tmp_path, "saelens/standard")
    resave(folder, "saelens", lambda s: s | {n: np.full(10, v, np.float32) for n, v in change.items()})
    if sound:
        golden = load_file(folder / "golden.safetensors")
        close(read_dictionary(folder)(golden["x"]), golden["y"], EXACT)
    else:
        with pytest.raises(InputError, match="'scaling_factor' of a finetuning"):
            read_dictionary(folder)


@pytest.mark.parametrize("layout, kind, options, said", [
    ("sparsify", "relu", {}, "sparsify has topk dictionaries, and this one is relu"),
    ("sparsify", "topk", {"centred": False, "outputs": 5, "target": DOWN}, "reads 6 and writes 5"),
    ("saelens", "topk", {"centred": False, "target": DOWN}, "SAELens has no topk transcoder"),
    ("dictionary_learning", "relu", {"skip": True}, "dictionary_learning has no transcoders"),
    ("safetensors", "relu", {}, "layout 'safetensors' is unknown"),
])
def test_what_a_layout_cannot_hold_is_said(tmp_path, layout, kind, options, said) -> None:
    with pytest.raises(InputError, match=said):
        write_dictionary(random_dictionary(kind, **options), tmp_path / "x", layout)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("given", [{"scale": 0.0}, {"scale": -1}, {"scale": float("nan")}, {"site": "resid"},
                                   {"layer": 3}, {"target": ("resid",)}, {"site": "resid", "layer": -1}])
def test_arguments_are_checked(given) -> None:
    with pytest.raises(InputError, match="give"):
        read_dictionary(GOLDEN / "saelens/standard", **given)
