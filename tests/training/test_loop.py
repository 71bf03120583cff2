"""The training loop: it learns, it is reproducible, and it says clearly why it stops."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from tiny_run import DECODER, ENCODER, contents, corpus, settings

from xlingjax.errors import InputError
from xlingjax.training import loop
from xlingjax.training.checkpoints import RunFolder
from xlingjax.training.loop import pretrain, read_metrics
from xlingjax.training.optimiser import OptimiserSettings, decayed, schedule
from xlingjax.training.settings import checkpoint_steps


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    said: list[str] = []
    return workdir, pretrain(corpus(), DECODER, settings(), workdir, show=said.append), said


lines = read_metrics


def test_powers_of_two_and_the_last_step_are_kept(run):
    workdir, checkpoints, _ = run
    assert [checkpoint.step for checkpoint in checkpoints] == [0, 1, 2, 4, 8, 10, 16, 20, 24]
    assert [checkpoint.tokens for checkpoint in checkpoints] == [64 * c.step for c in checkpoints]
    assert all((checkpoint.folder / "tokenizer.json").exists() for checkpoint in checkpoints)
    assert checkpoint_steps(1) == [0, 1] and checkpoint_steps(8) == [0, 1, 2, 4, 8]
    assert [line["step"] for line in lines(workdir)] == [0, 1, 2, 4, 5, 8, 10, 15, 16, 20, 24]


def test_metrics_tell_loss_rate_and_every_language(run):
    first, *_, last = lines(run[0])
    assert set(first["held_out_loss"]) == {"lat", "cyr", "gre", "arm"}, (
        "the language left out is evaluated"
    )
    vocabulary = 400
    assert all(abs(loss - math.log(vocabulary)) < 0.1 for loss in first["held_out_loss"].values())
    assert (
        last["tokens"] == 24 * 64 and 0 < last["learning_rate"] < 3e-3 and last["gradient_norm"] > 0
    )
    for language in ("lat", "cyr", "gre", "arm"):
        assert last["bits_per_character"][language] > 0


@pytest.mark.parametrize("config, objective", [(DECODER, "causal"), (ENCODER, "masked")])
def test_training_lowers_the_loss_of_the_languages_it_sees(config, objective, tmp_path):
    chosen = settings(
        steps=60,
        objective=objective,
        save_every=60,
        optimiser=OptimiserSettings(learning_rate=2e-2, warm_up=5),
    )
    pretrain(corpus(), config, chosen, tmp_path)
    first, *_, last = lines(tmp_path)
    for language in ("lat", "cyr", "gre"):
        assert last["held_out_loss"][language] < first["held_out_loss"][language] - 0.5


def test_the_plan_names_size_tokens_memory_and_languages(run):
    plan = run[2][0]
    params = json.loads((run[0] / "run.json").read_text())
    assert params["model"]["vocab_size"] == 400
    for part in ("parameters", "24 steps of 4 x 16 tokens", "memory", "disk", "never seen: arm"):
        assert part in plan
    assert "s a step" in run[2][1]


@pytest.mark.promise
def test_two_runs_of_one_seed_write_the_same_bytes(run, tmp_path):
    pretrain(corpus(), DECODER, settings(), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(run[0])
    pretrain(corpus(), DECODER, settings(seed=1, steps=1), tmp_path / "other")
    assert contents(tmp_path / "other")["0/params"] != contents(run[0])["0/params"]


def test_a_finished_run_is_only_read(run, monkeypatch):
    before = contents(run[0])
    monkeypatch.setattr(RunFolder, "save_state", lambda *_: pytest.fail("trained again"))
    again = pretrain(corpus(), DECODER, settings(), run[0])
    assert again == run[1] and contents(run[0]) == before


@pytest.mark.promise
@pytest.mark.parametrize(
    "changed, named",
    [
        (dict(settings=settings(seed=3)), "settings.seed was 0 and is 3"),
        (
            dict(settings=settings(optimiser=OptimiserSettings(learning_rate=1e-3, warm_up=4))),
            "settings.optimiser.learning_rate was 0.003 and is 0.001",
        ),
        (
            dict(config=dataclasses.replace(DECODER, mlp_width=64)),
            "model.mlp_width was 32 and is 64",
        ),
        (dict(corpus=corpus(documents=25)), "data.text was"),
        (dict(settings=settings(leave_out=())), "settings.leave_out was"),
        (dict(validation=corpus(documents=3)), "data.validation was"),
    ],
)
def test_another_experiment_in_the_folder_is_refused_by_name(run, changed, named):
    before = contents(run[0])
    given = dict(corpus=corpus(), config=DECODER, settings=settings(), workdir=run[0]) | changed
    with pytest.raises(InputError, match="holds another experiment") as error:
        pretrain(**given)
    assert named in str(error.value)
    assert contents(run[0]) == before


@pytest.fixture
def fresh_programs():
    """Programs compiled from patched code stay inside the test."""
    loop.compile_programs.cache_clear()
    yield
    loop.compile_programs.cache_clear()


@pytest.mark.promise
def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch, fresh_programs
):
    true_step = loop.make_step

    def poisoned(*arguments):
        step = true_step(*arguments)

        def diverging(state, tokens, key):
            state, loss, norm = step(state, tokens, key)
            count = optax_count(state["optimiser"])
            bad = count >= 11
            params = jax.tree.map(lambda x: jax.numpy.where(bad, jax.numpy.nan, x), state["params"])
            return {**state, "params": params}, loss, norm

        return diverging

    monkeypatch.setattr(loop, "make_step", poisoned)
    with pytest.raises(
        InputError, match=r"diverged at step 12 .*lower the learning rate 0\.003.*checkpoint is 10"
    ):
        pretrain(corpus(), DECODER, settings(), tmp_path)
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [0, 1, 2, 4, 8, 10]
    monkeypatch.setattr(loop, "make_step", true_step)
    loop.compile_programs.cache_clear()
    pretrain(corpus(), DECODER, settings(), tmp_path)
    assert max(line["step"] for line in lines(tmp_path)) == 24


def optax_count(state) -> jax.Array:
    return [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 0][0]


def test_poison_at_a_kept_step_is_not_kept(tmp_path, monkeypatch, fresh_programs):
    started = loop.init_params

    def broken(config, key):
        params = started(config, key)
        return params | {"norm": jax.tree.map(lambda x: x * jax.numpy.nan, params["norm"])}

    monkeypatch.setattr(loop, "init_params", broken)
    with pytest.raises(InputError, match="diverged at step 0 .*checkpoint is none"):
        pretrain(corpus(), DECODER, settings(), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_what_does_not_fit_is_refused(tmp_path):
    for given, message in [
        (dict(config=ENCODER), "objective 'causal' does not fit a model with causal=False"),
        (
            dict(config=ENCODER, settings=settings(objective="masked", length=64)),
            "length 64 exceeds",
        ),
        (dict(settings=settings(leave_out=("xxx",))), "'xxx', to be left out"),
        (
            dict(
                corpus=corpus().rows(np.zeros(0, int)),
            ),
            "has no text",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            pretrain(
                **(
                    dict(corpus=corpus(), config=DECODER, settings=settings(), workdir=tmp_path)
                    | given
                )
            )
    for changes, message in [
        (dict(steps=0), "steps is 0"),
        (dict(objective="x"), "objective 'x'"),
        (dict(seed=-1), "seed -1"),
        (dict(checkpoint_every=-1), "checkpoint_every is -1"),
    ]:
        with pytest.raises(InputError, match=message):
            settings(**changes)
    for changes, message in [
        (dict(learning_rate=0.0), "learning rate 0.0"),
        (dict(schedule="step"), "schedule 'step'"),
        (dict(clip=0.0), "clip 0.0"),
        (dict(warm_up=-1), "warm_up -1"),
    ]:
        with pytest.raises(InputError, match=message):
            OptimiserSettings(**changes)


def test_a_disk_too_small_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match="needs .* on disk and .* has 1 kB free"):
        pretrain(corpus(), DECODER, settings(), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_schedule_rises_and_falls_and_spares_biases_and_norms():
    chosen = OptimiserSettings(learning_rate=1.0, warm_up=10)
    rates = np.array([float(schedule(chosen, 100)(step)) for step in range(100)])
    assert 0 < rates[0] < 0.1 and np.all(np.diff(rates[:11]) > 0) and rates[10] == 1.0
    assert np.all(np.diff(rates[10:]) < 0) and 0.1 <= rates[-1] < 0.11
    flat = np.array(
        [
            float(schedule(dataclasses.replace(chosen, schedule="constant"), 100)(s))
            for s in range(100)
        ]
    )
    np.testing.assert_allclose(flat[10:], 1.0)
    config = dataclasses.replace(ENCODER, vocab_size=50)
    mask = decayed(loop.init_params(config, jax.random.key(0)))
    for path, keeps in jax.tree_util.tree_flatten_with_path(mask)[0]:
        name = jax.tree_util.keystr(path)
        assert keeps == (("kernel" in name) or ("embedding" in name)), name
