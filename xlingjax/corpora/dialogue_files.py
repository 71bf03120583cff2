"""Dialogues from AfriWOZ's workbooks as published and from tables of two columns, with their defects found."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xlingjax.corpora.dialogues import LONGEST, Defect, Dialogues
from xlingjax.corpora.files import COMPRESSED, choose, existing, lines
from xlingjax.corpora.translated import translated_rows
from xlingjax.corpora.workbooks import read_workbook
from xlingjax.errors import InputError

COLUMNS = ("New_Episode", "Conversation")
SPLITS = {"train": "train", "valid": "valid", "dev": "valid", "test": "test"}
# AfriWOZ's file names -> ISO 639-3; any other prefix is the language's name.
LANGUAGES = {"ha": "hau", "hau": "hau", "pe": "pcm", "pcm": "pcm", "swa": "swa", "sw": "swa", "yo": "yor", "yor": "yor",
             "wo": "wol", "wol": "wol", "kin": "kin", "rw": "kin"}
YES, NO = ("1", "true", "yes"), ("", "0", "false", "no")
BORROW = 0.8  # of a stretch's rows that must be translations of flagged ones


class _Turn(NamedTuple):
    row: int
    starts: bool
    text: str


_Part = tuple[str, str]  # language, split


def read_dialogues(
    path: str | Path | Sequence[str | Path], languages: Sequence[str] | None = None,
    columns: tuple[str, str] = COLUMNS,
) -> Dialogues:
    """Dialogues from files named <language>_..._<train|valid|test>...: .xlsx workbooks, or .tsv tables of two columns.

    AfriWOZ's workbooks are read as published ("ha_translate_mwoz_testset.xlsx"). Defects are found, listed in
    `Dialogues.defects` and treated by `dialogues.RULES`. Which rows are translations of each other is found from the
    numbers in them (`translated.translated_rows`).

    Args:
        path: a folder, a file or several.
        languages: default all.
        columns: the one that flags a new episode (1, true, yes) and the one of the turn.

    Raises:
        InputError: no such file, a name without language or split, two files of one language and split, a missing
            column, a flag that is none, a split without a turn.
    """
    files: dict[_Part, Path] = {}
    for file in _files(path):
        part = _named(file)
        if part in files:
            raise InputError(f"{file} and {files[part].name} are both {part[0]} {part[1]}; leave one out")
        files[part] = file
    chosen = choose(languages, (language for language, _ in files), "language", path)
    splits = dict.fromkeys(SPLITS.values())
    defects: list[Defect] = []
    parts: dict[_Part, list[_Turn]] = {
        part: _turns(files[part], part, columns, defects)
        for language in chosen for split in splits if (part := (language, split)) in files}
    return _assemble(parts, defects, Path(path).name if isinstance(path, (str, Path)) else "dialogues")


def _files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    endings = (".xlsx", *(f".tsv{packed}" for packed in COMPRESSED))
    found: list[Path] = []
    for one in map(Path, [path] if isinstance(path, (str, Path)) else path):
        if not one.is_dir():
            found.append(existing(one))
            continue
        inside = sorted(p for p in one.iterdir() if p.name.endswith(endings) and not p.name.startswith(("~$", ".")))
        if not inside:
            raise InputError(f"folder {one} has no .xlsx or .tsv file of dialogues; name the folder that has")
        found += inside
    if not found:
        raise InputError("an empty list of files of dialogues; name at least one")
    return found


def _named(file: Path) -> _Part:
    words = [word for word in re.split(r"[^a-z]+", file.name.split(".")[0].lower()) if word]
    splits = [SPLITS[key] for word in words[1:] for key in SPLITS if word.startswith(key)]
    if len(set(splits)) != 1:
        raise InputError(f"{file.name!r} does not say language and split; name it <language>_<train|valid|test>"
                         f"{file.suffix if file.suffix in ('.xlsx', '.tsv') else '.tsv'}")
    return LANGUAGES.get(words[0], words[0]), splits[0]


def _turns(file: Path, part: _Part, columns: tuple[str, str], defects: list[Defect]) -> list[_Turn]:
    cells = _workbook(file, part, columns, defects) if file.suffix == ".xlsx" else _table(file, columns)
    out: list[_Turn] = []
    pending, empty = False, []
    for row, flag, text in cells:
        said = flag.strip().lower()
        if said not in (*YES, *NO):
            raise InputError(f"{file}, row {row + 2}: {columns[0]} is {flag!r}; it must be 1 or true where an episode "
                             "begins, and empty, 0 or false elsewhere")
        pending |= said in YES
        mended = " ".join(repaired(text).split())
        if not mended:
            empty.append(row)
            continue
        if mended != " ".join(text.split()):
            defects.append(Defect("mojibake", *part, row, text))
        defects += [Defect("empty turn", *part, one) for one in empty]
        if not out and not pending:
            defects.append(Defect("first flag", *part, row))
        out.append(_Turn(row, pending or not out, mended))
        pending, empty = False, []
    if empty:
        defects.append(Defect("empty rows", *part, -1, f"{len(empty)} of them"))
    if not out:
        raise InputError(f"{file} has no turn in column {columns[1]!r}; give a file with dialogues")
    return out


def _workbook(
    file: Path, part: _Part, columns: tuple[str, str], defects: list[Defect],
) -> Iterator[tuple[int, str, str]]:
    chosen = None
    for sheet in read_workbook(file):
        header = {text.strip(): column for column, text in sheet.rows[0][1].items()} if sheet.rows else {}
        if chosen is None and all(column in header for column in columns):
            chosen = sheet
        elif sheet.rows:
            defects.append(Defect("other sheet", *part, -1, repr(sheet.name)))
    if chosen is None:
        raise InputError(f"{file} has no sheet whose first row names the columns {' and '.join(columns)}; add that row")
    first, header_cells = chosen.rows[0]
    place = {text.strip(): column for column, text in header_cells.items()}
    flag, text = (place[column] for column in columns)
    others = {column for _, cells in chosen.rows for column in cells} - {flag, text}
    defects += [Defect("other column", *part, -1, repr(header_cells.get(column, f"number {column + 1}")))
                for column in sorted(others)]
    expected = first + 1
    for number, cells in chosen.rows[1:]:
        for missing in range(expected, number):  # rows that the file does not even list
            yield missing - first - 1, "", ""
        yield number - first - 1, cells.get(flag, ""), cells.get(text, "")
        expected = number + 1


def _table(file: Path, columns: tuple[str, str]) -> Iterator[tuple[int, str, str]]:
    rows = lines(file)
    header = next(rows, "").split("\t")
    if sorted(header) != sorted(columns):
        raise InputError(f"{file}, line 1: columns {', '.join(header)}; a table of dialogues has the two columns "
                         f"{' and '.join(columns)}, named there")
    flag, text = (header.index(column) for column in columns)
    for row, line in enumerate(rows):
        cells = line.split("\t")
        if len(cells) > 2:
            raise InputError(f"{file}, line {row + 2}: {len(cells)} fields, not 2; put no tab into a turn")
        cells += [""] * (2 - len(cells))
        yield row, cells[flag], cells[text]


# The bytes of a letter in UTF-8 as Windows-1252 or Latin-1 shows them.
_AS_BYTE = {bytes([byte]).decode(shown, "ignore"): byte
            for byte in range(0x80, 0x100) for shown in ("latin-1", "cp1252")}
_AS_BYTE.pop("", None)  # five bytes mean nothing in Windows-1252
_FOLLOWING = "".join(character for character, byte in _AS_BYTE.items() if byte < 0xC0)
_MANGLED = re.compile("|".join(
    f"[{chr(low)}-{chr(high)}][{re.escape(_FOLLOWING)}]{{{count}}}"
    for low, high, count in ((0xC2, 0xDF, 1), (0xE0, 0xEF, 2), (0xF0, 0xF4, 3))))


def repaired(text: str) -> str:
    """UTF-8 that was read as Windows-1252, once or twice, read again.

    >>> repaired("buÆ™atar jirgin"), repaired("Ẹ káàsán"), repaired("ÃƒÂº")
    ('buƙatar jirgin', 'Ẹ káàsán', 'ú')
    """
    def again(found: re.Match[str]) -> str:
        try:
            letter = bytes(_AS_BYTE[character] for character in found[0]).decode("utf-8")
        except UnicodeDecodeError:
            return found[0]
        return letter

    for _ in range(2):
        text = _MANGLED.sub(again, text)
    return text


def _assemble(parts: Mapping[_Part, list[_Turn]], defects: list[Defect], name: str) -> Dialogues:
    """Parallel ids from the rows' numbers, flags borrowed where they are missing, then one table."""
    ids: dict[_Part, dict[int, str]] = {part: {} for part in parts}
    for split in dict.fromkeys(split for _, split in parts):
        _translations({part: turns for part, turns in parts.items() if part[1] == split}, ids, defects)
    starts = {part: {turn.row for turn in turns if turn.starts} for part, turns in parts.items()}
    own = {part: set(found) for part, found in starts.items()}
    for part, turns in parts.items():
        for stretch in _stretches(turns, starts[part]):
            if len(stretch) > LONGEST:
                _borrow(part, stretch, parts, ids, own, starts, defects)
    texts, languages, splits, episodes, rows, parallel, mixed = [], [], [], [], [], [], []
    for part, turns in parts.items():
        for number, stretch in enumerate(_stretches(turns, starts[part])):
            if len(stretch) > LONGEST:
                defects.append(Defect("no flag", *part, -1, f"{len(stretch)} turns"))
            if len(stretch) == 1:
                defects.append(Defect("one turn", *part, stretch[0].row, stretch[0].text))
            for turn in stretch:
                texts.append(turn.text)
                languages.append(part[0])
                splits.append(part[1])
                episodes.append(str(number))
                rows.append(turn.row)
                parallel.append(ids[part].get(turn.row, ""))
                mixed.append(len(stretch) > LONGEST)
    return Dialogues(tuple(texts), np.array(languages, str), np.array(splits, str), np.array(episodes, str),
                     np.array(rows, int), np.array(parallel, str), np.array(mixed, bool), np.ones(len(texts), bool),
                     name, tuple(defects))


