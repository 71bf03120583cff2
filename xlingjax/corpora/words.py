"""The words of treebanks with what is known of each, and the tokens that write them."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlingjax.corpora.conllu import TreebankSentence, parse_conllu, treebank_language
from xlingjax.corpora.files import choose, files_in
from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError

ORDER = "order:"  # a task "order:obj": does such a word stand before or after its head?


@dataclasses.dataclass(frozen=True, eq=False)
class Treebank:
    """S sentences, and n words of theirs that stand in the text as they are.

    Attributes:
        texts, languages, documents: of each sentence; documents are named by language-independent ids where the
            treebanks are parallel (PUD).
        row: the sentence of each word. span: its characters, [n, 2].
        form: as written, lower case.
        labels: task -> str[n], "" where the task does not apply to a word.
    """

    texts: tuple[str, ...]
    languages: np.ndarray
    documents: np.ndarray
    row: np.ndarray
    span: np.ndarray
    form: np.ndarray
    labels: Mapping[str, np.ndarray]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything in it."""
        held = [self.texts, *(x.tolist() for x in (self.languages, self.documents, self.row, self.span)),
                {task: values.tolist() for task, values in self.labels.items()}]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()

    def rows(self, kept: np.ndarray) -> "Treebank":
        """The sentences at an int or bool index, with their words, in the order of the treebank."""
        chosen = np.sort(np.arange(len(self.texts))[kept])
        place = np.full(len(self.texts), -1)
        place[chosen] = np.arange(len(chosen))
        inside = place[self.row] >= 0
        return Treebank(
            tuple(self.texts[row] for row in chosen), self.languages[chosen], self.documents[chosen],
            place[self.row[inside]], self.span[inside], self.form[inside],
            {task: values[inside] for task, values in self.labels.items()})


def read_words(
    paths: str | Path | Sequence[str | Path], tasks: Sequence[str], languages: Sequence[str] | None = None,
) -> Treebank:
    """The words of treebanks with a label for each task.

    Words that are written as one (Spanish "del") are left out, and so is what does not stand in `# text`.

    Args:
        paths: files `<language>...conllu`, or a folder of them.
        tasks: "upos", a feature ("Number", "Gender", "Tense"), or "order:" and a relation ("order:obj"), which says
            "before" or "after" its head.
        languages: default all.

    Raises:
        InputError: a file is malformed, a language unknown, or a task occurs with no word.

    >>> import tempfile
    >>> line = "1\\tDogs\\tdog\\tNOUN\\t_\\tNumber=Plur\\t2\\tnsubj\\t_\\t_"
    >>> rest = "2\\tbark\\tbark\\tVERB\\t_\\t_\\t0\\troot\\t_\\t_"
    >>> path = Path(tempfile.mkdtemp()) / "eng.conllu"
    >>> _ = path.write_text(f"# sent_id = a\\n# text = Dogs bark\\n{line}\\n{rest}\\n\\n")
    >>> bank = read_words(path, ["upos", "Number", "order:nsubj"])
    >>> {task: labels.tolist() for task, labels in bank.labels.items()}
    {'upos': ['NOUN', 'VERB'], 'Number': ['Plur', ''], 'order:nsubj': ['before', '']}
    """
    files: dict[str, list[Path]] = {}
    for path in files_in(paths, (".conllu",)):
        files.setdefault(treebank_language(path), []).append(path)
    texts: list[str] = []
    where: list[tuple[str, str]] = []
    row: list[int] = []
    span: list[tuple[int, int]] = []
    form: list[str] = []
    labels: dict[str, list[str]] = {task: [] for task in tasks}
    for language in choose(languages, files, "language", "the treebanks"):
        for path in files[language]:
            for sentence in parse_conllu(path):
                for number, place in word_places(sentence).items():
                    word = sentence.words[number]
                    row.append(len(texts))
                    span.append(place)
                    form.append(word[1].lower())
                    for task in tasks:
                        labels[task].append(_label(word, task))
                texts.append(sentence.text)
                where.append((language, sentence.document or f"{language}/{sentence.sent_id}"))
    for task, values in labels.items():
        if not any(values):
            raise InputError(f"task {task!r} applies to no word of {', '.join(files)}; give \"upos\", a feature as the "
                             "treebanks name it, or \"order:\" and a relation")
    return Treebank(tuple(texts), np.array([g for g, _ in where], str), np.array([d for _, d in where], str),
                    np.array(row, np.int64), np.array(span, np.int64).reshape(-1, 2), np.array(form, str),
                    {task: np.array(values, str) for task, values in labels.items()})


def _label(word: tuple[str, ...], task: str) -> str:
    if task == "upos":
        return "" if word[3] == "_" else word[3]
    if task.startswith(ORDER):
        if word[7].split(":")[0] != task.removeprefix(ORDER) or not word[6].isdigit() or word[6] == "0":
            return ""
        return "before" if int(word[0]) < int(word[6]) else "after"
    values = dict(pair.partition("=")[::2] for pair in word[5].split("|") if "=" in pair)
    value = values.get(task, "")
    return "" if "," in value else value  # of several alternatives none is known


def word_places(sentence: TreebankSentence) -> dict[int, tuple[int, int]]:
    """Index of a word -> its characters in the text, for words that are written alone, in order."""
    joined = {number: (last, written) for start, last, written in sentence.ranges for number in (start,)}
    out: dict[int, tuple[int, int]] = {}
    at, skip = 0, 0
    for index, word in enumerate(sentence.words):
        number = int(word[0])
        if number <= skip:
            continue
        alone = number not in joined
        skip, written = (number, word[1]) if alone else joined[number]
        found = sentence.text.find(written, at)
        if found < 0 or sentence.text[at:found].strip():  # something unknown stands between
            continue
        at = found + len(written)
        if alone:
            out[index] = (found, at)
    return out


def word_positions(tokenizer: Any, bank: Treebank, tokens: Tokens) -> np.ndarray:
    """int[n, 2]: the first and the last token of each word; -1 where it was cut off or has none of its own.

    Args:
        tokenizer: a fast one, which knows the characters of its tokens.
        tokens: `tokenise` of the texts of the treebank by the same tokenizer.

    Raises:
        InputError: the tokenizer is a slow one.
    """
    if not tokenizer.is_fast:
        raise InputError(f"{type(tokenizer).__name__} is a slow tokenizer, which does not know where its tokens stand; "
                         "give a fast one")
    out = np.full((len(bank.row), 2), -1)
    starts = np.searchsorted(bank.row, np.arange(len(bank.texts) + 1))
    for sentence, text in enumerate(bank.texts):
        words = slice(starts[sentence], starts[sentence + 1])
        if words.start == words.stop:
            continue
        marks = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        marks = np.array(marks[:len(tokens.ids[sentence])], np.int64).reshape(-1, 2)
        real = (marks[:, 1] > marks[:, 0]) & ~tokens.special[sentence][:len(marks)]
        begin, end = bank.span[words, :1], bank.span[words, 1:]
        inside = (marks[:, 0] < end) & (marks[:, 1] > begin) & real
        has = inside.any(1)
        first, last = inside.argmax(1), len(marks) - 1 - inside[:, ::-1].argmax(1)
        whole = has & (marks[last, 1] >= end[:, 0])
        out[words] = np.where(whole[:, None], np.stack([first, last], 1), -1)
    return out
