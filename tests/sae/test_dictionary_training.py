"""Training: several at once as each alone, what is planted is found, raw activations are read, bad input is named."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_dictionaries import KINDS, planted, settings, spec, specs, stream
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.sae import training
from xlingjax.sae.coder import init_dictionary, reconstruct
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.normalising import geometric_median, unscaled
from xlingjax.sae.packing import pack
from xlingjax.sae.settings import DictionarySpec, TrainSettings
from xlingjax.sae.stream import ArrayStream
from xlingjax.sae.training import group_runs, train_dictionaries
from xlingjax.sae.updating import first_state, resample, update

TOGETHER = 2e-4  # of parameters near 1 after 20 Adam steps of 3e-3, several at once against each alone


def several(kind: str) -> list[DictionarySpec]:
    """Runs that differ in all that may differ."""
    own = {"batch_topk": {"k": 3}, "topk": {"k": 2}, "matryoshka": {"k": 3}}.get(kind, {"sparsity": 0.2})
    width = 40 if kind == "matryoshka" else 24  # its prefixes are part of the program
    return [spec(kind), spec(kind, latents=width, activation=1, seed=5, learning_rate=1e-3, **own)]


@pytest.mark.promise
@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_several_at_once_are_each_alone(kind, in_turn, monkeypatch) -> None:
    """By `vmap`, as on an accelerator, and one after the other in the compiled step, as on a CPU."""
    true = training.group_runs
    monkeypatch.setattr(training, "group_runs", lambda *given: [
        dataclasses.replace(group, program=dataclasses.replace(group.program, in_turn=in_turn))
        for group in true(*given)])
    own = several(kind)
    chosen = settings(steps=20)
    assert len(group_runs(own, chosen, None)) == 1, "one compiled step"
    together = train_dictionaries(stream(), own, chosen)
    for one, wanted in zip(own, together):
        alone, = train_dictionaries(stream(), [one], chosen)
        assert alone.config == wanted.config and alone.layer == wanted.layer == one.activation
        for ours, theirs in zip(jax.tree.leaves(wanted.params), jax.tree.leaves(alone.params)):
            close(ours, theirs, TOGETHER)
    assert np.abs(together[0].directions[:24] - together[1].directions[:24]).max() > 0.1


def test_kinds_are_trained_beside_each_other_in_the_order_given() -> None:
    made = train_dictionaries(stream(), specs(), settings(steps=4, warm_up=1, decay=1, sparsity_warm_up=1))
    assert [one.config for one in made] == [one.config for one in specs()]
    assert [one.about["seed"] for one in made] == [0, 1, 3]


@pytest.mark.promise
@pytest.mark.parametrize("kind", KINDS)
def test_no_latent_beyond_its_width_is_ever_active(kind) -> None:
    own = [spec(kind, latents=24), dataclasses.replace(spec(kind, latents=24), seed=2)]
    group, = group_runs(own, settings(), None)
    packed = pack([init_dictionary(one.config, jax.random.key(one.seed)) for one in own], kind, 40)
    program = dataclasses.replace(group.program, bandwidth=50.0)  # wide enough to reach the padding
    state = jax.tree.map(jnp.asarray, first_state(packed, program))
    runs = _runs(own)
    if kind == "matryoshka":
        program = dataclasses.replace(program, groups=(10, 40))
    x = jnp.asarray(planted(64, 12, 16)[0])
    for step in range(3):
        state, _ = update(program, state, runs, x, None, jnp.float32(1), jnp.float32(1), jnp.bool_(True))
        state = resample(program, state, runs, x, None, jnp.int32(step))
    assert (np.asarray(state["quiet"])[:, 24:] == 3 * 64).all(), "they were active"
    for name, axis in (("encoder", 2), ("decoder", 1)):
        kernel = np.moveaxis(np.asarray(state["params"][name]["kernel"]), axis, 1)
        assert not kernel[:, 24:].any() and kernel[:, :24].any(axis=-1).all()


def _runs(own):
    from xlingjax.sae.objectives import Run
    column = lambda values, dtype: jnp.asarray(values, dtype)
    return Run(column([0] * len(own), jnp.int32), column([one.seed for one in own], jnp.uint32),
               column([max(1, one.config.k) for one in own], jnp.int32),
               column([one.sparsity for one in own], jnp.float32), column([one.rate for one in own], jnp.float32),
               column([0] * len(own), jnp.float32), column([one.config.latents for one in own], jnp.int32),
               column([1] * len(own), jnp.float32), column([1] * len(own), jnp.float32))


@pytest.mark.promise
def test_another_seed_k_penalty_or_rate_compiles_nothing(caplog) -> None:
    chosen = settings(steps=2, warm_up=1, decay=1, sparsity_warm_up=1)
    train_dictionaries(stream(), [spec("topk"), spec("gated")], chosen)
    update_programs = update._cache_size()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train_dictionaries(stream(), [spec("topk", k=7, seed=9, learning_rate=1e-4),
                                      spec("gated", sparsity=3.0, seed=8, activation=1)], chosen)
    assert update._cache_size() == update_programs
    assert not [line for line in caplog.messages if "_update" in line or "update)" in line]


def test_the_step_compiles_once_though_batches_come_from_a_model(monkeypatch) -> None:
    """What a model made is on its device for certain, as the state is after a step; before it too, then."""
    made = stream()
    plain = made.batch
    monkeypatch.setattr(made, "batch", lambda step: tuple(
        None if part is None else jax.device_put(part, jax.devices()[0]) for part in plain(step)))
    update.clear_cache()
    train_dictionaries(made, [spec("topk")], settings(steps=3, warm_up=1, decay=1, sparsity_warm_up=1))
    assert update._cache_size() == 1


# Penalties at which the planted directions are what costs least; L1 needs a strong one.
PLANTED = {"relu": {"sparsity": 3.0}, "gated": {"sparsity": 3.0}, "topk": {"k": 2}, "batch_topk": {"k": 2},
           "matryoshka": {"k": 2}, "jumprelu": {"sparsity": 0.6}}


@pytest.mark.promise
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_planted_directions_are_found(kind) -> None:
    x, true = planted()
    one = spec(kind, 24, 48, **PLANTED[kind])
    made, = train_dictionaries(ArrayStream(x, batch_tokens=512), [one], settings(
        steps=800, warm_up=40, decay=160, sparsity_warm_up=160, dead_after=10_000, threshold_from=200))
    cosines = made.directions @ true[0].T
    assert cosines.max(axis=0).mean() > 0.9
    np.testing.assert_allclose(np.linalg.norm(made.directions, axis=1), 1, atol=1e-5)
    active = (np.asarray(made.encode(x[0])) > 0).sum(axis=1).mean()
    assert 1 < active < 6, "two directions a token were planted"


@pytest.mark.promise
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [{}, {"outputs": 9, "centred": False, "skip": True}], ids=str)
def test_normalisation_is_folded_in_exactly(kind, sizes) -> None:
    config = spec(kind, 12, 40, config=sizes).config
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: np.asarray(leaf + 0.1 * draw.standard_normal(leaf.shape), np.float32),
                          init_dictionary(config, jax.random.key(0)))
    if "threshold" in params:
        params["threshold"] = np.abs(params["threshold"]) + np.float32(0.2)
    scale_in, scale_out = 8.0, 8.0 if config.centred else 0.5  # powers of two, so that nothing rounds
    raw = unscaled(params, config, scale_in, scale_out)
    x = draw.standard_normal((64, 12)).astype(np.float32) * 8
    close(reconstruct(raw, config, x) / scale_out, reconstruct(params, config, x / scale_in), 2e-6)
    np.testing.assert_array_equal(raw["decoder"]["kernel"], params["decoder"]["kernel"])


def test_activations_of_any_scale_are_trained_alike() -> None:
    x = planted(512, 12, 16)[0]
    one, large = (train_dictionaries(ArrayStream(scale * x, batch_tokens=64), [spec("gated")], settings())[0]
                  for scale in (1, 64))
    close(large(64 * x[0]) / 64, one(x[0]), 1e-5)
    close(large.directions, one.directions, 1e-6)


def test_transcoders_write_the_targets() -> None:
    x, _ = planted(512, 12, 16)
    y = np.tanh(x @ np.random.default_rng(1).standard_normal((12, 9)).astype(np.float32))
    pairs = ArrayStream(x, y, batch_tokens=64, places=[("mlp.in", 1)], targets=[("mlp.down", 1)])
    one = spec("topk", config={"outputs": 9, "centred": False, "skip": True})
    made, = train_dictionaries(pairs, [one], settings(steps=150))
    left = np.square(y[0] - made(x[0])).sum() / np.square(y[0] - y[0].mean(0)).sum()
    assert left < 0.5 and made.target == ("mlp.down", 1) and (made.site, made.layer) == ("mlp.in", 1)


def test_dead_latents_start_anew_where_the_error_is() -> None:
    one = spec("relu")
    group, = group_runs([one], settings(), None)
    params = init_dictionary(one.config, jax.random.key(0))
    state = jax.tree.map(jnp.asarray, first_state(pack([params], "relu", 40), group.program))
    state["adam"] = jax.tree.map(lambda leaf: leaf + jnp.asarray(3, leaf.dtype), state["adam"])
    dead = np.arange(40) % 3 == 0
    state["quiet"] = jnp.asarray(np.where(dead, 256, 0)[None], jnp.int32)
    before = jax.device_get(state)
    x = planted(64, 12, 16)[0]
    x[0, 10] *= 1000  # what is explained worst
    after = jax.device_get(resample(group.program, state, _runs([one]), jnp.asarray(x), None, jnp.int32(5)))
    rows = after["params"]["decoder"]["kernel"][0]
    close(rows[dead], np.tile(x[0, 10] / np.linalg.norm(x[0, 10]), (dead.sum(), 1)), 1e-5)
    columns = after["params"]["encoder"]["kernel"][0]
    living = np.linalg.norm(before["params"]["encoder"]["kernel"][0][:, ~dead], axis=0).mean()
    close(columns[:, dead], 0.2 * living * rows[dead].T, 1e-5)
    assert not after["params"]["encoder"]["bias"][0][dead].any() and not after["quiet"].any()
    for moment in (after["adam"].mu, after["adam"].nu):
        assert not moment["decoder"]["kernel"][0][dead].any() and (moment["decoder"]["kernel"][0][~dead] == 3).all()
        assert not moment["encoder"]["kernel"][0][:, dead].any() and (moment["decoder"]["bias"] == 3).all()
    for name, kept in (("encoder", np.s_[0, :, ~dead]), ("decoder", np.s_[0, ~dead])):
        np.testing.assert_array_equal(after["params"][name]["kernel"][kept], before["params"][name]["kernel"][kept])


def test_resampling_happens_at_its_steps() -> None:
    plain, again = (train_dictionaries(stream(), [spec("relu", sparsity=90.0, learning_rate=2e-2)], settings(
        dead_after=128, resample_at=at))[0] for at in ((), (12, 20)))
    assert np.abs(plain.directions - again.directions).max() > 0.1


def test_the_geometric_median_against_a_minimiser() -> None:
    from scipy.optimize import minimize
    x = np.random.default_rng(0).standard_normal((50, 3)) ** 3
    wanted = minimize(lambda m: np.linalg.norm(x - m, axis=1).sum(), x.mean(0), tol=1e-12).x
    close(geometric_median(jnp.asarray(x, jnp.float32)), wanted, 1e-4)


@pytest.mark.parametrize(("start", "wanted"), [
    ("mean", lambda x: x.mean(axis=0)), ("zero", lambda x: np.zeros(12)), ("median", None)])
def test_the_decoder_s_bias_starts_where_it_is_told(start, wanted) -> None:
    source = stream()
    made, = train_dictionaries(source, [spec("topk", activation=1)], settings(
        steps=1, warm_up=1, decay=0, sparsity_warm_up=0, start=start, scale_batches=3))
    seen = np.concatenate([np.asarray(source.batch(step)[0][1]) for step in range(3)])
    right = geometric_median(jnp.asarray(seen[:64])) if wanted is None else wanted(seen)
    close(made.params["decoder"]["bias"], right, 1e-4)  # the first step of a warm-up moves nothing


def test_schedules() -> None:
    one = TrainSettings(steps=10, warm_up=2, decay=4, sparsity_warm_up=5)
    np.testing.assert_allclose([one.rate_factor(step) for step in range(1, 11)],
                               [0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose([one.penalty_factor(step) for step in range(1, 8)], [0, 0.2, 0.4, 0.6, 0.8, 1, 1])


@pytest.mark.parametrize(("made", "said"), [
    (lambda: TrainSettings(steps=10), "do not fit into 10 steps"),
    (lambda: settings(start="middle"), "start is 'middle'"),
    (lambda: settings(beta_2=1.0), "beta_2 is 1.0"),
    (lambda: settings(bandwidth=0), "bandwidth is 0"),
    (lambda: settings(resample_at=(31,)), "resample_at names step 31"),
    (lambda: settings(dead_after=0), "dead_after is 0"),
    (lambda: spec("relu", sparsity=0.0), "sparsity of a relu dictionary is 0.0"),
    (lambda: DictionarySpec(DictionaryConfig("topk", 4, 8, k=2), sparsity=1.0), "sparsity of a topk dictionary is 1.0"),
    (lambda: spec("topk", learning_rate=0.0), "learning rate 0.0"),
    (lambda: spec("gated", target_l0=3.0), "only jumprelu takes one"),
    (lambda: spec("topk", seed=-1), "seed -1"),
    (lambda: train_dictionaries(stream(), [], settings()), "no dictionary is given"),
    (lambda: train_dictionaries(stream(), [spec("topk", activation=2)], settings()), "reads activation 2"),
    (lambda: train_dictionaries(stream(), [spec("topk", 11)], settings()), "of width 11 to 11"),
    (lambda: train_dictionaries(ArrayStream(np.ones((1, 64, 12)), np.ones((1, 64, 12)), batch_tokens=64),
                                [spec("topk")], settings()), "give centred=False"),
    (lambda: train_dictionaries(ArrayStream(np.zeros((1, 64, 12)), batch_tokens=64), [spec("topk")], settings()),
     "are 0; leave that layer out"),
    (lambda: train_dictionaries(stream(), [spec("relu", learning_rate=1e30)], settings()), "dictionary 0 diverged at"),
])
def test_what_cannot_be_trained(made, said) -> None:
    with pytest.raises(InputError, match=said):
        made()


def test_the_plan_says_what_a_run_needs(tmp_path, capsys) -> None:
    said: list[str] = []
    train_dictionaries(stream(), specs(), settings(steps=12, decay=2), tmp_path, show=said.append)
    text, = said
    assert "training   3 dictionaries" in text and "12 steps = 768 tokens, 1.5 times the 512 there are" in text
    states = sum(path.stat().st_size for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert "disk" in text and "s a step" in text and states > 0
