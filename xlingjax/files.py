"""Files that appear whole or not at all, and folders that belong to one experiment."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from xlingjax.errors import InputError


def write_whole(path: Path, data: bytes) -> None:
    """Writes `data` so that `path` holds all of it or what it held before, also after a crash.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; free or change the folder") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise InputError(
            f"cannot write {path}: {error.strerror}; free disk space and start again with the same "
            "--workdir") from error
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def differences(old: Mapping, new: Mapping, prefix: str = "") -> list[str]:
    """What differs between two settings, one phrase a key.

    >>> differences({"seed": 0, "model": {"layers": 2}}, {"seed": 0, "model": {"layers": 4}})
    ['model.layers was 2, is 4']
    """
    found = []
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            found += differences(was, now, f"{prefix}{key}.")
        elif was != now:
            found.append(f"{prefix}{key} was {was!r}, is {now!r}")
    return found


@contextlib.contextmanager
def claim(workdir: Path, settings: Mapping, what: str) -> Iterator[Path]:
    """Holds `workdir` for one process and one experiment.

    The first process writes `settings.json`; a later one resumes only with equal settings. If the
    first ends in an `InputError` before it made anything, the folder is free again, so that the same
    command with the mistake put right is not refused. The lock is the operating system's, so a killed
    process leaves none behind.

    Args:
        workdir: made if it does not exist.
        settings: everything that decides the result, JSON values.
        what: names the experiment in errors.

    Raises:
        InputError: another process works there, or the folder holds other settings.
    """
    workdir = Path(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = open(workdir / ".lock", "a+b")
    except OSError as error:
        raise InputError(
            f"cannot use workdir {workdir}: {error.strerror}; choose another --workdir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"workdir {workdir} is in use by another process; wait or choose another --workdir"
            ) from error
        path = workdir / "settings.json"
        fresh = json.loads(json.dumps({"experiment": what, **settings}))
        if path.exists():
            try:
                stored = json.loads(path.read_text())
            except ValueError as error:
                raise InputError(
                    f"{path} is not readable JSON; remove it or choose another --workdir"
                ) from error
            found = differences(stored, fresh)
            if found:
                raise InputError(
                    f"workdir {workdir} holds another experiment: {'; '.join(found[:6])}; "
                    "repeat the earlier settings or choose another --workdir")
        else:
            write_whole(path, json.dumps(fresh, indent=1, sort_keys=True).encode())
        try:
            yield workdir
        except InputError:
            if {entry.name for entry in workdir.iterdir()} <= {".lock", path.name}:
                path.unlink()
            raise
