"""Responses are the values of the model, pooled by NumPy one by one; costs stay bounded."""

import dataclasses
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from tolerances import BATCHING, close

from xlingjax.corpora.batching import plan_batches
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.models.transformer import forward
from xlingjax.responses import collect, stepping

SITES = ("embed", "attn.qkv", "mlp.up", "resid")


@pytest.fixture(scope="module")
def alone():
    """Site -> one array [L, t, F] for each of 30 sentences, each run alone and unpadded."""
    model, tokens = tiny.model(), tiny.sentences(30, lengths=(2, 5, 9, 20))
    step = jax.jit(
        lambda params, ids, mask: forward(params, model.config, ids, mask, capture=SITES)[1]
    )
    every = [step(model.params, ids[None], np.ones((1, len(ids)), bool)) for ids in tokens.ids]
    return tokens, {site: [np.asarray(one[site])[:, 0] for one in every] for site in SITES}


POOLED = {
    "max": lambda h: h.max(1),
    "mean": lambda h: h.mean(1),
    "sum": lambda h: h.sum(1),
    "last": lambda h: h[:, -1],
}


@pytest.mark.promise
@pytest.mark.parametrize("pool", POOLED)
@pytest.mark.parametrize("where", ["default", "first", "special", "given"])
def test_pooled_over_counted_tokens_only(alone, pool, where):
    tokens, hidden = alone
    if where == "given":
        draw = np.random.default_rng(1)
        rule = [draw.random(len(ids)) < 0.5 for ids in tokens.ids]
    else:
        rule = {"default": None, "first": {"first": False}, "special": {"special": True}}[where]
    skip = {"default": 1, "first": 2, "special": 0}.get(where)
    counts = rule if where == "given" else [np.arange(len(ids)) >= skip for ids in tokens.ids]
    responses = collect(tiny.model(), tokens, SITES, pool, where=rule, batch_tokens=128)
    for site in SITES:
        expected = np.stack(
            [
                POOLED[pool](h[:, count]) if count.any() else np.full((len(h), h.shape[-1]), np.nan)
                for h, count in zip(hidden[site], counts)
            ],
            axis=1,
        )
        tolerance = BATCHING * (40 if pool == "sum" else 1)
        close(responses[site][...], expected, tolerance, site)
    assert responses.pieces.tolist() == [int(count.sum()) for count in counts]
    assert responses.attrs["empty"] == [row for row, count in enumerate(counts) if not count.any()]


def test_argmax_is_the_place_in_the_sentence(alone):
    tokens, hidden = alone
    places = collect(tiny.model(), tokens, ("mlp.up",), "argmax", batch_tokens=128)["mlp.up"]
    highest = collect(tiny.model(), tokens, ("mlp.up",), "max", batch_tokens=128)["mlp.up"][...]
    assert places.dtype == np.int32
    for row, h in enumerate(hidden["mlp.up"]):
        found = np.take_along_axis(h, places[:, row][:, None], axis=1)[:, 0]
        assert places[:, row].min() >= 1
        close(found, highest[:, row], BATCHING)


def test_leaving_out_pieces_of_a_language():
    from xlingjax.corpora.corpus import Corpus

    model, tokens = tiny.model(), tiny.sentences(12)
    corpus = Corpus(
        ("x",) * 12,
        np.array(["a", "b"] * 6),
        np.array(["d"] * 12),
        np.array([""] * 12),
        np.zeros((12, 0), np.int8),
    )
    with pytest.raises(InputError, match="leave_out needs languages"):
        collect(model, tokens, where={"leave_out": {"a": np.array([5])}})
    with pytest.raises(InputError, match="loaded without a tokenizer"):
        collect(model, corpus, where={"leave_out": {"a": np.array([5])}})


@pytest.mark.promise
def test_nonfinite_responses_are_counted_by_site_and_layer():
    model, tokens = tiny.model(), tiny.sentences(20)
    params = jax.tree.map(lambda leaf: leaf, model.params)
    up = params["layers"]["mlp"]["up"]
    up["bias"] = up["bias"].at[1, 7].set(np.nan).at[1, 9].set(np.inf)
    planted = dataclasses.replace(model, params=params)
    with (
        pytest.warns(UserWarning, match=r"NaN or infinite responses at mlp.up in layers 1 \(40\)"),
        pytest.warns(UserWarning, match=r"at attn.qkv in layers 2 \(960\)"),
    ):
        responses = collect(planted, tokens, ("attn.qkv", "mlp.up"), batch_tokens=128)
    assert responses.attrs["nonfinite"]["mlp.up"] == [0, 40, 20 * 40]
    assert responses.attrs["nonfinite"]["attn.qkv"] == [0, 0, 20 * 48]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = Tokens(
            (np.array([1], np.int32), tokens.ids[0]), (np.array([True]), tokens.special[0])
        )
        responses = collect(model, empty)
    assert responses.attrs["nonfinite"] == {} and responses.attrs["empty"] == [0]
    assert (
        np.isnan(responses["mlp.up"][:, 0]).all() and np.isfinite(responses["mlp.up"][:, 1]).all()
    )


