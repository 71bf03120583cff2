"""Examples from published files: XNLI, PAWS-X, questions in SQuAD's layout, and topics of any labelled corpus."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.files import choose, files_in, find, json_file, near, table
from xlingjax.errors import InputError
from xlingjax.tasks.classification import XNLI
from xlingjax.tasks.task import Answer, Example

PAWSX_FILES = {"train": ("train.tsv", "translated_train.tsv"), "dev": ("dev_2k.tsv",), "test": ("test_2k.tsv",)}


def read_xnli(paths: str | Path | Sequence[str | Path], languages: Sequence[str] | None = None) -> tuple[Example, ...]:
    """XNLI: does a premise entail a hypothesis? Texts are (premise, hypothesis).

    Args:
        paths: files or folders of `xnli.dev.tsv`, `xnli.test.tsv` (columns language, gold_label, sentence1, sentence2,
            promptID, pairID) and `multinli.train.<language>.tsv` (premise, hypo, label). Quotes mean nothing.
        languages: default all.

    Returns:
        Examples whose document is the premise, shared by the languages of dev and test. A row without a gold label
        ("-") has label "".

    Raises:
        InputError: a file, column, language or label is not known.
    """
    found: list[Example] = []
    for path in files_in(paths, (".tsv",)):
        kind, split, language, *_ = [*path.name.split("."), ""]
        if kind == "xnli" and split in ("dev", "test"):
            needed = ("language", "gold_label", "sentence1", "sentence2", "promptID", "pairID")
            for n, row in enumerate(table(path, needed), 2):
                label = _label(path, n, row["gold_label"], XNLI.labels)
                found.append(Example(
                    f"{split}/{row['pairID']}", (row["sentence1"], row["sentence2"]), row["language"],
                    f"{split}/{row['promptID']}", split, label))
        elif kind == "multinli" and language not in ("", "tsv"):
            found += _multinli(path, split, language)
        else:
            raise InputError(
                f"{path} is none of xnli.dev.tsv, xnli.test.tsv, multinli.train.<language>.tsv; give the files by "
                "the names they are published under")
    chosen = choose(languages, (e.language for e in found), "language", "the XNLI files")
    return tuple(e for e in found if e.language in chosen)


def _multinli(path: Path, split: str, language: str) -> Iterator[Example]:
    premises: dict[str, int] = {}
    for n, row in enumerate(table(path, ("premise", "hypo", "label")), 2):
        said = row["label"].replace("contradictory", "contradiction")  # as these files have it
        place = premises.setdefault(row["premise"], len(premises))
        yield Example(f"{split}/{n - 2}", (row["premise"], row["hypo"]), language, f"{split}/premise {place}", split,
                      _label(path, n, said, XNLI.labels))


def read_pawsx(
    folder: str | Path, languages: Sequence[str] | None = None, splits: Sequence[str] | None = None,
) -> tuple[Example, ...]:
    """PAWS-X: is one sentence a paraphrase of the other ("1") or not ("0")?

    Documents are the pairs, shared by the languages of a split: the files do not say which pairs come from one source
    sentence, so intervals may be too narrow.

    Args:
        folder: of `<language>/train.tsv` or `translated_train.tsv`, `dev_2k.tsv`, `test_2k.tsv` (columns id, sentence1,
            sentence2, label). Quotes mean nothing.
        languages: default all.
        splits: of train, dev, test; default those that a language has.

    Returns:
        Examples; a row that was not translated (a text is empty or "NS") or has no label has label "".

    Raises:
        InputError: a folder, file, column, language or label is not known.
    """
    folder = Path(folder)
    inside = sorted(p.name for p in folder.glob("*") if find(p, *(n for names in PAWSX_FILES.values() for n in names)))
    if not inside:
        raise InputError(f"{folder} has no <language>/test_2k.tsv; name the folder that has PAWS-X's languages")
    found = []
    for language in choose(languages, inside, "language", folder):
        for split in choose(splits, PAWSX_FILES, "split", "PAWS-X"):
            path = find(folder / language, *PAWSX_FILES[split])
            if path is None and splits is not None:
                raise InputError(f"{folder / language} has no {' or '.join(PAWSX_FILES[split])}; add it")
            for n, row in enumerate(table(path, ("id", "sentence1", "sentence2", "label")) if path else (), 2):
                assert path is not None
                texts = (row["sentence1"], row["sentence2"])
                told = all(text.strip() not in ("", "NS") for text in texts)
                label = _label(path, n, row["label"], ("0", "1")) if told else ""
                name = f"{split}/{row['id']}"
                found.append(Example(name, texts, language, name, split, label))
    return tuple(found)


def _label(path: Path, line: int, said: str, labels: Sequence[str]) -> str:
    if said in ("-", ""):
        return ""
    if said not in labels:
        raise InputError(f"{path}, line {line}: label {said!r} is none of {', '.join(labels)}; correct it")
    return said


def read_squad(
    paths: str | Path | Sequence[str | Path], languages: Sequence[str] | None = None, split: str = "test",
    language: str | None = None,
) -> tuple[Example, ...]:
    """Questions on paragraphs, in the layout of SQuAD 1.1; texts are (question, context).

    Args:
        paths: files or folders of them; plain, .xz or .gz. `xquad.<language>.json` names its language.
        languages: which of them; default all.
        split: of all their examples.
        language: of files that do not name theirs, such as `train-v1.1.json` ("en").

    Returns:
        Examples whose document is the article, by its number in the file: XQuAD's are parallel.

    Raises:
        InputError: not SQuAD's layout, a language is not known, a question has no answer, or an answer is not in its
            context at the place given: the message names the question.
    """
    found: list[Example] = []
    for path in files_in(paths, (".json",)):
        parts = path.name.split(".")
        code = parts[1] if parts[0] == "xquad" and len(parts) > 2 else language
        if code is None:
            raise InputError(f"{path.name} does not name its language; give language=")
        try:
            for a, article in enumerate(json_file(path)["data"]):
                for paragraph in article["paragraphs"]:
                    for qa in paragraph["qas"]:
                        found.append(_question(path, qa, paragraph["context"], code, f"{parts[0]}/article {a}", split))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f"{path}: not in SQuAD's layout data[].paragraphs[].{{context, qas[].{{id, question, answers[]."
                f"{{text, answer_start}}}}}} ({error!r}); give the original file") from error
    chosen = choose(languages, (e.language for e in found), "language", "the question files")
    return tuple(e for e in found if e.language in chosen)


def _question(path: Path, qa: dict[str, Any], context: str, language: str, document: str, split: str) -> Example:
    answers = tuple(Answer(answer["text"], answer["answer_start"]) for answer in qa["answers"])
    name = str(qa["id"])
    if not answers:
        raise InputError(
            f"{path}: question {name!r} has no answer; only questions with answers (SQuAD 1.1) can be scored here, so "
            "leave it out")
    for text, start in answers:
        if not text.strip() or start < 0 or context[start:start + len(text)] != text:
            raise InputError(
                f"{path}: question {name!r}: the answer {text!r} is not in its context at character {start}, where "
                f"{context[max(start, 0):max(start, 0) + len(text)]!r} stands; correct answer_start")
    return Example(name, (qa["question"], context), language, document, split, answers=answers)


def topic_examples(corpus: Corpus, group: str = "topic", split: str = "") -> tuple[Example, ...]:
    """Sentences with the one concept of a group that they show, as SIB-200's topics (MLDoc's task).

    Args:
        corpus: with concepts of that group: `read_sib200(...)`, `mini_world(...)`.
        group: of the concepts that are the classes.
        split: of all examples, "" where `split_by_documents` draws it.

    Returns:
        Examples, names shared by translations; a sentence that shows none or several has label "".

    Raises:
        InputError: fewer than two concepts of the group.
    """
    column = np.array([name == group for name in corpus.groups], bool)
    classes = [name for name, chosen in zip(corpus.concepts, column) if chosen]
    if len(classes) < 2:
        raise InputError(
            f"corpus {corpus.name!r} has {len(classes)} concept(s) of group {group!r}; two or more make a task"
            f"{near(group, set(corpus.groups))}")
    shown = corpus.labels[:, column] == 1
    return tuple(
        Example(corpus.parallel[i] or str(i), (text,), str(corpus.languages[i]), str(corpus.documents[i]), split,
                classes[int(shown[i].argmax())] if shown[i].sum() == 1 else "")
        for i, text in enumerate(corpus.texts))
