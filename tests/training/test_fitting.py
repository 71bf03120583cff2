"""The general loop: it is the textbook's update, it freezes, it resumes, and it says why it stops."""

import dataclasses
import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xlingjax.errors import InputError
from xlingjax.training import fitting
from xlingjax.training.checkpoints import RunFolder
from xlingjax.training.fitting import FitSettings, compiled_step, fit
from xlingjax.training.optimiser import OptimiserSettings, schedule

PLAIN = OptimiserSettings(learning_rate=0.05, warm_up=0, schedule="constant", weight_decay=0.0, clip=1e9)
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((400, 4)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.1 * RANDOM.standard_normal(400)).astype(np.float32)


def squares(params, frozen, batch, key):
    """Rows with `counted` 0 are read by nobody, so that parts of a batch have unequal counts."""
    error = batch["x"] @ params["kernel"] + frozen["shift"] - batch["y"]
    return (jnp.square(error) * batch["counted"]).sum(), batch["counted"].sum()


def batches(step):
    random = np.random.default_rng(step)
    rows, counted = random.integers(0, 400, 12), random.random(12) < 0.6
    return {"x": X[rows], "y": Y[rows], "counted": counted.astype(np.float32)}


START = {"kernel": np.zeros(4, np.float32)}
FROZEN = {"shift": np.float32(0.0)}


def run(folder, *, loss=squares, batches=batches, about=None, frozen=FROZEN, evaluate=None, **changes):
    settings = FitSettings(**{"steps": 20, "optimiser": PLAIN, "save_every": 4} | changes)
    return fit(loss, START, batches, settings, folder, about=about or {}, frozen=frozen, evaluate=evaluate)


def distance(params):
    return {"distance": float(jnp.square(X @ params["kernel"] - Y).mean()), "other": 0.0}


def contents(folder: Path, fitted) -> tuple:
    return np.asarray(fitted.params["kernel"]).tobytes(), (folder / "metrics.jsonl").read_bytes(), fitted.step


@pytest.mark.parametrize("accumulate", [1, 3])
def test_it_is_adam_on_the_mean_over_what_counts(accumulate, tmp_path):
    """Against optax by hand on the whole batch; parts have unequal counts, and are no means of means."""
    fitted = run(tmp_path, accumulate=accumulate)
    adam, w = optax.adamw(0.05, b2=0.98, weight_decay=0.0), jnp.zeros(4)
    state = adam.init(w)
    for step in range(1, 21):
        batch = batches(step)
        mean = lambda w, b=batch: (jnp.square(b["x"] @ w - b["y"]) * b["counted"]).sum() / b["counted"].sum()
        updates, state = adam.update(jax.grad(mean)(w), state, w)
        w = w + updates
    np.testing.assert_allclose(fitted.params["kernel"], w, atol=2e-6)
    assert fitted.step == 20 and [line["step"] for line in fitted.metrics] == [4, 8, 12, 16, 20]
    assert fitted.metrics[-1]["loss"] < fitted.metrics[0]["loss"]


@pytest.mark.parametrize("kind", ["adamw", "adam", "lamb"])
def test_every_optimiser_finds_the_minimum(kind, tmp_path):
    optimiser = OptimiserSettings(0.05, warm_up=5, schedule="linear", weight_decay=0.0, kind=kind)
    fitted = run(tmp_path, steps=300, optimiser=optimiser, save_every=300)
    best = np.linalg.lstsq(X, Y)[0]
    np.testing.assert_allclose(fitted.params["kernel"], best, atol=0.1)


def test_the_linear_schedule_ends_at_zero_after_the_last_step():
    rates = [float(schedule(OptimiserSettings(1.0, 10, "linear"), 100)(step)) for step in range(101)]
    assert rates[10] == 1.0 and rates[100] == 0.0
    np.testing.assert_allclose(np.diff(rates[10:]), -1 / 90, atol=1e-6)
    with pytest.raises(InputError, match="unknown optimiser 'sgd'"):
        OptimiserSettings(kind="sgd")


def test_what_is_frozen_has_no_state_and_no_gradient(tmp_path):
    frozen = {"shift": jnp.float32(0.25)}
    run(tmp_path, frozen=frozen)
    assert float(frozen["shift"]) == 0.25
    made = fitting.programs(squares, PLAIN, 20, 1, "float32")
    state = jax.eval_shape(made.initial, START)
    assert all(leaf.shape in ((4,), ()) for leaf in jax.tree.leaves(state))
    assert np.all(START["kernel"] == 0), "the caller's arrays stay as they are"


def test_sixteen_bits_keep_masters_of_thirty_two(tmp_path):
    seen = []

    def loss(params, frozen, batch, key):
        seen.append((params["kernel"].dtype, frozen["shift"].dtype))
        return squares(params, frozen, batch, key)

    fitted = run(tmp_path, loss=loss, compute="bfloat16", steps=300, save_every=300)
    assert set(seen) == {(jnp.dtype("bfloat16"), jnp.dtype("bfloat16"))}
    assert fitted.params["kernel"].dtype == "float32"
    np.testing.assert_allclose(fitted.params["kernel"], [1.0, -2.0, 0.5, 3.0], atol=0.1)


