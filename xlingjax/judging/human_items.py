"""Sheets of replies for people to judge, blinded: which are a model's and which a person's stands in the key alone."""

import collections
import csv
import dataclasses
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from xlingjax.corpora.files import existing
from xlingjax.errors import InputError

ITEMS, HIDDEN = 35, 3  # of a sheet, and those of them that a person said (AfriWOZ: 32 are scored)
CATEGORIES = ("human-like", "uncertain", "non-human-like")
HUMAN, MODEL = "human", "model"
NOTHING = "(no answer)"  # what a judge sees of an empty reply
REPLY_COLUMNS = ("language", "system", "context", "reply", "reference")
SHEET_COLUMNS = ("sheet", "item", "context", "reply", "judgement", "annotator")
KEY_COLUMNS = ("sheet", "item", "language", "system", "shown", "context", "reply")


@dataclasses.dataclass(frozen=True)
class Reply:
    """A system's reply to a context, and a person's.

    Attributes:
        context: turns before it, oldest first, a line each.
        reference: what the person in the data said there.
    """

    language: str
    system: str
    context: str
    reply: str
    reference: str


@dataclasses.dataclass(frozen=True)
class Item:
    """One thing to judge, as the key knows it: `shown` is "model" or "human", `number` from 1."""

    sheet: str
    number: int
    language: str
    system: str
    shown: str
    context: str
    reply: str


def read_replies(path: str | Path) -> list[Reply]:
    """Replies from a .csv of columns language, system, context, reply, reference (others are ignored).

    Raises:
        InputError: a missing column, or a row without language, system, context or reference.
    """
    out = []
    for number, row in enumerate(rows_of(path, REPLY_COLUMNS), 1):
        missing = [name for name in REPLY_COLUMNS if name != "reply" and not row[name].strip()]
        if missing:
            raise InputError(f"{path}, row {number}: {missing[0]} is empty; a reply to be judged needs it")
        context = "\n".join(" ".join(line.split()) for line in row["context"].splitlines() if line.strip())
        out.append(Reply(row["language"].strip(), row["system"].strip(), context, " ".join(row["reply"].split()),
                         " ".join(row["reference"].split())))
    if not out:
        raise InputError(f"{path} has no reply below its column names; write some")
    return out


