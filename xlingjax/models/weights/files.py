"""What every reader of a checkpoint shares: JSON, sizes, and names that stay in the folder."""

import json
from pathlib import Path
from typing import Any

from xlingjax.errors import InputError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; a missing, empty or malformed file is an `InputError`."""
    require_file(path)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); restore or download it again") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not a JSON object; "
            "restore or download it again"
        )
    return content


def require_file(path: Path) -> None:
    """Raises `InputError` unless `path` is a file with something in it."""
    if not path.is_file():
        raise InputError(f"{path} is missing; restore or download it again")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); restore or download it again")


def is_inside(name: str) -> bool:
    """Whether a name read from data is a plain relative path, on any operating system.

    >>> is_inside("model-00001-of-00002.safetensors"), is_inside("../x"), is_inside("C:x")
    (True, False, False)
    """
    if not name or any(character in name for character in "\\:\0"):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def path_in_folder(folder: Path, name: str, named_by: Path) -> Path:
    """The file `name` of `folder`, where `name` was read from the file `named_by`.

    A name or a link that leads out of the folder is refused; the hub's cache, whose snapshots are
    links into its own `blobs`, is the one exception.
    """
    path = folder / name
    if is_inside(name):
        target = path.resolve()
        home = folder.resolve()
        blobs = [p.parent / "blobs" for p in (home, *home.parents) if p.name == "snapshots"]
        if any(target.is_relative_to(allowed) for allowed in (home, *blobs)):
            return path
    raise InputError(
        f"{named_by} names the file {name!r}, which lies outside {folder}; "
        "do not use this checkpoint unless you trust and repair it"
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes an object as `read_json` reads it, keys in order."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
