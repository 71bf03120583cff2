"""Text without labels: running text for pre-training, XQuAD's paragraphs and questions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from xlingjax.corpora.assemble import Sentence, assemble
from xlingjax.corpora.conllu import parse_conllu, treebank_language
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.files import choose, files_in, json_file, lines, stem, table
from xlingjax.errors import InputError

_DOCUMENT_COLUMNS = ("doc", "story", "article")


def read_text(
    paths: str | Path | Sequence[str | Path], language: str | None = None,
    languages: Sequence[str] | None = None, document: str | None = None,
    parallel: str | None = None,
) -> Corpus:
    """Running text, a paragraph a row, without labels.

    Args:
        paths: files or folders of them; plain, .xz or .gz.
            `.txt`: one paragraph a line, a blank line begins a new document; the language is
            `language` or the file's name up to the first dot.
            `.tsv`: columns text and lang (not needed with `language`), one for the document. A column english, as
                Tatoeba's pairs have it, is text in "eng", each sentence once.
            `.conllu`: sentences of a treebank; the language is `language` or the name up to the first dot or
                underscore.
        language: language of all rows.
        languages: which languages to keep; default all.
        document: column of a .tsv that names the document; default the first of doc, story,
            article; without one each row is a document of its own, which a note says.
            Translations of a document share its id, which begins with the file's name.
        parallel: column of a .tsv with an id that translations of a row share.

    Raises:
        InputError: a file, column or language is missing, or no text is left.
    """
    sentences: list[Sentence] = []
    notes: list[str] = []
    files = files_in(paths, (".txt", ".tsv", ".conllu"))
    for path in files:
        if ".tsv" in path.suffixes:
            sentences += _table_rows(path, language, document, parallel, notes)
        elif ".conllu" in path.suffixes:
            sentences += _treebank(path, language or treebank_language(path))
        else:
            sentences += _paragraphs(path, language or stem(path))
    chosen = choose(languages, (row.language for row in sentences), "language", "the text")
    kept = [row for row in sentences if row.language in chosen]
    return assemble(kept, {}, stem(files[0]) if len(files) == 1 else "text", absent=-1, notes=notes)


def _paragraphs(path: Path, language: str) -> Iterator[Sentence]:
    number, open_document = 0, False
    for line in lines(path):
        if line.strip():
            number += not open_document
            yield Sentence(line, language, f"{stem(path)}/{number}")
        open_document = bool(line.strip())


def _treebank(path: Path, language: str) -> Iterator[Sentence]:
    for found in parse_conllu(path):
        yield Sentence(found.text, language, f"{stem(path)}/{found.document or found.sent_id}")


def _table_rows(
    path: Path, language: str | None, document: str | None, parallel: str | None, notes: list[str],
) -> Iterator[Sentence]:
    given = [column for column in (document, parallel) if column]
    column, seen = document, set()
    for n, row in enumerate(table(path, ["text", *given] + (["lang"] if language is None else []))):
        if n == 0 and column is None:
            column = next((name for name in _DOCUMENT_COLUMNS if name in row), None)
            if column is None:
                notes.append(f"{path.name} names no documents; each row is a document of its own")
        home = row[column] if column else (row[parallel] if parallel else str(n))
        sentence = row[parallel] if parallel else ""
        yield Sentence(
            row["text"], language or row["lang"], f"{stem(path)}/{home}",
            f"{stem(path)}/{sentence}" if sentence else "")
        english = row.get("english")
        if english and language is None and english not in seen:
            seen.add(english)
            yield Sentence(english, "eng", f"{stem(path)}/{home}")


def read_xquad(
    paths: str | Path | Sequence[str | Path], languages: Sequence[str] | None = None,
    part: str = "context",
) -> Corpus:
    """XQuAD's paragraphs or questions as parallel sentences; an article is a document.

    Args:
        paths: files `xquad.<language>.json` or a folder of them; plain, .xz or .gz.
        languages: default all.
        part: "context" or "question".

    Raises:
        InputError: a file is missing or has not the SQuAD layout, a language or part is unknown.
    """
    [part] = choose([part], ("context", "question"), "part", "XQuAD")
    files = {path.name.split(".")[1]: path for path in files_in(paths, (".json",))}
    sentences = []
    for language in choose(languages, files, "language", "the XQuAD files"):
        path = files[language]
        try:
            for a, article in enumerate(json_file(path)["data"]):
                for p, paragraph in enumerate(article["paragraphs"]):
                    if part == "context":
                        found = [(paragraph["context"], f"{a}/{p}")]
                    else:
                        found = [(qa["question"], qa["id"]) for qa in paragraph["qas"]]
                    sentences += [
                        Sentence(str(text), language, f"article {a}", str(i)) for text, i in found]
        except (KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"{path}: not in SQuAD's layout data[].paragraphs[].{{context, qas}} ({error!r}); "
                "give the original file") from error
    return assemble(sentences, {}, f"xquad {part}s", absent=-1)
