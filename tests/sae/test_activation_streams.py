"""Streams of activations: every real token once an epoch, the same batch whenever it is asked for, memory or disk."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CONFIG, model, sentences
from tolerances import BATCHING, close

from xlingjax.corpora.batching import BatchPlan, make_batch
from xlingjax.errors import InputError
from xlingjax.models.model import Model
from xlingjax.sae import activations
from xlingjax.sae.activations import ActivationStream
from xlingjax.sae.blocks import read_activations, write_activations
from xlingjax.sae.stream import ArrayStream

PLACES = (("resid", 1), ("mlp.down", 2))
BYTES = 2 * 16 * 4 * 96  # of a buffer of 96 tokens of two activations


def stream(count: int = 30, **options) -> ActivationStream:
    return ActivationStream(model(), sentences(count), PLACES, **{
        "batch_tokens": 32, "buffer_bytes": BYTES, "seed": 3, "model_tokens": 256} | options)


@functools.cache
def states(count: int = 30) -> np.ndarray:
    """float32[A, n, D] of every real token, all sentences in one batch."""
    tokens = sentences(count)
    ids, mask, where, _ = make_batch(tokens, BatchPlan(int(tokens.lengths.max()), np.arange(count)))
    captured = model()(ids, mask, capture=[site for site, _ in PLACES]).captured
    return np.stack([np.asarray(captured[site][layer])[where] for site, layer in PLACES])


def match(served: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """For each served token the place of its activations among the true ones."""
    distance = np.abs(served[0][:, None] - truth[0][None]).max(axis=-1)
    assert (distance.min(axis=1) < BATCHING).all(), "an activation of no real token"
    return distance.argmin(axis=1)


@pytest.mark.promise
@pytest.mark.parametrize("on_device", [True, False])
def test_every_real_token_once_an_epoch_and_no_special_one(on_device) -> None:
    one = stream(on_device=on_device, batch_tokens=1, buffer_bytes=BYTES)
    truth = states()
    same = (np.abs(truth[0][:, None] - truth[0][None]).max(axis=-1) < BATCHING).argmax(axis=1)
    assert one.tokens == truth.shape[1]
    buffers = [one.buffer(number) for number in range(-(-2 * one.tokens // one.buffer_tokens))]
    served = np.concatenate([np.asarray(x) for x, _ in buffers], axis=1)
    for epoch in (0, 1):
        part = served[:, epoch * one.tokens:(epoch + 1) * one.tokens]
        found = match(part, truth)
        close(part, truth[:, found], BATCHING)
        # Equal tokens after equal contexts have equal activations: each counts as the first of its like.
        assert sorted(same[found]) == sorted(same)
    assert not np.array_equal(served[:, :one.tokens], served[:, one.tokens:2 * one.tokens])


@pytest.mark.promise
def test_batches_are_a_shuffled_buffer() -> None:
    one = stream()
    per = one.buffer_tokens // one.batch_tokens
    assert (one.buffer_tokens, per) == (96, 3)
    x, none = one.buffer(1)
    batches = np.concatenate([np.asarray(one.batch(per + place)[0]) for place in range(per)], axis=1)
    assert none is None and not np.array_equal(batches, x)
    np.testing.assert_array_equal(np.sort(batches.reshape(-1)), np.sort(np.asarray(x).reshape(-1)))
    np.testing.assert_array_equal(batches, np.asarray(x)[:, one.order(1)])


@pytest.mark.promise
def test_any_step_gives_the_same_bytes_in_any_order() -> None:
    forward, backward = stream(), stream()
    steps = range(25)
    first = {step: np.asarray(forward.batch(step)[0]).tobytes() for step in steps}
    assert len(set(first.values())) == 25
    assert {step: np.asarray(backward.batch(step)[0]).tobytes() for step in reversed(steps)} == first
    assert np.asarray(stream(seed=4).batch(0)[0]).tobytes() not in first.values()


def test_device_host_and_disk_serve_the_same(tmp_path) -> None:
    device, host = stream(), stream(on_device=False)
    written = write_activations(stream(), tmp_path)
    assert written.tokens == device.tokens // 96 * 96
    for step in range(written.tokens // 32):
        wanted = np.asarray(device.batch(step)[0])
        np.testing.assert_array_equal(host.batch(step)[0], wanted)
        np.testing.assert_array_equal(written.batch(step)[0], wanted)
    again = np.asarray(written.batch(written.tokens // 32)[0])
    assert again.shape == wanted.shape, "after the last block they come again"


def test_few_shapes_are_compiled_once() -> None:
    activations._fill_step.clear_cache()
    one = stream(count=60)
    for number in range(12):
        one.buffer(number)
    assert activations._fill_step._cache_size() == len(one._shapes)


def test_targets_belong_to_the_same_tokens() -> None:
    pairs = ActivationStream(model(), sentences(30), PLACES[:1], (("mlp.up", 2),), batch_tokens=32, model_tokens=256)
    x, y = pairs.batch(0)
    assert (x.shape, y.shape) == ((1, 32, 16), (1, 32, 40))
    alone = ActivationStream(model(), sentences(30), (("mlp.up", 2),), batch_tokens=32, model_tokens=256,
                             buffer_bytes=2**40)
    close(y, alone.batch(0)[0], 1e-6)


def test_the_first_token_can_be_left_out() -> None:
    assert stream(first=False).tokens == stream().tokens - sum((~row).any() for row in sentences(30).special)


def test_activations_that_are_not_finite_are_named(tmp_path) -> None:
    params = jax.tree.map(jnp.copy, model().params)
    params["layers"]["mlp"]["down"]["bias"] = params["layers"]["mlp"]["down"]["bias"].at[2].set(jnp.nan)
    broken = dataclasses.replace(model(), params=params) if dataclasses.is_dataclass(Model) else Model(
        params, CONFIG, fingerprint="", name="broken")
    for on_device in (True, False):
        one = ActivationStream(broken, sentences(30), PLACES, batch_tokens=32, buffer_bytes=BYTES, on_device=on_device)
        with pytest.raises(InputError, match=r"1536 activations at mlp.down, layer 2, .*not finite"):
            one.batch(0)
    with pytest.raises(InputError, match="1 activations at , layer 0"):
        ArrayStream(np.where(np.arange(40).reshape(1, 10, 4) == 7, np.inf, 0), batch_tokens=5)


@pytest.mark.promise
def test_killed_while_writing_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch) -> None:
    write_activations(stream(), tmp_path / "whole")
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "blocks").iterdir()}
    true, written = ActivationStream.buffer, []
    for stop in (0, 2, 3):

        def failing(self, number, stop=stop):
            if number == stop:
                raise KeyboardInterrupt
            written.append(number)
            return true(self, number)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ActivationStream, "buffer", failing)
            write_activations(stream(), tmp_path / "broken")
        with pytest.raises(InputError, match="manifest.json is missing"):
            read_activations(tmp_path / "broken")
    assert written == [0, 1, 2], "finished blocks are not made again"
    write_activations(stream(), tmp_path / "broken")
    assert {path.name: path.read_bytes() for path in (tmp_path / "broken" / "blocks").iterdir()} == wanted
    assert (tmp_path / "broken" / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()


@pytest.mark.promise
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_damaged_block_is_named(damage, tmp_path) -> None:
    written = write_activations(stream(), tmp_path)
    path = tmp_path / "blocks" / "000001.bin"
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-4])
    else:
        data[100] ^= 1
        path.write_bytes(data)
    written.batch(0)
    for read in (lambda: written.batch(3), lambda: write_activations(stream(), tmp_path)):
        with pytest.raises(InputError, match=r"000001\.bin (is missing|has .* bytes|was altered)"):
            read()
    (tmp_path / "ledger" / "000001.json").unlink()
    write_activations(stream(), tmp_path).batch(3)


@pytest.mark.promise
def test_another_experiment_is_refused(tmp_path) -> None:
    write_activations(stream(), tmp_path)
    for changed, name in ((stream(seed=4), "seed"), (stream(count=29), "tokens"), (stream(first=False), "first")):
        with pytest.raises(InputError, match=f"holds another experiment.*{name}"):
            write_activations(changed, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["body"]["about"]["seed"] = 9
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="manifest.json is damaged"):
        read_activations(tmp_path)


@pytest.mark.parametrize(("options", "said"), [
    ({"places": (("resid", 3),)}, "layer 3 of 'resid' is not in tiny-0; it has 3"),
    ({"places": (("mlp.nothing", 0),)}, "site 'mlp.nothing' is not in tiny-0"),
    ({"places": (("resid", 0), ("mlp.up", 0))}, "unequal widths"),
    ({"places": ()}, "no activation is named"),
    ({"targets": (("resid", 0),)}, "1 targets are given for 2 activations"),
    ({"batch_tokens": 10**6}, "a batch of 1000000 tokens cannot be filled"),
    ({"model_tokens": 16}, "model_tokens=16 holds no batch"),
])
def test_what_cannot_be_a_stream(options, said) -> None:
    with pytest.raises(InputError, match=said):
        ActivationStream(model(), sentences(30), **{"places": PLACES, "batch_tokens": 32} | options)
