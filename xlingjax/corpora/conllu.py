"""Universal Dependencies treebanks: what a sentence's tokens show are its concepts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from xlingjax.corpora.assemble import Sentence, assemble, frequent
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.files import choose, files_in, lines, stem
from xlingjax.errors import InputError

_PUD = re.compile(r"[nw]\d{8}")  # PUD's sent_id: source, document (5 digits), sentence (3 digits)
_KINDS = ("feats", "upos", "lemma", "misc")


class TreebankSentence(NamedTuple):
    """One sentence of a CoNLL-U file."""

    text: str
    sent_id: str
    document: str  # "" = the file names none
    words: tuple[tuple[str, ...], ...]  # the ten columns of each word; no ranges, no empty nodes
    ranges: tuple[tuple[int, int, str], ...] = ()  # first and last word of what is written as one, and how


def treebank_language(path: Path) -> str:
    """The file's name up to the first dot or underscore."""
    return stem(path).split("_")[0]


def parse_conllu(path: str | Path) -> Iterator[TreebankSentence]:
    """The sentences of a CoNLL-U file.

    A document is what `# newdoc id` names, except in PUD, where only the sentence id tells it in
    every language.

    Raises:
        InputError: a line has not ten columns, or a sentence has no `# text` or `# sent_id`.
    """
    meta: dict[str, str] = {}
    words: list[tuple[str, ...]] = []
    ranges: list[tuple[int, int, str]] = []
    document, unnamed, first = "", 0, 0
    end = 0
    for end, line in enumerate(lines(path), 1):
        if not line.strip():
            if words:
                yield _sentence(path, first, meta, words, ranges, document)
            meta, words, ranges, first = {}, [], [], 0
            continue
        first = first or end
        if line.startswith("#"):
            key, _, value = line[1:].partition("=")
            meta[key.strip()] = value.strip()
            if key.strip() in ("newdoc", "newdoc id"):
                unnamed += 1
                document = value.strip() or f"document {unnamed}"
            continue
        columns = tuple(line.split("\t"))
        if len(columns) != 10:
            raise InputError(
                f"{path}, line {end}: {len(columns)} columns, not the 10 of CoNLL-U; "
                "divide them by tabs")
        if columns[0].isdigit():
            words.append(columns)
        elif not re.fullmatch(r"\d+[-.]\d+", columns[0]):
            raise InputError(f"{path}, line {end}: {columns[0]!r} is no word number")
        elif "-" in columns[0]:
            start, last = map(int, columns[0].split("-"))
            ranges.append((start, last, columns[1]))
    if words:
        yield _sentence(path, first, meta, words, ranges, document)


def _sentence(
    path: str | Path, line: int, meta: Mapping[str, str], words: list[tuple[str, ...]],
    ranges: list[tuple[int, int, str]], document: str,
) -> TreebankSentence:
    for field in ("text", "sent_id"):
        if field not in meta:
            raise InputError(f"{path}, line {line}: the sentence has no '# {field} = ...'; add it")
    sent_id = meta["sent_id"]
    home = sent_id[:6] if _PUD.fullmatch(sent_id) else document
    return TreebankSentence(meta["text"], sent_id, home, tuple(words), tuple(ranges))


def _shown(sentence: TreebankSentence) -> Iterator[tuple[str, str]]:
    """(kind, concept) for all that the sentence's words show, with repetitions."""
    for word in sentence.words:
        yield "upos", f"upos:{word[3]}"
        yield "lemma", f"lemma:{word[2]}"
        for kind, prefix, column in (("feats", "", word[5]), ("misc", "misc:", word[9])):
            for pair in column.split("|") if column != "_" else ():
                key, _, values = pair.partition("=")
                # FEATS may list alternatives, "Gender=Fem,Masc"; MISC is free text.
                for value in values.split(",") if kind == "feats" else [values]:
                    yield kind, f"{prefix}{key}={value}"


def _group(concept: str) -> str:
    kind, colon, rest = concept.partition(":")
    if colon and kind in ("upos", "lemma"):
        return kind
    return (rest if colon and kind == "misc" else concept).partition("=")[0]


def read_conllu(
    paths: str | Path | Sequence[str | Path] | Mapping[str, str | Path | Sequence[str | Path]],
    concepts: Sequence[str] | None = None, languages: Sequence[str] | None = None,
    parallel: bool = False, kinds: Sequence[str] = ("feats",), minimum: int = 20,
    everywhere: bool = True,
) -> Corpus:
    """Treebank sentences; a sentence shows a concept if at least one of its words does.

    Documents are `# newdoc id`, in PUD `sent_id[:6]`; in a file with neither each sentence is a
    document of its own, which a note says.

    Args:
        paths: files `<language>...conllu`, a folder of them, or language -> files. The language is
            the file's name up to the first dot or underscore.
        concepts: "Number=Plur" (FEATS), "upos:VERB", "lemma:house", "misc:Sense=house.n.01";
            default all of `kinds` that are frequent enough.
        languages: which to keep; default all.
        parallel: sentences with equal `sent_id` are translations (PUD).
        kinds: which concepts the default looks for, of feats, upos, lemma, misc.
        minimum: sentences with and without a concept that a language needs, for the default.
        everywhere: the minimum holds in every language, or in at least one.

    Raises:
        InputError: a file is malformed (named with its line); a language or concept is unknown.
    """
    kinds = choose(kinds, _KINDS, "kind", "CoNLL-U")
    files: dict[str, list[Path]] = {}
    if isinstance(paths, Mapping):
        files = {language: files_in(path, (".conllu",)) for language, path in paths.items()}
    else:
        for path in files_in(paths, (".conllu",)):
            files.setdefault(treebank_language(path), []).append(path)
    chosen = choose(languages, files, "language", "the treebanks")
    sentences: list[Sentence] = []
    notes: list[str] = []
    for language in chosen:
        seen: set[str] = set()
        single = 0
        for path in files[language]:
            for found in parse_conllu(path):
                if parallel and found.sent_id in seen:
                    raise InputError(
                        f"{path}: sent_id {found.sent_id!r} occurs twice in {language}; parallel "
                        "sentences need distinct ids")
                seen.add(found.sent_id)
                single += not found.document
                own = found.sent_id if parallel else f"{language}/{found.sent_id}"
                shown = {concept: 1 for kind, concept in _shown(found)
                         if (kind in kinds if concepts is None else concept in concepts)}
                sentences.append(Sentence(
                    found.text, language, found.document or own,
                    found.sent_id if parallel else "", shown))
        if single:
            notes.append(f"{language}: {single} sentences name no document; each is one of its own")
    if concepts is None:
        concepts = frequent(sentences, minimum, everywhere)
        if sentences and not concepts:
            raise InputError(
                f"no concept has {minimum} sentences with and without it in "
                f"{'each' if everywhere else 'one'} of {', '.join(chosen)}; lower minimum= or "
                "name concepts=")
    else:
        known = {concept for sentence in sentences for concept in sentence.labels}
        for concept in concepts:
            if sentences and concept not in known:
                raise InputError(
                    f"no word of {', '.join(chosen)} shows {concept!r}; write Key=Value of FEATS, "
                    "or upos:, lemma:, misc: before it")
    name = "treebanks" if len(chosen) > 1 else stem(files[chosen[0]][0])
    return assemble(sentences, {c: _group(c) for c in concepts}, name, absent=0, notes=notes)