@pytest.mark.promise
def test_one_compilation_for_each_shape():
    """Own process, no compilation cache: 50 ragged batches and a second run with other weights."""
    script = """
import sys; sys.path.insert(0, sys.argv[1])
import jax, tiny
from xlingjax.responses import collect, plan
names = []
def listen(event, seconds, **about):
    if event == "/jax/core/compile/backend_compile_duration":
        names.append(event)
jax.monitoring.register_event_duration_secs_listener(listen)
model, other, tokens = tiny.model(), tiny.model(seed=1), tiny.sentences(800, longest=16)
planned = plan(model, tokens, batch_tokens=160, measure="nothing")
before = len(names)
collect(model, tokens, batch_tokens=160)
first = len(names) - before
collect(other, tokens, batch_tokens=160)
print(planned.batches, planned.compilations, first, len(names) - before - first)
"""
    printed = _python(script, JAX_ENABLE_COMPILATION_CACHE="0")
    batches, planned, first, second = map(int, printed.split())
    assert batches >= 50 and first == planned == 2 and second == 0


@pytest.mark.promise
def test_hot_path_moves_nothing_unasked():
    tokens = tiny.sentences(40)
    collect(tiny.model(), tokens, batch_tokens=128)
    with jax.transfer_guard("disallow"):
        collect(tiny.model(), tokens, batch_tokens=128)


@pytest.mark.promise
def test_live_buffers_do_not_grow(monkeypatch):
    model, tokens = tiny.model(), tiny.sentences(150, longest=8)
    assert len(plan_batches(tokens.lengths, 64)) > 15
    seen, real = [], stepping.pooled_step

    def counting(*args):
        seen.append(sum(array.nbytes for array in jax.live_arrays()))
        return real(*args)

    monkeypatch.setattr("xlingjax.responses.collecting.pooled_step", counting)
    collect(model, tokens, batch_tokens=64)
    assert len(seen) > 15 and seen[-1] <= seen[2]


@pytest.mark.promise
def test_host_memory_stays_flat_on_disk(tmp_path):
    """Peak memory of a run of 16,000 sentences (46 MB of responses) against one of 2,000 (6 MB)."""
    script = """
import sys, resource; sys.path.insert(0, sys.argv[1])
import tiny
from xlingjax.responses import collect
config = tiny.CONFIG.__class__(**{**tiny.CONFIG.to_dict(), "mlp_width": 160})
model = tiny.model(config)
def peak(count, name):
    tokens = tiny.sentences(count, longest=6)
    collect(model, tokens, workdir=sys.argv[2] + name, batch_tokens=512, block_sentences=256)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
small = peak(2000, "/a")
print(peak(16000, "/b") - small)
"""
    grown = int(_python(script, str(tmp_path))) * 1024
    size = sum(path.stat().st_size for path in (tmp_path / "b" / "arrays").rglob("c.*"))
    assert size > 40e6 and grown < size / 2, (
        f"{grown / 1e6:.0f} MB more for {size / 1e6:.0f} MB of responses"
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pool": "median"}, "pool 'median' is unknown"),
        ({"sites": ("mlp.sideways",)}, "site 'mlp.sideways' is not in tiny-0; choose among embed"),
        ({"sites": "mlp.up"}, "give a tuple of sites"),
        ({"sites": ()}, "at least one"),
        ({"batch_tokens": 8}, "batch_tokens=8 holds no"),
        ({"max_length": 5}, "the most here is 5"),
        ({"sites": ("mlp.up", "attn.pattern")}, "'attn.pattern' has no pooled responses"),
        ({"where": {"frist": False}}, "it takes special, first and leave_out"),
        ({"where": [np.ones(3, bool)]}, "one bool for each token"),
        ({"corpus": Tokens((), ())}, "no sentences"),
        (
            {"corpus": Tokens((np.array([1, 67], np.int32),), (np.array([True, False]),))},
            "gives token 67, but tiny-0 knows 67",
        ),
    ],
)
def test_refused_arguments(changes, message):
    arguments = {"corpus": tiny.sentences(5)} | changes
    with pytest.raises(InputError, match=message):
        collect(tiny.model(), **arguments)


def _python(script: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(tiny.__file__).parent), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
