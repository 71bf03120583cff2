"""A finished checkpoint in a trace's workdir: is it still the checkpoint that is named?

Beside its result stands `source.json`: where the checkpoint came from, a signature of its files, and
fingerprints of all that decides what a model does. Weights are read again only where the signature is
another, so that what was merely copied or touched is found to be the same.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlingjax.analyses.sources import Source
from xlingjax.errors import InputError
from xlingjax.files import differences, write_whole
from xlingjax.models import Model
from xlingjax.models.hub import signature
from xlingjax.responses.jobs import tokenizer_fingerprint

RESULT = "checkpoint.nc"  # in a checkpoint's folder, written when all of it is known
RECORD = "source.json"  # written after it; a result without one is made again
FORMAT = 3  # of a result, as its record says; one of another format is made again


def sign(source: Source, tokenizer: Any) -> list[Any] | None:
    """Signatures of a checkpoint and of a tokenizer named beside it; None where one is out of reach.

    What is out of reach, deleted or on a hub without a connection, cannot be compared.
    """
    try:
        named = signature(tokenizer) if isinstance(tokenizer, str | Path) else []
        return [signature(source.name, source.revision, source.subfolder), named]
    except InputError:
        return None


def record(folder: Path, source: Source, signed: list[Any] | None, model: Model) -> None:
    """Declares the result in `folder` finished; `signed` was taken before the model was loaded."""
    about = {"format": FORMAT, "source": _named(source), "signature": signed, "model": _identity(model)}
    write_whole(folder / RECORD, json.dumps(about, indent=1).encode())


def recorded(folder: Path) -> dict[str, Any] | None:
    """What `record` wrote, or None where the checkpoint is not finished, or by another version."""
    path = folder / RECORD
    if not (path.exists() and (folder / RESULT).exists()):
        return None
    try:
        found = dict(json.loads(path.read_text()))
        return found if found.get("format") == FORMAT else None
    except ValueError as error:
        raise InputError(
            f"{path} is not readable JSON; delete {folder}, the checkpoint is computed again") from error


def is_finished(folder: Path, source: Source, tokenizer: Any, load: Callable[[], Model]) -> bool:
    """Whether `folder` holds the result of this checkpoint as it is today.

    Args:
        folder: of the checkpoint in the workdir.
        source: the checkpoint that is named.
        tokenizer: folder or repository named beside it, or None.
        load: loads the checkpoint; called only where its files may have changed.

    Raises:
        InputError: the result is of another source, or of other weights, config or tokenizer.
    """
    before = recorded(folder)
    if before is None:
        return False
    remedy = (f"take another --workdir, or delete {folder} to compute the checkpoint again")
    _refuse(differences(before["source"], _named(source), "source"), source, remedy)
    signed = sign(source, tokenizer)
    if signed is None or signed == before["signature"]:
        return True
    try:
        model = load()
    except InputError as error:
        raise InputError(
            f"checkpoint {source.label!r} has changed since its result was computed and cannot be "
            f"loaded ({error}); restore it, or {remedy}") from error
    _refuse(differences(before["model"], _identity(model), "model"), source, remedy)
    record(folder, source, signed, model)
    return True


def _refuse(found: list[str], source: Source, remedy: str) -> None:
    if found:
        raise InputError(
            f"checkpoint {source.label!r} is not the one whose result is in the workdir: "
            f"{'; '.join(found[:3])}; {remedy}")


def _named(source: Source) -> dict[str, str | None]:
    return {"name": source.name, "revision": source.revision, "subfolder": source.subfolder}


def _identity(model: Model) -> dict[str, Any]:
    return {"weights": model.fingerprint, "config": json.loads(json.dumps(model.config.to_dict())),
            "tokenizer": tokenizer_fingerprint(model.tokenizer)}
