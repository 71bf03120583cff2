"""Killed anywhere, a run resumes to the bytes of an unbroken one."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import DECODER, contents, corpus, settings

from xlingjax.errors import InputError
from xlingjax.training.checkpoints import RunFolder
from xlingjax.training.loop import pretrain
from xlingjax.training.streams import Stream

SCRIPT = Path(__file__).with_name("tiny_run.py")


class Crash(BaseException):
    """The process ends here."""


def crash_at(monkeypatch, name: str, call: int, after: bool) -> None:
    """The `call`-th use of a method of the run folder ends the process, before or after its
    work."""
    true, used = getattr(RunFolder, name), []

    def crashing(self, *arguments):
        used.append(1)
        if len(used) == call and not after:
            raise Crash
        true(self, *arguments)
        if len(used) == call:
            raise Crash

    monkeypatch.setattr(RunFolder, name, crashing)


@pytest.fixture(scope="module")
def short():
    return settings(steps=2, save_every=1)


@pytest.fixture(scope="module")
def unbroken(short, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    pretrain(corpus(), DECODER, short, workdir)
    return contents(workdir)


@pytest.mark.promise
@pytest.mark.parametrize(
    "name, call, after",
    [
        ("claim", 1, True),
        ("save_checkpoint", 1, True),
        ("report", 1, True),
        ("save_state", 1, True),
        ("save_checkpoint", 2, True),
        ("report", 2, False),
        ("report", 2, True),
        ("save_state", 2, False),
        ("save_state", 2, True),
        ("save_checkpoint", 3, False),
        ("save_checkpoint", 3, True),
        ("report", 3, True),
        ("save_state", 3, True),
    ],
)
def test_a_crash_between_any_two_writes_changes_nothing(
    name, call, after, short, unbroken, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        crash_at(patch, name, call, after)
        with pytest.raises(Crash):
            pretrain(corpus(), DECODER, short, tmp_path)
    pretrain(corpus(), DECODER, short, tmp_path)
    assert contents(tmp_path) == unbroken


@pytest.mark.promise
@pytest.mark.parametrize("write", ["replace"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_crash_or_full_disk_at_a_rename_changes_nothing(
    write, call, short, unbroken, tmp_path, monkeypatch
):
    for error in (Crash(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))):
        true, used = getattr(os, write), []

        def failing(*arguments, true=true, used=used, error=error, **options):
            used.append(1)
            if len(used) == call:
                raise error
            return true(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, write, failing)
            try:
                pretrain(corpus(), DECODER, short, tmp_path)
            except Crash:
                pass
            except InputError as refusal:
                assert "disk" in str(refusal) and "is full" in str(refusal)
    pretrain(corpus(), DECODER, short, tmp_path)
    assert contents(tmp_path) == unbroken


def start(workdir: Path, changes: str) -> subprocess.Popen:
    """The same run in a process of its own."""
    program = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); from tiny_run import *;"
        "from xlingjax.training.loop import pretrain;"
        f"pretrain(corpus(), DECODER, settings({changes}), {str(workdir)!r})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def wait_for_lines(workdir: Path, process: subprocess.Popen, count: int) -> None:
    metrics = workdir / "metrics.jsonl"
    while process.poll() is None and not (
        metrics.exists() and metrics.read_bytes().count(b"\n") >= count
    ):
        time.sleep(0.002)


@pytest.mark.promise
@pytest.mark.slow
def test_killed_at_random_points_it_resumes_to_the_same_bytes(tmp_path):
    steps, generator = 300, random.Random(0)
    pretrain(corpus(), DECODER, settings(steps=steps), tmp_path / "unbroken")
    workdir = tmp_path / "killed"
    for count in (4, 20, 50):
        process = start(workdir, f"steps={steps}")
        wait_for_lines(workdir, process, count)
        time.sleep(generator.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors.decode()[-500:]
    pretrain(corpus(), DECODER, settings(steps=steps), workdir)
    assert contents(workdir) == contents(tmp_path / "unbroken")


@pytest.mark.promise
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_signals_from_outside_save_the_step(number, status, tmp_path):
    process = start(tmp_path, "steps=5000, save_every=5000")
    wait_for_lines(tmp_path, process, 6)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode in (status, 130), errors.decode()[-500:]
    with RunFolder(tmp_path) as folder:
        assert max(folder.checkpoints()) <= folder.saved_step() < 5000


@pytest.mark.promise
@pytest.mark.parametrize(
    "number, raised", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_stopped_between_saves_it_resumes_to_the_same_bytes(number, raised, tmp_path, monkeypatch):
    """The signal comes while the batch of step 13 is made, which is neither kept nor saved by
    itself."""
    pretrain(corpus(), DECODER, settings(), tmp_path / "unbroken")
    true = Stream.batch

    def stop_at_13(self, step):
        if step == 13:
            os.kill(os.getpid(), number)
        return true(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "batch", stop_at_13)
        with pytest.raises(raised) as stopped:
            pretrain(corpus(), DECODER, settings(), tmp_path / "stopped")
    assert getattr(stopped.value, "code", 143) == 143
    with RunFolder(tmp_path / "stopped") as folder:
        assert folder.saved_step() == 13
    pretrain(corpus(), DECODER, settings(), tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "unbroken")


@pytest.mark.promise
def test_a_second_process_on_the_folder_is_refused(tmp_path):
    with RunFolder(tmp_path), pytest.raises(InputError, match="in use by another process"):
        pretrain(corpus(), DECODER, settings(), tmp_path)


@pytest.mark.promise
def test_a_damaged_state_is_refused(short, tmp_path):
    pretrain(corpus(), DECODER, short, tmp_path)
    largest = max(
        (path for path in (tmp_path / "state").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(largest.read_bytes())
    for damage in ("flipped", "cut"):
        if damage == "flipped":
            broken = content.copy()
            broken[len(broken) // 2] ^= 1
        else:
            broken = content[: len(content) // 2]
        largest.write_bytes(broken)
        with pytest.raises(InputError, match=r"training state .* is damaged"):
            pretrain(corpus(), DECODER, short, tmp_path)
