"""Stopped or killed anywhere, a training resumes to the bytes of an unbroken one; half a dictionary is none."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_dictionaries import KINDS, contents, settings, spec, specs, stream

from xlingjax.errors import InputError
from xlingjax.sae.coder import init_dictionary
from xlingjax.sae.dictionary import Dictionary, load_dictionary, save_dictionary
from xlingjax.sae.stream import ArrayStream
from xlingjax.sae.training import train_dictionaries
from xlingjax.training.checkpoints import RunFolder

SCRIPT = Path(__file__).with_name("tiny_dictionaries.py")


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    train_dictionaries(stream(), specs(), settings(), workdir)
    return contents(workdir)


def test_what_a_finished_run_leaves(unbroken) -> None:
    lines = [json.loads(line) for line in unbroken["metrics.jsonl"].splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert all(len(line[name]) == 3 for line in lines for name in ("loss", "fvu", "l0", "dead"))
    assert lines[-1]["fvu"][0] < lines[0]["fvu"][0] and abs(lines[-1]["l0"][0] - 4) < 0.5
    assert len(unbroken) == 1 + 3 * 2


@pytest.mark.promise
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_stopped_between_saves_it_resumes_to_the_same_bytes(number, raised, unbroken, tmp_path, monkeypatch) -> None:
    true = ArrayStream.batch

    def stop(self, step):
        if step == 12:
            os.kill(os.getpid(), number)
        return true(self, step)

    with monkeypatch.context() as patch, pytest.raises(raised):
        patch.setattr(ArrayStream, "batch", stop)
        train_dictionaries(stream(), specs(), settings(), tmp_path)
    with RunFolder(tmp_path) as folder:
        assert folder.saved_step() == 13
    made = train_dictionaries(stream(), specs(), settings(), tmp_path)
    assert contents(tmp_path) == unbroken
    read = load_dictionary(tmp_path / "dictionaries" / "1")
    np.testing.assert_array_equal(read.directions, made[1].directions)


@pytest.mark.promise
@pytest.mark.parametrize(("name", "call"), [("claim", 1), ("report", 2), ("save_state", 1), ("save_state", 5)])
def test_a_crash_after_any_write_changes_nothing(name, call, unbroken, tmp_path, monkeypatch) -> None:
    true, used = getattr(RunFolder, name), []

    def crashing(self, *arguments):
        true(self, *arguments)
        used.append(1)
        if len(used) == call:
            raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(RunFolder, name, crashing)
        train_dictionaries(stream(), specs(), settings(), tmp_path)
    train_dictionaries(stream(), specs(), settings(), tmp_path)
    assert contents(tmp_path) == unbroken


@pytest.mark.promise
@pytest.mark.slow
def test_killed_at_random_points_it_resumes_to_the_same_bytes(tmp_path) -> None:
    steps, draw = 400, random.Random(0)

    def start(workdir: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, str(SCRIPT), str(workdir), str(steps)], stderr=subprocess.PIPE)

    assert start(tmp_path / "unbroken").wait() == 0
    for lines in (3, 30, 70):
        process = start(tmp_path / "killed")
        metrics = tmp_path / "killed" / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= lines):
            time.sleep(0.002)
        time.sleep(draw.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors.decode()[-500:]
    assert start(tmp_path / "killed").wait() == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "unbroken")


@pytest.mark.promise
def test_another_experiment_is_refused(tmp_path) -> None:
    train_dictionaries(stream(), specs(), settings(steps=12, decay=2), tmp_path)
    for source, own, chosen, said in (
        (stream(seed=1), specs(), settings(steps=12, decay=2), "stream.seed was 0 and is 1"),
        (stream(), specs()[:2], settings(steps=12, decay=2), "dictionaries"),
        (stream(), specs(), settings(steps=13, decay=2), "settings.steps was 12 and is 13"),
    ):
        with pytest.raises(InputError, match=f"another experiment: .*{said}"):
            train_dictionaries(source, own, chosen, tmp_path)
    with RunFolder(tmp_path), pytest.raises(InputError, match="in use by another process"):
        train_dictionaries(stream(), specs(), settings(steps=12, decay=2), tmp_path)


def a_dictionary(kind: str = "gated", seed: int = 0, **options) -> Dictionary:
    config = spec(kind, **options).config
    return Dictionary(init_dictionary(config, jax.random.key(seed)), config, "resid", 2, ("mlp.down", 1), "name", "ab",
                      {"steps": 3, "settings": {"clip": None}})


@pytest.mark.parametrize("kind", KINDS)
def test_a_dictionary_comes_back_as_it_was(kind, tmp_path) -> None:
    one = a_dictionary(kind, config={"outputs": 9, "centred": False, "skip": True})
    save_dictionary(one, tmp_path / "one")
    back = load_dictionary(tmp_path / "one")
    assert back.described() == one.described() and back.config == one.config and back.target == one.target
    assert jax.tree.structure(back.params) == jax.tree.structure(one.params)
    for ours, theirs in zip(jax.tree.leaves(back.params), jax.tree.leaves(one.params)):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.promise
@pytest.mark.parametrize("name", ["dictionary.safetensors", "dictionary.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped"])
def test_a_damaged_dictionary_is_named(name, damage, tmp_path) -> None:
    save_dictionary(a_dictionary(), tmp_path)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        place = len(data) - 30 if name.endswith("tensors") else data.index(b"resid")
        data[place] ^= 1
        path.write_bytes({"empty": b"", "cut": data[:len(data) // 2], "flipped": data}[damage])
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load_dictionary(tmp_path)


@pytest.mark.promise
def test_a_crash_while_saving_leaves_no_half(tmp_path, monkeypatch) -> None:
    save_dictionary(a_dictionary(), tmp_path)
    true, used = os.replace, []

    def crashing(*arguments):
        used.append(1)
        if len(used) == 2:
            raise Crash
        return true(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(os, "replace", crashing)
        save_dictionary(a_dictionary(seed=1), tmp_path)
    with pytest.raises(InputError, match="dictionary.json is missing"):
        load_dictionary(tmp_path)


def test_parameters_of_another_shape_are_named(tmp_path) -> None:
    one = a_dictionary(latents=24)
    wrong = Dictionary({**one.params, "log_scale": np.zeros(23, np.float32)}, one.config)
    save_dictionary(wrong, tmp_path)
    with pytest.raises(InputError, match="holds a .*23.* 'log_scale'"):
        load_dictionary(tmp_path)
    save_dictionary(Dictionary({**one.params, "more": np.zeros(2, np.float32)}, one.config), tmp_path)
    with pytest.raises(InputError, match="holds more, of which"):
        load_dictionary(tmp_path)
