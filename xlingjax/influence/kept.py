"""Arrays that are made once and read back: a file by name, whole or absent."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlingjax.files import write_whole


def kept(path: Path | None, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays at `path`, an .npz made by `make` where it is not there yet; None keeps nothing."""
    found = read_arrays(path)
    if found is None:
        found = dict(make())
        write_arrays(path, found)
    return found


def read_arrays(path: Path | None) -> dict[str, np.ndarray] | None:
    """What `write_arrays` wrote, or None."""
    if path is None or not path.exists():
        return None
    with np.load(path, allow_pickle=False) as held:
        return {name.replace(":", "/"): held[name] for name in held.files}


def write_arrays(path: Path | None, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes all of them or nothing."""
    if path is None:
        return
    held = io.BytesIO()
    named: dict[str, Any] = {name.replace("/", ":"): value for name, value in arrays.items()}
    np.savez(held, **named)
    write_whole(path, held.getvalue())
