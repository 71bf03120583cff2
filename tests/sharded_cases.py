"""Sharded = one device, on eight forced host devices; `models/test_sharded.py` runs this file (P3).

Head counts, widths and vocabularies are such that some meshes divide them and some do not.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers
from jax.sharding import NamedSharding, PartitionSpec
from tolerances import KERNEL, close
from tolerances import PARITY as BOTH

import xlingjax as xl
from experiments import _parity_cases as families
from xlingjax.analyses.compiled_cell import compiled_cell
from xlingjax.analyses.health import language_losses
from xlingjax.corpora import mini_world
from xlingjax.corpora.tokenising import tokenise
from xlingjax.errors import InputError
from xlingjax.influence import FactorSettings, fit_factors, pairwise, self_influence, sequence_gradients
from xlingjax.models import init_params, load_model, save_model
from xlingjax.models.model import Model
from xlingjax.models.placing import init_sharded, without_padding
from xlingjax.responses.planning import device_bytes
from xlingjax.sae.activations import ActivationStream
from xlingjax.sae.coder import init_dictionary
from xlingjax.sae.packing import pack, place, place_batch
from xlingjax.sae.stream import ArrayStream
from xlingjax.sae.training import group_runs, train_dictionaries
from xlingjax.sae.updating import first_state
from xlingjax.sharding import make_mesh
from xlingjax.training.shapes import small_config
from xlingjax.training.tokenizer import train_tokenizer

sys.path.insert(0, str(Path(__file__).parent / "sae"))
from tiny_dictionaries import planted  # noqa: E402
from tiny_dictionaries import settings as dictionary_settings  # noqa: E402
from tiny_dictionaries import spec as dictionary_spec  # noqa: E402

PARITY = BOTH["float32"]
MESHES = ("data:8", "data:2,model:4", "model:8", "fsdp:4,model:2", "data:2,fsdp:2,model:2", "model:3")


def test_eight_devices_are_there() -> None:
    assert jax.device_count() == 8


# The first families on two meshes, the others on one, each mesh under two families or more.
PAIRS = [(case, MESHES[(i + 3 * half) % len(MESHES)])
         for i, case in enumerate(families.CASES) for half in range(2 if i < 8 else 1)]  # fmt: skip


@pytest.mark.parametrize(("case", "mesh"), PAIRS, ids=str)
def test_every_site_from_a_foreign_checkpoint(case, mesh, tmp_path) -> None:
    config = getattr(transformers, case.config)(**case.options)
    getattr(transformers, case.model)(config).save_pretrained(tmp_path)
    alone, sharded = load_model(tmp_path), load_model(tmp_path, mesh=make_mesh(mesh))
    assert sharded.fingerprint == alone.fingerprint
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, alone.config.vocab_size, (8, 7))
    mask = np.arange(7) < rng.integers(1, 8, 8)[:, None]
    sites = tuple(site for site in alone.sites if site != "attn.pattern")
    ours, theirs = (model(tokens, mask, capture=sites) for model in (sharded, alone))
    for site in sites:
        close(ours.captured[site], theirs.captured[site], PARITY)
    logits = ours.logits()
    assert logits.shape[-1] == alone.config.vocab_size, "no logit for a row that pads"
    close(logits, theirs.logits(), PARITY)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A decoder of our own, its folder, and a corpus that it reads."""
    world = mini_world(sentences=24, languages=("eng", "rus"))
    tokenizer = train_tokenizer(mini_world("train", sentences=100, languages=("eng", "rus")), 331)
    config = dataclasses.replace(small_config("bloom", 2, 32, 4), vocab_size=len(tokenizer))
    params = init_params(config, jax.random.key(0))
    folder = tmp_path_factory.mktemp("own") / "model"
    save_model(Model(params, config, tokenizer, "", "own", "bloom"), folder)
    return folder, world


