"""Which blocks of a run are finished: records that are whole or not there.

A record is a small JSON file with a digest of its own content. It is written beside its place,
brought to disk, and renamed into place, so that a process killed at any point leaves the old state
or the new.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlingjax.errors import InputError
from xlingjax.files import canonical, sync_folder, write_whole

LEDGER = "ledger"


def write_record(path: Path, body: Mapping[str, Any]) -> None:
    """Writes a JSON record under `path`: afterwards it is there, whole, even if the power fails.

    Raises:
        InputError: the file system refuses (full, read-only); what stood there before still stands.
    """
    text = canonical(body)
    write_whole(path, f'{{"digest":"{_digest(text)}","body":{text}}}\n'.encode())


def read_record(path: Path) -> dict[str, Any]:
    """The body of a record.

    Raises:
        InputError: the file is missing, empty, cut short or altered.
    """
    try:
        record = json.loads(path.read_bytes())
        body = record["body"]
        whole = record["digest"] == _digest(canonical(body))
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist; run collect with this workdir to its end first"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if not whole:
        raise _damaged(path)
    return body


def sync_file(path: Path, root: Path) -> tuple[int, str]:
    """Brings a file and its folders up to `root` to disk; its size in bytes and its SHA-256."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    for folder in path.parents:
        sync_folder(folder)
        if folder == root:
            break
    return size, digest


def block_record(workdir: Path, block: int) -> Path:
    """Where the ledger keeps the record of a finished block."""
    return workdir / LEDGER / f"{block:06d}.json"


def finished_blocks(workdir: Path, blocks: int) -> dict[int, dict[str, Any]]:
    """Block -> its record, for the blocks that the ledger holds."""
    paths = {block: block_record(workdir, block) for block in range(blocks)}
    return {block: read_record(path) for block, path in paths.items() if path.exists()}


def file_fault(path: Path, size: int, digest: str | None = None) -> str | None:
    """What is wrong with a file of this recorded size and SHA-256 (where given); None: nothing."""
    try:
        found = path.stat().st_size
    except OSError:
        return "is missing"
    if found != size:
        return f"has {found} bytes instead of {size}"
    if digest is not None:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                return "was altered: its SHA-256 is not the recorded one"
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged (empty, cut short or altered); delete it and run collect again "
        "with the same workdir and settings, what it described is then redone"
    )
