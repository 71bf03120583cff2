"""Records are whole or not there, on disk before their name is; one process at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xlingjax.errors import InputError
from xlingjax.files import differences, locked
from xlingjax.responses import ledger


def test_a_record_comes_back(tmp_path):
    body = {"name": "ü\udc80", "sizes": [1, 2], "nested": {"b": None, "a": 0.5}}
    ledger.write_record(tmp_path / "deep" / "record.json", body)
    assert ledger.read_record(tmp_path / "deep" / "record.json") == body
    assert os.listdir(tmp_path / "deep") == ["record.json"]


@pytest.mark.promise
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-9],
        lambda raw: raw.replace(b"17", b"18"),
        lambda raw: b"{}",
        lambda raw: b"[1]",
        lambda raw: b"\xff" + raw,
        lambda raw: b"null",
    ],
)
def test_a_damaged_record_is_named(tmp_path, damage):
    path = tmp_path / "manifest.json"
    ledger.write_record(path, {"order": [17]})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="manifest.json is damaged"):
        ledger.read_record(path)


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(InputError, match="manifest.json does not exist"):
        ledger.read_record(tmp_path / "manifest.json")


@pytest.mark.promise
def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    """The content is synced before the rename, the folder after it."""
    calls, sync, replace = [], os.fsync, os.replace

    def logged_sync(descriptor):
        calls.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", logged_sync)
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    ledger.write_record(tmp_path / "record.json", {})
    assert calls == ["sync record.json.part", "rename", f"sync {tmp_path.name}"]
    calls.clear()
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"content")
    size, digest = ledger.sync_file(tmp_path / "a" / "b" / "file", tmp_path)
    assert calls == ["sync file", "sync b", "sync a", f"sync {tmp_path.name}"]
    assert size == 7 and digest.startswith("ed7002b439e9")  # sha256sum


@pytest.mark.promise
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_leaves_the_old_record(tmp_path, monkeypatch, call):
    path = tmp_path / "record.json"
    ledger.write_record(path, {"state": "old"})
    monkeypatch.setattr(os, call, _raise(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"cannot write .*record.json: .*No space left on device"):
        ledger.write_record(path, {"state": "new"})
    monkeypatch.undo()
    assert ledger.read_record(path) == {"state": "old"}


@pytest.mark.promise
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    hold = (
        "import sys, time, pathlib; from xlingjax.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match="is in use by another process"),
            locked(tmp_path),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    with locked(tmp_path):
        pass


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file cannot be used"), locked(tmp_path / "file"):
        pass


def test_differences_name_what_changed():
    old = {"pool": "max", "model": {"dtype": "float32", "layers": 2}, "sites": ["a"]}
    new = {"pool": "mean", "model": {"dtype": "float32", "layers": 3}, "sites": ["a"]}
    assert differences(old, new) == [
        "pool was 'max' and is 'mean'",
        "model.layers was 2 and is 3",
    ]
    assert differences(old, json.loads(json.dumps(old))) == []


def _raise(error):
    def raising(*args):
        raise error

    return raising