@pytest.mark.parametrize("mesh", MESHES)
def test_collect_and_losses(own, mesh, tmp_path) -> None:
    folder, world = own
    alone, sharded = load_model(folder), load_model(folder, mesh=make_mesh(mesh))
    one = xl.collect(alone, world)
    many = xl.collect(sharded, world, workdir=tmp_path / "responses")
    close(many.matrix(), one.matrix(), PARITY)
    np.testing.assert_array_equal(many.pieces, one.pieces)
    tokens = tokenise(alone.tokenizer, world.texts, 64)
    losses = [language_losses(model, world, tokens)["loss"].values for model in (sharded, alone)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_sharded_model_is_saved_without_its_padding(own, tmp_path) -> None:
    folder, _ = own
    alone = load_model(folder)
    sharded = load_model(folder, mesh=make_mesh("model:8"))
    rows = sharded.params["embed"]["tokens"]["embedding"].shape[0]
    assert alone.config.vocab_size % 8 and rows == -(-alone.config.vocab_size // 8) * 8
    save_model(sharded, tmp_path / "again")
    for ours, theirs in zip(
        jax.tree.leaves(load_model(tmp_path / "again").params), jax.tree.leaves(alone.params)
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_each_device_holds_its_part(own) -> None:
    folder, _ = own
    whole = device_bytes(load_model(folder).params)
    part = load_model(folder, mesh=make_mesh("fsdp:4,model:2"))
    assert device_bytes(part.params) < 0.2 * whole
    kernel = part.params["layers"]["mlp"]["up"]["kernel"]
    assert isinstance(kernel.sharding, NamedSharding)
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 32 // 4, 128 // 2)
    heads = part.params["layers"]["attn"]["qkv"]["kernel"]
    assert heads.sharding.shard_shape(heads.shape) == (2, 32 // 4, 96 // 2)


def test_heads_are_not_cut(own) -> None:
    folder, _ = own
    eight = load_model(folder, mesh=make_mesh("model:8"))
    kernel = eight.params["layers"]["attn"]["qkv"]["kernel"]
    assert kernel.sharding.is_fully_replicated, "4 heads over 8 devices"
    assert not eight.params["layers"]["mlp"]["up"]["kernel"].sharding.is_fully_replicated


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data:16", "needs 16 devices, there are 8"),
        ("data:2,tensor:2", "'tensor:2'"),
        ("data:0", "'data:0'"),
        ("data", "'data'"),
        ("", "''"),
    ],
)
def test_a_mesh_that_cannot_be(text, said) -> None:
    with pytest.raises(InputError) as error:
        make_mesh(text)
    assert said in str(error.value)


def test_a_fresh_model_is_the_same_on_any_mesh(own) -> None:
    config = load_model(own[0]).config
    alone = init_params(config, jax.random.key(3))
    sharded = init_sharded(config, jax.random.key(3), "float32", make_mesh("fsdp:2,model:4"))
    for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(without_padding(sharded, config))):
        np.testing.assert_array_equal(one, many)


def test_the_plan_says_what_is_split_and_what_is_not(own) -> None:
    text = str(xl.plan(load_model(own[0], mesh=make_mesh("model:8")), own[1], measure="nothing"))
    assert "mesh        model 8; bytes are of each device" in text
    assert "replicated  layers/attn/out/kernel (4 heads over 8)" in text


@pytest.fixture(scope="module")
def cell():
    """Responses of sentences and neurons that eight devices do not divide, with ties and a NaN."""
    rng = np.random.default_rng(0)
    responses = rng.standard_normal((64, 101)).astype(np.float32)
    responses[:, ::3] = responses[:, ::3].round(0)
    responses[5, 7] = np.nan
    return responses, rng.random((64, 5)) < 0.3, rng.random((64, 5)) < 0.8


@pytest.mark.parametrize("spec", [("data", None), (None, None), ("data", "model")], ids=str)
@pytest.mark.parametrize("mesh", ["data:8", "data:2,model:4", "model:8"])
@pytest.mark.parametrize("measure", ["average_precision", "auroc"])
def test_ranking_and_experts(cell, mesh, spec, measure) -> None:
    responses, labels, where = cell
    mesh, score = make_mesh(mesh), getattr(xl.kernels, measure)
    if spec[1] == "model":
        responses = responses[:, :96]  # else the array itself could not be split
    place = NamedSharding(mesh, PartitionSpec(*spec))
    sharded = jax.device_put(responses, place)
    wanted = np.asarray(score(responses, labels, where))
    assert len(sharded.devices()) == 8
    for mask in (where, where[:, 0], None):
        close(score(sharded, labels, mask), score(responses, labels, mask), KERNEL["float32"])
    found = score(sharded, labels, where)
    sets = xl.kernels.expert_sets(jax.device_put(wanted, NamedSharding(mesh, PartitionSpec())), 9)
    np.testing.assert_array_equal(sets, xl.kernels.expert_sets(wanted, 9))
    overlaps = [xl.kernels.set_overlap(one[:1], one[1:], total=responses.shape[1])
                for one in (xl.kernels.expert_sets(found, 9), np.asarray(sets))]  # fmt: skip
    for ours, theirs in zip(*overlaps):
        close(ours, theirs, 1e-6)


@pytest.mark.parametrize("spec", [(None, "data", None), (None, None, "model")], ids=str)
def test_probes(spec) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, (2, 96))
    x = rng.standard_normal((2, 96, 16)).astype(np.float32)
    x[:, :, :3] += np.eye(3, dtype=np.float32)[y[0]]
    weight = (rng.random((2, 96)) < 0.7).astype(np.float32)
    sharded = jax.device_put(x, NamedSharding(make_mesh("data:4,model:2"), PartitionSpec(*spec)))
    ours, theirs = (np.asarray(xl.kernels.fit_probes(each, y, weight, 3)) for each in (sharded, x))
    close(ours, theirs, 2e-4)  # both are within the convergence of the minimum
    close(*(xl.kernels.score_probes(each, y, w)[1] for each, w in ((sharded, ours), (x, theirs))), 2e-4)