def rows_of(path: str | Path, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows of a CSV as people's spreadsheets save it: cells of several lines, comma, semicolon or tab between cells.

    Raises:
        InputError: not UTF-8, a missing column, or a row of another length.
    """
    try:
        text = existing(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save it as \"CSV UTF-8\"") from None
    first = text.splitlines()[0] if text.strip() else ""
    between = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between)
    try:
        header = [name.strip() for name in next(reader, [])]
        for column in needed:
            if column not in header:
                raise InputError(f"{path}, row 1: no column {column!r} (it has {', '.join(header) or 'none'}); the "
                                 f"first row must name the columns {', '.join(needed)}")
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise InputError(f"{path}, line {reader.line_num}: {len(row)} cells, not {len(header)} as in its first "
                                 "row; quote a cell with a separator in it")
            yield {name: cell.replace("\r\n", "\n") for name, cell in zip(header, row)}
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; write it as plain CSV") from error


def make_items(
    replies: Sequence[Reply], seed: int = 0, items: int = ITEMS, hidden: int = HIDDEN,
) -> dict[str, tuple[Item, ...]]:
    """A sheet for each language and system: sheet code -> its items in the order in which they are judged.

    All systems of a language are judged on the same contexts, drawn by the seed among those that every one answered;
    the hidden replies are a person's to other contexts. Of several replies of a system to one context the first stands.
    The order is drawn anew for each sheet. The code is a hash of what is shown: it tells nothing of the system, and a
    sheet that was changed no longer fits its key.

    Raises:
        InputError: fewer hidden than 1 or as many as items; too few contexts.
    """
    if not 1 <= hidden < items:
        raise InputError(f"{hidden} hidden replies of {items} items; hide 1 or more and score 1 or more")
    by_sheet: dict[tuple[str, str], dict[str, Reply]] = collections.defaultdict(dict)
    for reply in replies:
        by_sheet[reply.language, reply.system].setdefault(reply.context, reply)
    out: dict[str, tuple[Item, ...]] = {}
    for language in dict.fromkeys(language for language, _ in by_sheet):
        systems = [system for one, system in by_sheet if one == language]
        common = [context for context in by_sheet[language, systems[0]]
                  if all(context in by_sheet[language, system] for system in systems)]
        if len(common) < items:
            raise InputError(
                f"{language} has {len(common)} contexts that {'every one of ' if len(systems) > 1 else ''}"
                f"{', '.join(systems)} answered; a sheet needs {items}, so lower their number or give more replies")
        drawn = np.random.default_rng([seed, 71]).permutation(len(common))[:items]
        contexts = [common[row] for row in drawn]
        for place, system in enumerate(systems):
            found = [by_sheet[language, system][context] for context in contexts]
            shown = [HUMAN] * hidden + [MODEL] * (items - hidden)
            order = np.random.default_rng([seed, 73, place]).permutation(items)
            said = [(found[i], shown[i]) for i in order]
            texts = [one.reference if kind == HUMAN else one.reply or NOTHING for one, kind in said]
            code = sheet_code(language, ((one.context, text) for (one, _), text in zip(said, texts)))
            out[code] = tuple(Item(code, number, language, system, kind, one.context, text)
                              for number, ((one, kind), text) in enumerate(zip(said, texts), 1))
    return out


def sheet_code(language: str, shown: Iterable[tuple[str, str]]) -> str:
    """"s" and nine letters of the hash of contexts and replies in their order; no spreadsheet takes it for a number."""
    parts = [language, *(part for pair in shown for part in pair)]
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass"))
    return f"s{digest.hexdigest()[:9]}"


def sheet_csv(items: Sequence[Item]) -> str:
    """What a judge gets: no system, no language, no word of who said it."""
    return _written(SHEET_COLUMNS, ([item.sheet, item.number, item.context, item.reply, "", ""] for item in items))


def key_csv(sheets: Iterable[Sequence[Item]]) -> str:
    """What only the scorer gets."""
    return _written(KEY_COLUMNS, (
        [item.sheet, item.number, item.language, item.system, item.shown, item.context, item.reply]
        for items in sheets for item in items))


def _written(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV that spreadsheets open as text: a cell that they would take for a formula gets an apostrophe."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([plain(str(cell)) for cell in row] for row in rows)
    return file.getvalue()


def plain(cell: str) -> str:
    """A cell that no spreadsheet computes; `as_shown` takes the apostrophe away.

    >>> plain("=1+1"), as_shown(plain("=1+1")), plain("yes")
    ("'=1+1", '=1+1', 'yes')
    """
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "'", "\t", "\r") else cell


def as_shown(cell: str) -> str:
    """What `plain` was given."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in ("=", "+", "-", "@", "'", "\t", "\r") else cell


def read_key(path: str | Path) -> dict[str, tuple[Item, ...]]:
    """Sheet code -> items, as `key_csv` wrote them.

    Raises:
        InputError: a missing column, or items that do not fit the code of their sheet.
    """
    found: dict[str, list[Item]] = collections.defaultdict(list)
    for number, row in enumerate(rows_of(path, KEY_COLUMNS), 1):
        if row["shown"] not in (HUMAN, MODEL) or not row["item"].isdigit():
            raise InputError(f"{path}, row {number}: item {row['item']!r} shown {row['shown']!r}; this is no key of "
                             "sheets, give the file that was written beside them")
        cells = {name: as_shown(row[name]) for name in KEY_COLUMNS}
        found[cells["sheet"]].append(Item(
            cells["sheet"], int(cells["item"]), cells["language"], cells["system"], cells["shown"], cells["context"],
            cells["reply"]))
    out = {code: tuple(sorted(items, key=lambda item: item.number)) for code, items in found.items()}
    for code, items in out.items():
        if [item.number for item in items] != list(range(1, len(items) + 1)) or (
                code != sheet_code(items[0].language, ((item.context, item.reply) for item in items))):
            raise InputError(f"{path}: the items of sheet {code} are not those it was made of; use the key as written")
    if not out:
        raise InputError(f"{path} holds no sheet; give the key that was written beside the sheets")
    return out
