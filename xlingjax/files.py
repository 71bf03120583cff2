"""Files that appear whole or not at all, their names, and folders that belong to one experiment."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xlingjax import hosts
from xlingjax.errors import InputError


def write_whole(path: Path, data: bytes) -> None:
    """Writes `data` so that `path` holds all of it or what it held before, also after a crash.

    The caller is the only writer of `path` (see `locked`). Of several hosts the first one writes.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    if not hosts.writes():
        return
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise InputError(
            f"cannot write {path}: {error}; free some space there and run the same command again, "
            "what is finished is kept"
        ) from error


def slug(name: str) -> str:
    """A name, say of a group of concepts, as one part of a path.

    >>> slug("own form")
    'own_form'
    """
    return "".join(c if c.isalnum() else "_" for c in name)


def sync_folder(folder: Path) -> None:
    """Brings a folder's entries to disk: a rename in it is lasting only after that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Where two settings of JSON values differ, one phrase a dotted name.

    >>> differences({"seed": 0, "model": {"layers": 2}}, {"seed": 0, "model": {"layers": 4}})
    ['model.layers was 2 and is 4']
    >>> differences([{"step": 1, "name": "a"}], [{"name": "a", "step": 1}])
    []
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            phrase
            for key in dict.fromkeys([*old, *new])
            for phrase in differences(
                old.get(key), new.get(key), f"{name}.{key}" if name else str(key))
        ]
    equal = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    return [] if equal else [f"{name} was {old!r} and is {new!r}"]


def canonical(value: Any) -> str:
    """JSON without room for variation, to compare and to hash."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


@contextlib.contextmanager
def locked(workdir: Path, shared: bool = False) -> Iterator[None]:
    """Holds a workdir for this process; the lock falls with the process, however it ends.

    Args:
        workdir: made if it does not exist.
        shared: hold it together with other processes that share it, against those that do not.

    Raises:
        InputError: another process holds it, or the workdir cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = os.open(workdir / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"workdir {workdir} cannot be used: {error}; choose another") from error
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"workdir {workdir} is in use by another process; wait for it to end "
                "or choose another workdir"
            ) from error
        except OSError as error:
            raise InputError(
                f"workdir {workdir} lies on a file system without locks ({error}); "
                "choose a folder on a local disk"
            ) from error
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def claim(workdir: Path, settings: Mapping, what: str, shared: bool = False) -> Iterator[Path]:
    """Holds `workdir` for one process, or several that share it, and one experiment.

    The first process writes `settings.json`; a later one resumes only with equal settings. If the
    first ends in an `InputError` before it made anything, the folder is free again, so that the
    same command with the mistake put right is not refused. The lock is the operating system's, so a
    killed process leaves none behind.

    Args:
        workdir: made if it does not exist.
        settings: everything that decides the result, JSON values.
        what: names the experiment in errors.
        shared: as of `locked`.

    Raises:
        InputError: another process works there, or the folder holds other settings.
    """
    workdir = Path(workdir)
    path = workdir / "settings.json"
    fresh = json.loads(json.dumps({"experiment": what, **settings}))
    with contextlib.ExitStack() as held:

        def enter() -> None:
            held.enter_context(locked(workdir, shared))
            _same_settings(workdir, path, fresh)

        hosts.first_does(f"claiming {workdir}", enter)
        require_shared(path)
        try:
            yield workdir
        except InputError:
            if hosts.writes() and not shared and {entry.name for entry in workdir.iterdir()} <= {"lock", path.name}:
                path.unlink()
            raise


def require_shared(path: Path) -> None:
    """`InputError` where this host does not see what the first has just written."""
    if not path.exists():
        raise InputError(f"{path}, which the first host has written, is not seen by this one; give a folder that "
                         "all hosts share")


def _same_settings(workdir: Path, path: Path, fresh: Mapping) -> None:
    if _write_first(path, json.dumps(fresh, indent=1, sort_keys=True).encode()):
        return
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON; remove it or choose another workdir") from error
    found = differences(stored, fresh)
    if found:
        raise InputError(
            f"workdir {workdir} holds another experiment: {'; '.join(found[:6])}; "
            "repeat the earlier settings or choose another workdir")


def _write_first(path: Path, data: bytes) -> bool:
    """Writes a file unless it is there; of several processes one writes it."""
    if path.exists():
        return False
    made = path.with_name(f"{path.name}.{os.getpid()}")
    write_whole(made, data)
    try:
        os.link(made, path)
    except FileExistsError:
        return False
    finally:
        made.unlink()
    sync_folder(path.parent)
    return True