@pytest.mark.parametrize("mesh", ["data:8", "data:2,model:4"])
def test_one_compiled_program(own, mesh) -> None:
    folder, world = own
    world = world.with_concepts(world.concepts[:3])
    alone, sharded = (
        compiled_cell(load_model(folder, mesh=on), world, 7, batch_tokens=1024)
        for on in (None, make_mesh(mesh))
    )
    assert np.isclose(sharded.ap, alone.ap, atol=1e-4, equal_nan=True).mean() > 0.99
    assert np.abs(np.asarray(sharded.overlap) - np.asarray(alone.overlap)).mean() < 0.02


@pytest.mark.parametrize("mesh", ["data:8", "data:2,model:4"])
@pytest.mark.parametrize("kind", ["topk", "gated", "batch_topk"])
def test_dictionaries(kind, mesh) -> None:
    x, _ = planted(512, 12, 16, activations=2)
    # 42 latents are not divided by 4 devices; one run is narrower still.
    own = [dictionary_spec(kind, latents=42), dictionary_spec(kind, latents=20, activation=1, seed=1)]
    alone, sharded = (train_dictionaries(ArrayStream(x, batch_tokens=64), own, dictionary_settings(steps=12), mesh=on)
                      for on in (None, make_mesh(mesh)))
    for one, many in zip(alone, sharded):
        for ours, theirs in zip(jax.tree.leaves(many.params), jax.tree.leaves(one.params)):
            close(ours, theirs, 2e-4)


def test_each_device_holds_its_part_of_a_dictionary() -> None:
    own = [dictionary_spec("gated", latents=64)]
    group, = group_runs(own, dictionary_settings(), make_mesh("data:2,model:4"))
    packed = pack([init_dictionary(own[0].config, jax.random.key(0))], "gated", group.latents)
    mesh = make_mesh("data:2,model:4")
    batch = place_batch(np.zeros((1, 64, own[0].config.inputs), np.float32), mesh)
    state = place(jax.device_get(first_state(packed, group.program)), "gated", mesh, batch)
    assert device_bytes({**state, "averaged": ()}) < 0.3 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("mesh", ["data:8", "data:2,model:4"])
def test_a_stream_of_activations(own, mesh) -> None:
    folder, world = own
    streams = [ActivationStream(load_model(folder, mesh=on), world, (("resid", 1), ("mlp.down", 0)), batch_tokens=64,
                                model_tokens=1024, buffer_bytes=2**16) for on in (None, make_mesh(mesh))]
    for step in (0, 3):
        close(*(one.batch(step)[0] for one in streams), PARITY)


def test_influence(own) -> None:
    folder, world = own
    factors, scores = [], []
    for on in (None, make_mesh("data:4,model:2")):
        model = load_model(folder, mesh=on)
        tokens = tokenise(model.tokenizer, world.texts[:24], 64)
        made = fit_factors(model, tokens, FactorSettings(batch_tokens=1024, labels="true"))
        asked = made.precondition(sequence_gradients(model, made.matrices, tokens.rows(np.arange(3))))
        factors.append(made)
        scores.append((pairwise(model, made.matrices, asked, tokens), self_influence(model, made, tokens)))
    for name, one in factors[0].alpha.items():
        close(factors[1].alpha[name] / one.max(), one / one.max(), 1e-4)
    for one, many in zip(*scores):
        close(many / np.abs(one).max(), one / np.abs(one).max(), 1e-3)
