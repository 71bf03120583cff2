"""Concept folders as ml-selfcond has them, one language a folder.

A folder holds `concept_list.csv` (columns group, concept) and for each concept
`<group>/<concept>.json`:

    {"concept": ..., "group": ..., "source": ...,
     "sentences": {"positive": [...], "negative": [...]},
     "documents": {"positive": [...], "negative": [...]},       (ours, optional)
     "parallel":  {"positive": [...], "negative": [...]}}       (ours, optional)

A sentence is a string or an object {"text", "document", "parallel"}. A concept whose name cannot be
a file name has it percent-encoded.
"""

import json
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlingjax.corpora.assemble import Sentence, assemble
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.files import choose, comma_table, json_file
from xlingjax.errors import InputError

LIST = "concept_list.csv"
_SIDES = {"positive": 1, "negative": 0}


def read_concepts(
    folder: str | Path, language: str | None = None, languages: Sequence[str] | None = None,
) -> Corpus:
    """A concept folder of one language, or a folder of such folders named by language.

    A sentence found under several concepts of a language is one row. A concept's file says nothing
    about sentences that it does not hold: their label is -1. A sentence that one concept has as
    positive and as negative has label -1 for it, and a note counts these. A sentence without a
    document id takes its parallel id for one, and without that is a document of its own, which a
    note says.

    Args:
        folder: with `concept_list.csv` in it, or in each of its sub-folders.
        language: language of a folder that holds one; default its name.
        languages: which sub-folders; default all.

    Raises:
        InputError: a file is missing or malformed (named, with line or field), a language unknown.
    """
    folder = Path(folder)
    if (folder / LIST).is_file():
        if languages is not None:
            raise InputError(
                f"{folder} holds one language; name it by language= and leave out languages=")
        parts = {language or folder.resolve().name: folder}
    else:
        inside = {p.parent.name: p.parent for p in sorted(folder.glob(f"*/{LIST}"))}
        if not inside:
            raise InputError(
                f"{folder} has no {LIST}, neither itself nor in a sub-folder; write one")
        if language is not None:
            raise InputError(
                f"{folder} has a sub-folder for each language; choose by languages=, not language=")
        parts = {name: inside[name] for name in choose(languages, inside, "language", folder)}

    listed = {name: _listed(part) for name, part in parts.items()}
    names = _names([pair for pairs in listed.values() for pair in pairs])
    sentences: list[Sentence] = []
    notes: list[str] = []
    for name, part in parts.items():
        found, remarks = _read_language(name, part, listed[name], names)
        sentences += found
        notes += remarks
    concepts = {names[pair]: pair[0] for pairs in listed.values() for pair in pairs}
    return assemble(sentences, concepts, folder.resolve().name, absent=-1, notes=notes)


def _listed(part: Path) -> list[tuple[str, str]]:
    """The (group, concept) pairs of a concept list."""
    pairs = []
    for row in comma_table(part / LIST, ("group", "concept")):
        pair = (row["group"], row["concept"])
        if not all(pair) or pair in pairs:
            what = "is empty" if not all(pair) else "occurs twice"
            raise InputError(f"{part / LIST}: concept {pair[1]!r} of group {pair[0]!r} {what}")
        pairs.append(pair)
    if not pairs:
        raise InputError(f"{part / LIST} lists no concept; add a line group,concept for each")
    return pairs