def _stretches(turns: list[_Turn], starts: set[int]) -> list[list[_Turn]]:
    out: list[list[_Turn]] = []
    for turn in turns:
        if turn.row in starts or not out:
            out.append([])
        out[-1].append(turn)
    return out


def _translations(
    parts: Mapping[_Part, list[_Turn]], ids: dict[_Part, dict[int, str]], defects: list[Defect],
) -> None:
    """Give rows that are translations the id of the first language that has them."""
    left = list(parts)
    while left:
        first, *left = left
        mine = {turn.row: turn.text for turn in parts[first]}
        for part in list(left):
            pairs = translated_rows(mine, {turn.row: turn.text for turn in parts[part]})
            if pairs:
                left.remove(part)
                for ours, theirs in pairs.items():
                    ids[first][ours] = ids[part][theirs] = f"{first[1]}/{first[0]}/{ours}"
        defects += [Defect("other slice", *part, -1, f"as {first[0]} {first[1]}") for part in left]


def _borrow(
    part: _Part, stretch: list[_Turn], parts: Mapping[_Part, list[_Turn]], ids: Mapping[_Part, Mapping[int, str]],
    own: Mapping[_Part, set[int]], starts: dict[_Part, set[int]], defects: list[Defect],
) -> None:
    """Flags of the first language of the split whose flagged rows most of the stretch are translations of."""
    for other, turns in parts.items():
        if other == part or other[1] != part[1]:
            continue
        begun: dict[str, int] = {}  # parallel id -> how many flagged episodes have begun up to this row
        for number, found in enumerate(_stretches(turns, own[other])):
            if len(found) <= LONGEST:
                begun |= {ids[other][turn.row]: number for turn in found if turn.row in ids[other]}
        shared = [turn for turn in stretch if ids[part].get(turn.row) in begun]
        if len(shared) >= BORROW * len(stretch):
            numbers = [begun[ids[part][turn.row]] for turn in shared]
            starts[part] |= {turn.row for turn, before, now in zip(shared[1:], numbers, numbers[1:]) if now != before}
            defects.append(Defect("borrowed flags", *part, -1, f"of {other[0]}, for {len(stretch)} turns"))
            return
