"""Sheets of .xlsx workbooks, read with the standard library: text of cells, nothing else.

A workbook is a zip archive of XML. Nothing is unpacked to disk, no formula is computed, a document type (and with it
every entity) is refused, and so is a part larger than 64 MiB unpacked.
"""

import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from xlingjax.corpora.files import existing
from xlingjax.errors import InputError

MOST_BYTES = 64 * 2**20
MOST_COLUMNS = 16_384  # of the format
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


class Sheet(NamedTuple):
    """A sheet: its name, and for every row that has a cell its number (from 1) and column -> text (columns from 0)."""

    name: str
    rows: list[tuple[int, dict[int, str]]]


def read_workbook(path: str | Path) -> list[Sheet]:
    """The sheets of a workbook in their order.

    Booleans are "1" and "0", as they are stored; blank cells are left out.

    Raises:
        InputError: no .xlsx file, a damaged one, one with a document type, or one too large.
    """
    path = existing(path)
    try:
        with zipfile.ZipFile(path) as archive:
            book = _Book(path, archive)
            return [Sheet(name, book.rows(part)) for name, part in book.sheets()]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(f"{path} is no whole .xlsx workbook ({error}); save it again as .xlsx") from error


class _Book:
    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self.path, self.archive = path, archive
        self.names = set(archive.namelist())
        self.strings = self._strings() if "xl/sharedStrings.xml" in self.names else []

    def _parse(self, part: str, start: Callable, end: Callable, text: Callable) -> None:
        if part not in self.names:
            raise InputError(f"{self.path} has no part {part!r}; save it again as .xlsx")
        with self.archive.open(part) as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise InputError(f"{self.path}: part {part!r} is over {MOST_BYTES >> 20} MiB unpacked; split the workbook")
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True

        def refuse(*_: object) -> None:
            raise InputError(f"{self.path}: part {part!r} has a document type, which no workbook needs; save it again")

        parser.StartDoctypeDeclHandler = refuse
        parser.StartElementHandler = lambda name, found: start(
            name.rsplit(" ", 1)[-1], {key.rsplit(" ", 1)[-1]: value for key, value in found.items()})
        parser.EndElementHandler = lambda name: end(name.rsplit(" ", 1)[-1])
        parser.CharacterDataHandler = text
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise InputError(f"{self.path}: part {part!r} is broken XML ({error}); save it again as .xlsx") from error

    def _strings(self) -> list[str]:
        out: list[str] = []
        inside = {"t": 0, "rPh": 0}  # rPh: how to pronounce it, no part of the text

        def start(name: str, _: dict) -> None:
            if name == "si":
                out.append("")
            elif name in inside:
                inside[name] += 1

        def end(name: str) -> None:
            if name in inside:
                inside[name] -= 1

        def text(data: str) -> None:
            if inside["t"] and not inside["rPh"]:
                out[-1] += data

        self._parse("xl/sharedStrings.xml", start, end, text)
        return [_unescaped(one) for one in out]

    def sheets(self) -> list[tuple[str, str]]:
        """Name and part of every sheet."""
        targets: dict[str, str] = {}
        listed: list[tuple[str, str]] = []
        ignore = lambda *_: None
        self._parse("xl/_rels/workbook.xml.rels", lambda name, found: targets.update(
            {found.get("Id", ""): found.get("Target", "")} if name == "Relationship" else {}), ignore, ignore)
        self._parse("xl/workbook.xml", lambda name, found: listed.append(
            (found.get("name", ""), found.get("id", ""))) if name == "sheet" else None, ignore, ignore)
        return [(name, posixpath.normpath(posixpath.join("/xl", targets.get(key, "")))[1:]) for name, key in listed]

    def rows(self, part: str) -> list[tuple[int, dict[int, str]]]:
        out: list[tuple[int, dict[int, str]]] = []
        inside = {"v": 0, "t": 0, "rPh": 0}
        kind, held, column = "n", "", -1

        def start(name: str, found: dict) -> None:
            nonlocal kind, held, column
            if name == "row":
                out.append((self._number(found.get("r"), out[-1][0] + 1 if out else 1), {}))
                column = -1
            elif name == "c":
                kind, held, column = found.get("t", "n"), "", self._column(found.get("r"), column + 1)
            elif name in inside:
                inside[name] += 1

        def end(name: str) -> None:
            if name in inside:
                inside[name] -= 1
            elif name == "c" and out:
                text = self._text(kind, held)
                if text:
                    out[-1][1][column] = text

        def text(data: str) -> None:
            nonlocal held
            if inside["t" if kind == "inlineStr" else "v"] and not inside["rPh"]:
                held += data

        self._parse(part, start, end, text)
        return out

    def _number(self, written: str | None, following: int) -> int:
        return int(written) if written and written.isdigit() else following

    def _column(self, reference: str | None, following: int) -> int:
        found = re.match("[A-Z]{1,3}", reference or "")
        if not found:
            return following
        number = 0
        for letter in found[0]:
            number = 26 * number + ord(letter) - 64
        if number > MOST_COLUMNS:
            raise InputError(f"{self.path}: cell {reference!r} lies outside a sheet; save it again as .xlsx")
        return number - 1

    def _text(self, kind: str, found: str) -> str:
        if kind != "s" or not found.strip():
            return _unescaped(found)
        if not found.strip().isdigit() or int(found) >= len(self.strings):
            raise InputError(
                f"{self.path}: a cell refers to text {found!r} of {len(self.strings)}; save it again as .xlsx")
        return self.strings[int(found)]


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