def _names(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Each (group, concept)'s name: the concept's, with its group where two groups share it."""
    groups: dict[str, set[str]] = {}
    for group, concept in pairs:
        groups.setdefault(concept, set()).add(group)
    return {(group, concept): concept if len(groups[concept]) == 1 else f"{group}/{concept}"
            for group, concept in pairs}


def _file_name(name: str) -> str:
    """A name that stays inside its folder: separators, controls and leading dots encoded."""
    safe = "".join(
        urllib.parse.quote(c, safe="") if c in '/\\:*?"<>|%' or c < " " else c for c in name)
    return "%2E" + safe[1:] if safe.startswith(".") else safe


def _concept_path(part: Path, pair: tuple[str, str]) -> Path:
    """A concept's file: under its encoded name, or under the plain one if that stays inside."""
    group, concept = pair
    encoded = part / _file_name(group) / (_file_name(concept) + ".json")
    plain = part / group / (concept + ".json")
    inside = plain.resolve().parent.parent == part.resolve()
    return plain if inside and not encoded.is_file() and plain.is_file() else encoded


def _read_language(
    language: str, part: Path, pairs: Sequence[tuple[str, str]], names: dict[tuple[str, str], str],
) -> tuple[list[Sentence], list[str]]:
    rows: dict[tuple[str, str, str], dict[str, int]] = {}
    conflicts = 0
    for pair in pairs:
        for side, *key in _read_concept(_concept_path(part, pair)):
            labels = rows.setdefault((key[0], key[1], key[2]), {})
            before = labels.setdefault(names[pair], side)
            if before not in (side, -1):
                labels[names[pair]] = -1
                conflicts += 1
    notes = []
    if conflicts:
        notes.append(f"{language}: {conflicts} sentences are both positive and negative for a "
                     "concept; they do not count for it")
    single = sum(not document and not parallel for _, document, parallel in rows)
    if single:
        notes.append(f"{language}: {single} of {len(rows)} sentences name no document; each is a "
                     "document of its own")
    return [
        Sentence(text, language, document or parallel or f"{language}:{i}", parallel, labels)
        for i, ((text, document, parallel), labels) in enumerate(rows.items())], notes


def _read_concept(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """(label, text, document, parallel) of each sentence of a concept; "" = not given."""
    data = json_file(path)
    if not isinstance(data, dict) or not isinstance(data.get("sentences"), dict):
        raise InputError(f"{path}: no field 'sentences' with the lists 'positive' and 'negative'")
    for side, label in _SIDES.items():
        items = _list(path, data["sentences"], "sentences", side)
        ids = []
        for field in ("documents", "parallel"):
            given = _list(path, data[field], field, side) if field in data else [""] * len(items)
            if len(given) != len(items):
                raise InputError(
                    f"{path}: field {field}.{side} has {len(given)} entries for {len(items)} "
                    "sentences; give one a sentence")
            ids.append(given)
        for i, (item, document, parallel) in enumerate(zip(items, *ids, strict=True)):
            if isinstance(item, dict):
                document, parallel = item.get("document", document), item.get("parallel", parallel)
                item = item.get("text")
            if not isinstance(item, str):
                raise InputError(
                    f"{path}: field sentences.{side}, entry {i}: no text; give a string or an "
                    "object with the field 'text'")
            yield label, item, _id(path, side, i, document), _id(path, side, i, parallel)


def _list(path: Path, holder: Any, field: str, side: str) -> list[Any]:
    found = holder.get(side) if isinstance(holder, dict) else None
    if not isinstance(found, list):
        raise InputError(f"{path}: field {field}.{side} is missing or no list; give a list")
    return found


def _id(path: Path, side: str, i: int, value: object) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise InputError(
            f"{path}: {side} sentence {i} has the id {value!r}; give a string or a whole number")
    return str(value)


def write_concepts(corpus: Corpus, folder: str | Path) -> None:
    """The corpus as concept folders, one sub-folder a language, which `read_concepts` reads back.

    Sentences that no concept labels are not written.

    Raises:
        InputError: the folder has something in it, or the corpus has no concepts.
    """
    folder = Path(folder)
    if not corpus.concepts:
        raise InputError(f"corpus {corpus.name!r} has no concepts to write")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; name a new folder")
    for language in corpus.language_names:
        of_language = corpus.languages == language
        part = folder / _file_name(language)
        listed = ["group,concept"]
        for c, (concept, group) in enumerate(zip(corpus.concepts, corpus.groups, strict=True)):
            rows = {side: np.flatnonzero(of_language & (corpus.labels[:, c] == label)).tolist()
                    for side, label in _SIDES.items()}
            if not any(rows.values()):
                continue
            quoted = ('"' + name.replace('"', '""') + '"' for name in (group, concept))
            listed.append(",".join(quoted))
            content = {
                "concept": concept, "group": group, "source": corpus.name,
                "sentences": {side: [corpus.texts[i] for i in at] for side, at in rows.items()},
                "documents": {side: corpus.documents[i].tolist() for side, i in rows.items()},
                "parallel": {side: corpus.parallel[i].tolist() for side, i in rows.items()}}
            path = part / _file_name(group) / (_file_name(concept) + ".json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=1), encoding="utf-8")
        if len(listed) > 1:
            (part / LIST).write_text("\n".join(listed) + "\n", encoding="utf-8")
