"""P15 and the door's other promises: edits do what is named, captures are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import KERNEL, TWO_PROGRAMS, close

from xlingjax.errors import InputError
from xlingjax.models import (
    Edit,
    Model,
    TransformerConfig,
    forward,
    init_params,
    transformer,
    unembed,
)
from xlingjax.models import model as model_file
from xlingjax.neurons import Neuron

CONFIG = TransformerConfig(
    vocab_size=31, layers=3, width=12, heads=6, mlp_width=20, fused="by_head", embed_norm=True
)
TOKENS = np.random.default_rng(0).integers(0, 31, (4, 7))
MASK = np.arange(7)[None] >= np.array([0, 2, 4, 6])[:, None]  # padded on the left
WHERE = MASK & (np.arange(7)[None] != 6) | (np.arange(4)[:, None] == 3) & MASK
SITES = tuple(site for site in Model({}, CONFIG).sites if site != "attn.pattern")


@pytest.fixture(scope="module")
def model():
    params = init_params(CONFIG, jax.random.key(0))
    louder = jax.tree.map(lambda x: x * 5 if x.ndim > 1 else x, params)
    return Model(louder, CONFIG, name="tiny", family="bloom")


@pytest.fixture(scope="module")
def full(model):
    """Every token of every site, without edits."""
    return model(TOKENS, MASK, capture=model.sites)


@pytest.mark.promise
def test_reductions_inside_the_layer_loop_are_those_of_the_full_capture(model, full):
    positions = np.array([[6, 6, 0], [6, 4, 1], [5, 9, -1], [6, 0, 6]])

    def largest(h, where):
        return {"largest": jnp.where(where[..., None], h, -jnp.inf).max(axis=(1, 2)), "h": h}

    sites = ("resid", "embed", "attn.qkv", "mlp.act")
    tokens = {site: np.asarray(full.captured[site], np.float64) for site in sites}
    for how in ("max", "mean", "last", "sum", "argmax", "positive", "position", positions, largest):
        ours = model(TOKENS, MASK, dict.fromkeys(sites, how), where=WHERE).captured
        assert tuple(ours) == sites
        for site in sites:
            for row in range(4):
                seen = np.flatnonzero(WHERE[row])
                h = tokens[site][:, row, seen]  # [L, counted, F]
                expected = {
                    "max": lambda h=h: h.max(axis=1),
                    "mean": lambda h=h: h.mean(axis=1),
                    "last": lambda h=h: h[:, -1],
                    "sum": lambda h=h: h.sum(axis=1),
                    "positive": lambda h=h: (h > 0).mean(axis=1),
                    "position": lambda h=h: np.average(h, axis=1, weights=np.arange(1, h.shape[1] + 1)),
                    "argmax": lambda h=h, seen=seen: seen[h.argmax(axis=1)],
                }
                if isinstance(how, str):
                    close(ours[site][:, row], expected[how](), 1e-5, f"{site} {how}")
                elif callable(how):
                    assert ours[site]["h"].shape == tokens[site].shape
                    close(ours[site]["largest"][:, row], h.max(axis=(1, 2)), 1e-6, site)
                else:
                    for column, at in enumerate(positions[row]):
                        real = 0 <= at < 7 and MASK[row, at]
                        value = tokens[site][:, row, at] if real else np.full(h[:, 0].shape, np.nan)
                        close(ours[site][:, row, column], value, 1e-6, f"{site} {at}")


@pytest.mark.slow  # to the bit only where both programs are optimised, as these are
@pytest.mark.promise
def test_identity_edit_is_no_edit(model, full):
    identities = [
        Edit(scale=1.0),
        Edit(add=0.0),
        Edit(scale=jnp.ones((3, 4, 7, 1)), add=np.zeros((1, 4, 1, 1))),
        Edit(mask=np.zeros((1, 1, 1, 1), bool), value=99.0),
        Edit(value=99.0, where=np.zeros((4, 7), bool)),
    ]
    for edit in identities:
        if edit.scale is not None and np.ndim(edit.scale) == 4:
            edits = {site: edit for site in SITES if site != "embed"}
        else:
            edits = dict.fromkeys(SITES, edit)
        out = model(TOKENS, MASK, capture=SITES, edits=edits)
        for site in SITES:
            close(np.where(MASK[..., None], out.captured[site], 0),
                  np.where(MASK[..., None], full.captured[site], 0), TWO_PROGRAMS, site)  # fmt: skip
        close(out.hidden[MASK], full.hidden[MASK], TWO_PROGRAMS)


@pytest.mark.promise
@pytest.mark.parametrize("site", SITES)
def test_edit_reaches_what_is_named_and_nothing_before_it(model, full, site):
    layers, units = np.shape(full.captured[site])[0], np.shape(full.captured[site])[-1]
    layer = layers - 1
    named = np.zeros((layers, 1, 1, units), bool)
    named[layer, ..., 2] = True
    where = np.zeros((4, 7), bool)
    where[0, 5] = where[1, :] = where[2, 6] = True
    edit = Edit(scale=2.0, mask=named, value=np.float64(7.5), where=where)
    out = model(TOKENS, MASK, capture=SITES, edits={site: edit})
    before, after = (np.asarray(x.captured[site]) for x in (full, out))
    reached = np.broadcast_to((where & MASK)[None, :, :, None], before.shape)
    expected = np.where(reached, np.where(named, 7.5, before * 2), before)
    close(after[0], expected[0], 1e-6, site)  # the first layer has seen no other edit
    assert (after[layer][..., 2][where & MASK] == 7.5).all()
    assert out.edited[site].tolist() == [1, 5, 1, 0]
    close(out.hidden[3], full.hidden[3], 0)  # a row that is not named
    close(out.hidden[0][:5], full.hidden[0][:5], 0)  # causal: earlier tokens have not seen it
    assert np.abs(out.hidden[0][5] - full.hidden[0][5]).max() > 1e-3
    first = SITES.index(site)
    for earlier in SITES[1:first] if site != "embed" else ():
        close(out.captured[earlier][0], full.captured[earlier][0], 0, earlier)


@pytest.mark.promise
def test_each_row_and_layer_carries_its_own_edit(model, full):
    add = np.random.default_rng(1).normal(size=(3, 4, 1, 12))
    together = model(TOKENS, MASK, edits={"resid": Edit(add=add)}).hidden
    for row in range(4):
        apart = np.zeros_like(add)
        apart[:, row] = add[:, row]
        alone = model(TOKENS, MASK, edits={"resid": Edit(add=apart)}).hidden
        close(together[row], alone[row], KERNEL["float32"])
        others = np.arange(4) != row
        close(alone[others], full.hidden[others], KERNEL["float32"])


@pytest.mark.promise
def test_other_values_compile_nothing_and_other_fields_do(model):
    model_file._run.clear_cache()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        edit = Edit(add=rng.normal(size=(3, 1, 1, 20)), where=rng.random((4, 7)) < 0.5)
        capture = {"resid": "max", "embed": rng.integers(0, 7, (4, 2))}
        model(rng.integers(0, 31, (4, 7)), MASK, capture, {"mlp.up": edit}, where=WHERE)
    assert model_file._run._cache_size() == 1
    model(TOKENS, MASK, {"resid": "max"}, {"mlp.up": Edit(scale=0.0)})
    assert model_file._run._cache_size() == 2


@pytest.mark.promise
def test_scanned_layers_equal_unrolled_layers(model, monkeypatch):
    def unrolled(body, carry, xs):
        held = []
        for i in range(CONFIG.layers):
            carry, kept = body(carry, jax.tree.map(lambda x, i=i: x[i], xs))
            held.append(kept)
        return carry, jax.tree.map(lambda *x: jnp.stack(x), *held)

    edits = {"mlp.down": Edit(scale=jnp.ones((3, 1, 1, 12)))}
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, "float64"), model.params)

        def run():
            return forward(
                params, CONFIG, jnp.asarray(TOKENS), jnp.asarray(MASK), capture=SITES, edits=edits
            )

        scanned = run()
        monkeypatch.setattr(transformer.jax.lax, "scan", unrolled)
        by_hand = run()
    jax.tree.map(lambda ours, theirs: close(ours, theirs, KERNEL["float64"]), by_hand, scanned)


def test_forward_serves_jit_grad_and_vmap(model):
    tokens, mask = jnp.asarray(TOKENS), jnp.asarray(MASK)

    def score(add):
        hidden, _ = forward(model.params, CONFIG, tokens, mask, edits={"mlp.up": Edit(add=add)})
        return unembed(model.params, CONFIG, hidden)[0, -1, 3]

    zero = jnp.zeros((3, 1, 1, 20))
    gradient = jax.jit(jax.grad(score))(zero)
    step = zero.at[1, 0, 0, 4].set(1e-2)
    slope = (score(step) - score(-step)) / 2e-2
    assert abs(float(slope - gradient[1, 0, 0, 4])) < 1e-2 * abs(float(slope)) + 1e-4
    many = jax.vmap(score)(jnp.stack([zero, step, -step]))
    close(many, [score(zero), score(step), score(-step)], 1e-5)


def test_unrequested_sites_leave_no_trace_in_the_program(model):
    def run(params, tokens, mask):
        return forward(params, CONFIG, tokens, mask, capture={"mlp.up": "max"})

    lowered = jax.make_jaxpr(run)(model.params, jnp.asarray(TOKENS), jnp.asarray(MASK))
    shapes = [tuple(out.aval.shape) for out in lowered.jaxpr.outvars]
    assert shapes == [(4, 7, 12), (3, 4, 20)]
    scans = [eqn for eqn in lowered.jaxpr.eqns if eqn.primitive.name == "scan"]
    assert [tuple(out.aval.shape) for out in scans[0].outvars] == [(4, 7, 12), (3, 4, 20)]


def test_logits_at_positions_are_those_of_all(model, full):
    every = np.asarray(full.logits())
    assert every.shape == (4, 7, 31)
    at = np.array([[6, 0], [3, 6], [6, 6], [6, 5]])
    close(full.logits(at), np.take_along_axis(every, at[..., None], axis=1), 1e-5)
    for wrong in ([[7]] * 4, [[0.5]] * 4, [[0]]):
        with pytest.raises(InputError, match="positions"):
            full.logits(wrong)


def test_neurons_name_bloom_modules(model):
    index = model.neurons()
    assert index.total == 3 * (36 + 12 + 20 + 12)
    assert index.neuron(3 * 36 + 12) == Neuron("attn.out", 1, 0)
    assert index.module("mlp.up", 2) == "transformer.h.2.mlp.dense_h_to_4h"
    assert model.neurons(["resid"]).total == 36
    with pytest.raises(InputError, match="'mlp.gate' is not in this model; choose among embed, "):
        model.neurons(["mlp.gate"])


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"capture": ("mlp.gate",)},
            "site 'mlp.gate' is not in this model; choose among embed, attn.in",
        ),
        ({"capture": "resid"}, "capture is the string 'resid'"),
        ({"capture": {"resid": "median"}}, "reduction 'median'"),
        ({"capture": {"resid": np.zeros((4, 2))}}, "positions of site 'resid' are float"),
        ({"capture": {"attn.pattern": "max"}}, "'attn.pattern' has no token reduction"),
        ({"edits": {"mlp.gate": Edit(scale=0.0)}}, "site 'mlp.gate'"),
        ({"edits": {"attn.pattern": Edit(scale=0.0)}}, "'attn.pattern' cannot be edited"),
        ({"edits": {"resid": {"scale": 0.0}}}, "give an Edit"),
        ({"edits": {"resid": Edit(mask=np.ones(12, bool))}}, "a mask without a value"),
        ({"edits": {"resid": Edit(scale=np.ones(13))}}, "scale of the edit of site 'resid' is"),
        ({"edits": {"resid": Edit(scale=np.ones((2, 1, 1, 12)))}}, "scale of the edit"),
        ({"edits": {"resid": Edit(scale=np.ones((7, 12)))}}, "scale of the edit"),
        ({"edits": {"embed": Edit(add=np.ones((3, 1, 1, 12)))}}, "add of the edit of site 'embed'"),
        ({"edits": {"resid": Edit(value=0.0, mask=np.ones(12))}}, "mask of the edit"),
        ({"edits": {"resid": Edit(value=0.0, where=np.ones(7, bool))}}, "where of the edit"),
        ({"where": np.ones((4, 6), bool)}, "where is bool of shape"),
    ],
)
def test_request_that_does_not_fit_is_named(model, given, message):
    with pytest.raises(InputError, match=message):
        model(TOKENS, MASK, **given)


def test_edit_takes_lists(model):
    out = model(TOKENS, MASK, {"mlp.up": None}, {"mlp.up": Edit(value=[0.5] * 20)})
    assert (np.asarray(out.captured["mlp.up"])[:, MASK] == 0.5).all()


def test_encode_pads_on_the_right_and_needs_a_tokenizer(model):
    def tokenizer(texts):
        return {"input_ids": [[ord(c) % 31 for c in text] for text in texts]}

    reader = Model(model.params, CONFIG, tokenizer)
    tokens, mask = reader.encode(["abc", "", "a"])
    assert tokens.tolist() == [[4, 5, 6], [0, 0, 0], [4, 0, 0]]
    assert mask.sum(axis=1).tolist() == [3, 0, 1]
    assert reader(tokens, mask).hidden.shape == (3, 3, 12)
    with pytest.raises(InputError, match="'tiny' has no tokenizer"):
        model.encode(["abc"])
    with pytest.raises(InputError, match="give a list of strings"):
        reader.encode("abc")


def test_model_without_a_head_has_no_logits(model):
    headless = TransformerConfig.from_dict(CONFIG.to_dict() | {"head": ""})
    with pytest.raises(InputError, match="no output head"):
        Model(model.params, headless)(TOKENS).logits()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_pass_keeps_the_dtype_of_the_parameters(dtype):
    params = init_params(CONFIG, jax.random.key(0), dtype)
    with jax.numpy_dtype_promotion("strict"):
        hidden, captured = forward(
            params, CONFIG, jnp.asarray(TOKENS), jnp.asarray(MASK), capture={"mlp.up": "mean"}
        )
    assert {x.dtype.name for x in jax.tree.leaves((params, hidden, captured))} == {dtype}


def test_float64_needs_x64():
    with pytest.raises(InputError, match="dtype is 'float64'"):
        init_params(CONFIG, jax.random.key(0), "float64")
