"""Killed anywhere and called again, a run ends with equal bytes; another experiment is refused."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

from xlingjax.errors import InputError
from xlingjax.files import locked
from xlingjax.responses import collect, collecting, jobs, open_responses, store

ROOT = Path(__file__).parents[2]
SETTINGS = {"batch_tokens": 128, "block_sentences": 8}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    collect(tiny.model(), tiny.sentences(60), workdir=workdir, **SETTINGS)
    return workdir


def test_batches_straddle_blocks(unbroken):
    """Otherwise the tests below show less than they say."""
    tokens = tiny.sentences(60)
    model, in_memory = tiny.model(), False
    job = jobs.prepare(model, tokens, None, "max", None, 128, None, in_memory, block_sentences=8)
    assert job.layout.blocks == 8 and any(start % 8 for start in job.starts)
    assert len(list((unbroken / "ledger").iterdir())) == 8


class Crash(BaseException):
    """A death that no `except Exception` sees."""


def crash_at(monkeypatch, module, name, call, after):
    """Makes the nth call of a function die, before or after its work."""
    real, count = getattr(module, name), [0]

    def wrapped(*args, **kwargs):
        count[0] += 1
        if count[0] == call and not after:
            raise Crash
        result = real(*args, **kwargs)
        if count[0] == call:
            raise Crash
        return result

    monkeypatch.setattr(module, name, wrapped)
    return count


POINTS = [
    (os, "fsync", 61),
    (os, "replace", 10),
    (store, "write_block", 8),
    (store, "open_arrays", 1),
]


@pytest.mark.promise
@pytest.mark.parametrize("module, name, most", POINTS, ids=[name for _, name, _ in POINTS])
def test_death_at_every_call(unbroken, tmp_path, monkeypatch, module, name, most):
    """Death before and after every fsync, rename and write of a run, each followed by a resume."""
    expected, model, tokens = tiny.tree(unbroken), tiny.model(), tiny.sentences(60)
    calls = random.Random(0).sample(range(1, most + 1), min(most, 8))
    for call in calls:
        for after in (False, True):
            workdir = tmp_path / f"{call}{after}"
            with monkeypatch.context() as patch, pytest.raises(Crash):
                crash_at(patch, module, name, call, after)
                collect(model, tokens, workdir=workdir, **SETTINGS)
            if not (workdir / "manifest.json").exists():
                with pytest.raises(InputError, match="has not finished"):
                    open_responses(workdir)
            collect(model, tokens, workdir=workdir, **SETTINGS)
            assert tiny.tree(workdir) == expected


@pytest.mark.promise
def test_resume_runs_only_what_is_missing(unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Crash):
        crash_at(patch, store, "write_block", 6, False)
        collect(tiny.model(), tiny.sentences(60), workdir=tmp_path / "run", **SETTINGS)
    with monkeypatch.context() as patch:
        written = crash_at(patch, store, "write_block", 99, False)
        steps = crash_at(patch, collecting, "pooled_step", 99, False)
        collect(tiny.model(), tiny.sentences(60), workdir=tmp_path / "run", **SETTINGS)
        assert written[0] == 3 and 0 < steps[0] < 8
        collect(tiny.model(), tiny.sentences(60), workdir=tmp_path / "run", **SETTINGS)
        assert written[0] == 3  # a finished run is opened, not run
    assert tiny.tree(tmp_path / "run") == tiny.tree(unbroken)


@pytest.mark.promise
def test_leftovers_of_a_kill_are_removed(unbroken, tmp_path, monkeypatch):
    """Half of an unrecorded file, and a file under the name that TensorStore writes to first."""
    with monkeypatch.context() as patch, pytest.raises(Crash):
        crash_at(patch, store, "write_block", 6, False)
        collect(tiny.model(), tiny.sentences(60), workdir=tmp_path / "run", **SETTINGS)
    folder = tmp_path / "run" / "arrays" / "mlp.up"
    (folder / "c.0.7.0").write_bytes((folder / "c.0.0.0").read_bytes()[:100])
    (folder / "c.0.6.0.__lock").write_bytes(b"half")
    collect(tiny.model(), tiny.sentences(60), workdir=tmp_path / "run", **SETTINGS)
    assert tiny.tree(tmp_path / "run") == tiny.tree(unbroken)


@pytest.mark.promise
def test_a_full_disk_loses_nothing(unbroken, tmp_path, monkeypatch):
    """No space for the fourth block, then for its record, then for the manifest."""
    full = OSError(28, "No space left on device")
    model, tokens, workdir = tiny.model(), tiny.sentences(60), tmp_path / "run"
    for module, name, call in [(store, "sync_file", 13), (os, "replace", 1), (os, "replace", 5)]:
        with monkeypatch.context() as patch:
            real, count = getattr(module, name), [0]

            def refuse(*args, real=real, count=count, call=call):
                count[0] += 1
                if count[0] >= call:
                    raise full
                return real(*args)

            patch.setattr(module, name, refuse)
            with pytest.raises(InputError, match="No space left on device; free some space"):
                collect(model, tokens, workdir=workdir, **SETTINGS)
        assert len(list((workdir / "ledger").glob("*.json"))) >= 3
        assert not (workdir / "manifest.json").exists()
    collect(model, tokens, workdir=workdir, **SETTINGS)
    assert tiny.tree(workdir) == tiny.tree(unbroken)


def start(workdir: Path, sentences: int) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/responses/tiny.py"), str(workdir), str(sentences)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def kill_and_resume(tmp_path: Path, kills: int, seed: int) -> None:
    """Kills a process at random moments of its run, again and again, then lets it finish here."""
    draw, sentences = random.Random(seed), 400
    collect(tiny.model(), tiny.sentences(sentences), workdir=tmp_path / "unbroken", **SETTINGS)
    workdir, states = tmp_path / "run", []
    while len(states) < kills:
        process = start(workdir, sentences)
        early, before = len(states) % 4 == 3, done(workdir)  # every fourth before any progress
        deadline = time.monotonic() + 60
        while not early and process.poll() is None and done(workdir) <= before:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(draw.choice([signal.SIGKILL, signal.SIGTERM]))
        code = process.wait()
        process.stdout.close()
        process.stderr.close()
        if code == 0:  # it had finished; begin anew
            assert tiny.tree(workdir) == tiny.tree(tmp_path / "unbroken")
            workdir = tmp_path / f"run{len(states)}"
            states.append(0)
            continue
        assert code in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM), code
        states.append(done(workdir))
    collect(tiny.model(), tiny.sentences(sentences), workdir=workdir, **SETTINGS)
    assert tiny.tree(workdir) == tiny.tree(tmp_path / "unbroken")
    assert any(states)


def done(workdir: Path) -> int:
    return len(list((workdir / "ledger").glob("*.json")))


@pytest.mark.promise
def test_killed_processes_resume_to_the_same_bytes(tmp_path):
    kill_and_resume(tmp_path, 4, seed=0)


@pytest.mark.slow
def test_fifty_kills(tmp_path):
    kill_and_resume(tmp_path, 50, seed=1)


@pytest.mark.promise
def test_sigterm_ends_after_the_batch_and_is_given_back(tmp_path):
    """The signal comes in the middle of a run, which ends with exit code 143 after the batch."""
    model, tokens, workdir = tiny.model(), tiny.sentences(60), tmp_path / "run"
    real = store.write_block

    def signalled(arrays, workdir, layout, block, values):
        if block == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(arrays, workdir, layout, block, values)

    store.write_block = signalled
    try:
        with pytest.raises(SystemExit) as ended:
            collect(model, tokens, workdir=workdir, **SETTINGS)
    finally:
        store.write_block = real
    assert ended.value.code == 143 and 4 <= done(workdir) < 8
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.promise
def test_a_second_run_on_the_workdir_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="in use by another process"):
        collect(tiny.model(), tiny.sentences(5), workdir=tmp_path)


def changed_model(**changes):
    return dataclasses.replace(tiny.model(), **changes)


CHANGES = {
    "pool": ({"pool": "mean"}, "pool was 'max' and is 'mean'"),
    "sites": ({"sites": ("mlp.up",)}, r"sites was \['attn.qkv'.*'mlp.down'\] and is \['mlp.up'\]"),
    "where": ({"where": {"first": False}}, "where.first was True and is False"),
    "given where": (
        {"where": [np.ones(len(ids), bool) for ids in tiny.sentences(60).ids]},
        "where.given was False and is True",
    ),
    "batch_tokens": ({"batch_tokens": 256}, "batch_tokens was 128 and is 256"),
    "max_length": ({"max_length": 100}, "max_length was 2048 and is 100"),
    "block_sentences": ({"block_sentences": 20}, "block_sentences was 8 and is 20"),
    "weights": (
        {"model": lambda: changed_model(fingerprint="f" * 64)},
        "model.fingerprint was '0{64}' and is 'f{64}'",
    ),
    "weights without a fingerprint": (
        {"model": lambda: changed_model(fingerprint="")},
        "model.fingerprint was '0{64}' and is '",
    ),
    "config": (
        {
            "model": lambda: changed_model(
                config=dataclasses.replace(tiny.CONFIG, norm_epsilon=1e-6)
            )
        },
        "model.config.norm_epsilon was 1e-05 and is 1e-06",
    ),
    "data": ({"corpus": tiny.sentences(60, seed=1)}, "tokens was "),
    "one token": (
        {
            "corpus": dataclasses.replace(
                tiny.sentences(60),
                ids=(*tiny.sentences(60).ids[:59], (tiny.sentences(60).ids[59] + 1) % 60),
            )
        },
        "tokens was ",
    ),
}


@pytest.mark.promise
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "begun"])
def test_another_experiment_is_refused(unbroken, tmp_path, monkeypatch, change, finished):
    workdir = unbroken
    arguments = {"model": tiny.model(), "corpus": tiny.sentences(60), **SETTINGS}
    if not finished:
        workdir = tmp_path / "begun"
        with monkeypatch.context() as patch, pytest.raises(Crash):
            crash_at(patch, store, "write_block", 2, False)
            collect(workdir=workdir, **arguments)
    before = tiny.tree(workdir)
    changes, message = CHANGES[change]
    changes = {name: value() if name == "model" else value for name, value in changes.items()}
    with pytest.raises(InputError, match=f"holds another experiment: .*{message}"):
        collect(workdir=workdir, **arguments | changes)
    assert tiny.tree(workdir) == before


@pytest.mark.promise
def test_other_counted_tokens_are_refused(tmp_path):
    tokens = tiny.sentences(10)
    counted = [np.ones(len(ids), bool) for ids in tokens.ids]
    collect(tiny.model(), tokens, where=counted, workdir=tmp_path)
    counted[3][1] = False
    with pytest.raises(InputError, match="holds another experiment: counted was "):
        collect(tiny.model(), tokens, where=counted, workdir=tmp_path)


@pytest.mark.promise
def test_other_versions_and_devices_are_refused(unbroken, monkeypatch):
    monkeypatch.setattr(jobs, "VERSIONS", ("jax", "jaxlib", "flax", "numpy", "tensorstore", "tqdm"))
    with pytest.raises(InputError, match="versions.tqdm was None and is"):
        collect(tiny.model(), tiny.sentences(60), workdir=unbroken, **SETTINGS)
    monkeypatch.undo()
    monkeypatch.setattr(jobs, "_mesh", lambda params: {"devices": 8})
    with pytest.raises(InputError, match="mesh.devices was 1 and is 8"):
        collect(tiny.model(), tiny.sentences(60), workdir=unbroken, **SETTINGS)


def test_a_workdir_without_its_experiment_is_refused(tmp_path):
    (tmp_path / "arrays").mkdir()
    with pytest.raises(
        InputError, match="experiment.json is missing from a workdir with responses"
    ):
        collect(tiny.model(), tiny.sentences(5), workdir=tmp_path)
