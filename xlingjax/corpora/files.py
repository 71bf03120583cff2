"""Text files line by line: plain, .xz or .gz, strictly UTF-8, with errors that name the place."""

import contextlib
import csv
import difflib
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xlingjax.errors import InputError

COMPRESSED = ("", ".xz", ".gz")


def find(folder: Path, *names: str) -> Path | None:
    """The first of the named files in a folder, plain or compressed; None without one."""
    paths = (folder / (name + ending) for name in names for ending in COMPRESSED)
    return next((path for path in paths if path.is_file()), None)


def files_in(paths: str | Path | Sequence[str | Path], endings: Sequence[str]) -> list[Path]:
    """The files meant by files and folders; a folder means its files so ending, sorted."""
    listed = [paths] if isinstance(paths, (str, Path)) else list(paths)
    result: list[Path] = []
    for path in map(Path, listed):
        if path.is_dir():
            wanted = tuple(ending + packed for ending in endings for packed in COMPRESSED)
            inside = sorted(p for p in path.iterdir() if p.name.endswith(wanted) and p.is_file())
            if not inside:
                raise InputError(f"folder {path} has no file ending in {' or '.join(wanted)}")
            result += inside
        else:
            result.append(existing(path))
    if not result:
        raise InputError("an empty list of files; name at least one")
    return result


def existing(path: str | Path) -> Path:
    """The path, if it is a file."""
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file")
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise InputError(f"file {path} does not exist{near(path.name, beside)}")


def near(name: str, known: Iterable[str]) -> str:
    """"; did you mean ...?" with the nearest known names, or what is known when there are few."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 4, 0.5)
    close += [other for other in known if other.startswith(name) and other not in close][:4]
    if close:
        return f"; did you mean {', '.join(close[:6])}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= 20 else ""


def choose(
    wanted: Sequence[str] | None, known: Iterable[str], what: str, source: object,
) -> list[str]:
    """The wanted names in their order, default all known; one that is not known is an error."""
    known = list(dict.fromkeys(known))
    if wanted is None:
        return known
    if isinstance(wanted, str):
        raise InputError(f"{what}s={wanted!r} is one string; give a list of {what}s")
    for name in wanted:
        if name not in known:
            raise InputError(f"{what} {name!r} is not in {source}{near(name, known)}")
    if not wanted:
        raise InputError(f"an empty list of {what}s for {source}; name one or leave it out")
    return list(dict.fromkeys(wanted))


def stem(path: Path) -> str:
    """The file's name up to the first dot: "eng" of "eng.conllu.xz"."""
    return path.name.split(".")[0]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    openers: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
    opener = openers.get(path.suffix, open)
    try:
        with opener(existing(path), "rb") as file:
            yield file
    except (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(
            f"{path} is no whole {path.suffix} file ({error}); copy or pack it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _decoded(path: Path, data: bytes, offset: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = offset + error.start
        raise InputError(
            f"{path}: byte {place} (0x{data[error.start]:02x}) is not UTF-8; "
            "save the file as UTF-8") from error


def lines(path: str | Path) -> Iterator[str]:
    """The lines without their ends, LF or CR LF; a byte order mark is dropped."""
    path = Path(path)
    offset = 0
    with _opened(path) as file:
        for raw in file:
            line = _decoded(path, raw, offset)
            if offset == 0:
                line = line.removeprefix("\ufeff")
            offset += len(raw)
            yield line.removesuffix("\n").removesuffix("\r")


def table(path: str | Path, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a tab-separated file, columns named in its first line; quotes mean nothing."""
    rows = lines(path)
    header = next(rows, "").split("\t")
    _columns(path, header, needed)
    for number, line in enumerate(rows, 2):
        cells = line.split("\t")
        if len(cells) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(cells)} fields, not {len(header)} as in its "
                "first line; put a tab between fields and none inside")
        yield dict(zip(header, cells, strict=True))


def comma_table(path: str | Path, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a .csv file with column names in its first line."""
    rows = csv.reader(lines(path))
    try:
        header = next(rows, [])
        _columns(path, header, needed)
        for row in rows:
            if row and len(row) != len(header):
                raise InputError(
                    f"{path}, line {rows.line_num}: {len(row)} fields, not {len(header)} as in its "
                    "first line; quote a field with a comma in it")
            if row:
                yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: {error}; write it as plain CSV") from error


def _columns(path: str | Path, header: Sequence[str], needed: Sequence[str]) -> None:
    for column in needed:
        if column not in header:
            has = ", ".join(header) if any(header) else "none"
            raise InputError(
                f"{path}, line 1: no column {column!r} (it has {has}); the first line must name "
                f"the columns {', '.join(needed)}")


def number(path: str | Path, row: int, column: str, value: str) -> int:
    """A whole number from a table's cell; `row` counts from 1 without the header."""
    try:
        return int(value)
    except ValueError:
        raise InputError(
            f"{path}, line {row + 1}: {column} {value!r} is no whole number") from None


def json_file(path: str | Path) -> Any:
    """What a JSON file holds."""
    path = Path(path)
    with _opened(path) as file:
        text = _decoded(path, file.read(), 0).removeprefix("\ufeff")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}: {error.msg}; write valid JSON"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path}: brackets nested too deep; it is no file of sentences") from error