def test_seeds_and_folders_compile_one_program(tmp_path):
    run(tmp_path / "a")
    step = fitting.programs(squares, PLAIN, 20, 1, "float32").step
    before = step._cache_size()
    run(tmp_path / "b", seed=7)
    assert step._cache_size() == before == 1
    assert compiled_step(squares, START, batches(1), FitSettings(20, PLAIN), FROZEN).memory_analysis() is not None


def test_the_best_evaluation_is_returned_and_patience_ends_the_fit(tmp_path):
    values = iter([3.0, 1.0, 2.0, 2.5, 0.0])
    kept = []

    def evaluate(params):
        kept.append(np.asarray(params["kernel"]).copy())
        return {"score": next(values)}

    fitted = run(tmp_path, evaluate=evaluate, evaluate_every=3, patience=2)
    assert fitted.step == 6 and len(kept) == 4, "stopped at step 12, after two evaluations without improvement"
    np.testing.assert_array_equal(fitted.params["kernel"], kept[1])
    assert fitted.metrics[-1]["step"] == 12 and fitted.metrics[-1]["evaluation"] == {"score": 2.5}
    again = run(tmp_path, evaluate=evaluate, evaluate_every=3, patience=2)
    assert len(kept) == 4, "a fit that has ended is only read"
    np.testing.assert_array_equal(again.params["kernel"], kept[1])


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.promise
@pytest.mark.parametrize("name, call, after", [("claim", 1, True), *(
    (name, *when) for name in ("report", "save_state") for when in [(1, True), (2, False), (2, True), (3, False)])])
def test_a_crash_between_writes_changes_nothing(name, call, after, tmp_path, monkeypatch):
    options = {"evaluate": distance, "evaluate_every": 3}
    whole = contents(tmp_path / "whole", run(tmp_path / "whole", **options))
    true, used = getattr(RunFolder, name), []

    def crashing(self, *arguments):
        used.append(1)
        if len(used) == call and not after:
            raise Crash
        true(self, *arguments)
        if len(used) == call:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, name, crashing)
        with pytest.raises(Crash):
            run(tmp_path / "broken", **options)
    assert contents(tmp_path / "broken", run(tmp_path / "broken", **options)) == whole


@pytest.mark.promise
@pytest.mark.parametrize("number, raised", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_the_step(number, raised, tmp_path):
    whole = contents(tmp_path / "whole", run(tmp_path / "whole"))

    def stopping(step):
        if step == 7:
            os.kill(os.getpid(), number)
        return batches(step)

    with pytest.raises(raised):
        run(tmp_path / "stopped", batches=stopping)
    with RunFolder(tmp_path / "stopped") as folder:
        assert folder.saved_step() == 7
    assert contents(tmp_path / "stopped", run(tmp_path / "stopped")) == whole


def test_what_is_not_finite_names_its_step(tmp_path):
    def poisoned(step):
        batch = batches(step)
        return batch | {"y": batch["y"] * (np.float32("nan") if step == 11 else 1)}

    with pytest.raises(InputError, match=r"diverged at step 11 \(loss nan.*lower the learning rate 0\.05"):
        run(tmp_path, batches=poisoned)
    with RunFolder(tmp_path) as folder:
        assert folder.saved_step() == 8
    with pytest.raises(InputError, match="the evaluation score is nan at step 2"):
        run(tmp_path / "b", evaluate=lambda params: {"score": float("nan")}, evaluate_every=2)


@pytest.mark.promise
@pytest.mark.parametrize("changed, named", [
    ({"seed": 1}, "settings.seed was 0 and is 1"),
    ({"about": {"data": "b"}}, "about.data was 'a' and is 'b'"),
    ({"frozen": {"shift": np.float32(1)}}, "frozen was"),
    ({"evaluate": distance}, "evaluated was False and is True"),
])
def test_another_experiment_is_refused_by_name(changed, named, tmp_path):
    given = {"about": {"data": "a"}, "steps": 4}
    run(tmp_path, **given)
    with pytest.raises(InputError, match="holds another experiment") as error:
        run(tmp_path, **given | changed)
    assert named in str(error.value)


@pytest.mark.parametrize("changes, message", [
    ({"steps": 0}, "steps is 0"), ({"compute": "int8"}, "compute is 'int8'"), ({"seed": -1}, "seed -1"),
    ({"patience": 2}, "patience is 2 without evaluations"), ({"accumulate": 0}, "accumulate is 0"),
])
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        FitSettings(**{"steps": 4} | changes)


def test_a_batch_that_cannot_be_cut_is_refused(tmp_path):
    with pytest.raises(InputError, match="12 rows cannot be cut into accumulate=5"):
        run(tmp_path, accumulate=5)
    assert dataclasses.replace(FitSettings(4), accumulate=4).accumulate == 4
