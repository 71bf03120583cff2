"""Files whole or absent; folders that belong to one experiment."""

import errno
import os

import pytest

from xlingjax.errors import InputError
from xlingjax.files import claim, write_whole


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch) -> None:
    path = tmp_path / "result"
    write_whole(path, b"before")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_another_experiment_is_refused_and_named(tmp_path) -> None:
    with claim(tmp_path, {"seed": 0, "model": {"layers": 2}}, "trace"):
        pass
    with claim(tmp_path, {"seed": 0, "model": {"layers": 2}}, "trace"):
        pass
    with pytest.raises(InputError, match="model.layers was 2 and is 4"):
        with claim(tmp_path, {"seed": 0, "model": {"layers": 4}}, "trace"):
            pass


def test_a_second_process_is_refused(tmp_path) -> None:
    with claim(tmp_path, {}, "trace"):
        with pytest.raises(InputError, match="in use by another process"):
            with claim(tmp_path, {}, "trace"):
                pass
