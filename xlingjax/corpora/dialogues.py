"""Dialogues turn by turn: episodes, windows of a reply and the turns before it, leaks, translations, controls."""

import collections
import dataclasses
import functools
import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError

EARLIER = 7  # turns before the reply, as DialoGPT's fine-tuning for AfriWOZ had them
LONGEST = 60  # turns; a longer "episode" is a stretch whose flags are missing
BLOCK = 20  # neighbouring turns of a stretch without flags that count as one document
LONG = 5  # words of a turn whose recurrence is hardly chance

# What is done about each kind of defect: nothing is dropped without being listed.
RULES: Mapping[str, str] = {
    "empty turn": "dropped; its row number stays unused, and its episode flag moves to the next turn",
    "mojibake": "UTF-8 once read as Windows-1252 is read again; the text as found is kept with the defect",
    "no flag": f"an episode of more than {LONGEST} turns has lost its flags; windows cross it as if it were one "
               f"dialogue and are marked mixed, and blocks of {BLOCK} turns are its documents",
    "borrowed flags": "the flags of a language whose rows are translations of these hold here too",
    "one turn": "kept, but no reply: nothing stands before it",
    "first flag": "the first turn begins an episode, flagged or not",
    "other slice": "rows are no translations of those of the languages before it; without parallel ids",
    "empty rows": "rows without any cell after the last turn; dropped",
    "other sheet": "not read; the first sheet with the columns is",
    "other column": "not read",
}


class Defect(NamedTuple):
    """Something wrong in the source.

    Attributes:
        kind: one of `RULES`.
        language, split: where.
        row: of the source's table, from 0 without the header; -1 = the whole split.
        text: what was found.
    """

    kind: str
    language: str
    split: str
    row: int = -1
    text: str = ""


class Leak(NamedTuple):
    """A turn of a test that training has too; rows are indices into the two sets."""

    test: int
    train: int
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Dialogues:
    """S turns of dialogues, in order, language by language and split by split.

    Attributes:
        texts: the turns.
        languages, splits: str[S]; splits are "train", "valid", "test".
        episodes: str[S], unique within language and split; turns of one episode are neighbours.
        rows: int[S], row in the source's table of this language and split, from 0.
        parallel: str[S], shared by translations of one turn; "" = none known.
        mixed: bool[S]: the turn lies in a stretch without flags, so that turns before it may be of another dialogue.
        scored: bool[S]: may be a reply; False = context only (a leaked turn).
        name: for reports. defects: what was found wrong, and `RULES` says what was done about it.
    """

    texts: tuple[str, ...]
    languages: Shaped[np.ndarray, "S"]
    splits: Shaped[np.ndarray, "S"]
    episodes: Shaped[np.ndarray, "S"]
    rows: Int[np.ndarray, "S"]
    parallel: Shaped[np.ndarray, "S"]
    mixed: Bool[np.ndarray, "S"]
    scored: Bool[np.ndarray, "S"]
    name: str = "dialogues"
    defects: tuple[Defect, ...] = ()

    def __post_init__(self) -> None:
        for field in ("languages", "splits", "episodes", "rows", "parallel", "mixed", "scored"):
            if np.shape(getattr(self, field)) != (len(self.texts),):
                raise InputError(f"dialogues {self.name!r}: {field} has shape {np.shape(getattr(self, field))}, not "
                                 f"({len(self.texts)},)")
        for text in self.texts:
            if not text.strip():
                raise InputError(f"dialogues {self.name!r} have an empty turn; leave it out and report it")
        keys = self._keys()
        if sum(one != other for one, other in zip(keys, keys[1:])) + bool(keys) != len(set(keys)):
            raise InputError(f"dialogues {self.name!r}: the turns of an episode must be neighbours; sort them")

    def _keys(self) -> list[tuple[str, str, str]]:
        return list(zip(self.languages.tolist(), self.splits.tolist(), self.episodes.tolist()))

    def __len__(self) -> int:
        return len(self.texts)

    @functools.cached_property
    def language_names(self) -> tuple[str, ...]:
        """The languages in order of first appearance."""
        return tuple(dict.fromkeys(self.languages.tolist()))

    @functools.cached_property
    def documents(self) -> Shaped[np.ndarray, "S"]:
        """str[S]: unit of independence in a language: the episode, or a block of 20 rows where flags are missing."""
        return np.array([f"{language}/{split}/{episode}" + (f"/block {row // BLOCK}" if mixed else "")
                         for (language, split, episode), row, mixed in zip(
                             self._keys(), self.rows.tolist(), self.mixed.tolist())], str)

    def take(self, index: np.ndarray) -> "Dialogues":
        """The turns at an int or bool index, in their order; defects stay."""
        index = np.arange(len(self))[index]
        part: dict[str, Any] = {field: getattr(self, field)[index] for field in (
            "languages", "splits", "episodes", "rows", "parallel", "mixed", "scored")}
        return dataclasses.replace(self, texts=tuple(self.texts[i] for i in index), **part)

    def only(self, language: str | Sequence[str] | None = None, split: str | None = None) -> "Dialogues":
        """The turns of some languages or a split.

        Raises:
            InputError: there are none.
        """
        wanted = self.language_names if language is None else (
            [language] if isinstance(language, str) else list(language))
        found = np.isin(self.languages, list(wanted)) & (True if split is None else self.splits == split)
        missing = [name for name in wanted if not (found & (self.languages == name)).any()]
        if missing:
            held = ", ".join(sorted({f"{one} {part}" for one, part, _ in self._keys()}))
            raise InputError(f"dialogues {self.name!r} have no turn of language {missing[0]!r}"
                             f"{f' in split {split!r}' if split else ''}; there are {held}")
        return self.take(found)

    def corpus(self) -> Corpus:
        """The turns as sentences without labels; translations share the document that the first language has."""
        home: dict[str, str] = {}  # of a parallel id
        moved: dict[str, str] = {}  # document -> that of its first turn with a translation
        for own, parallel in zip(self.documents.tolist(), self.parallel.tolist()):
            if parallel:
                moved.setdefault(own, home.setdefault(parallel, own))
        documents = [home.get(parallel, moved.get(own, own))
                     for own, parallel in zip(self.documents.tolist(), self.parallel.tolist())]
        return Corpus(self.texts, self.languages, np.array(documents, str), self.parallel,
                      np.zeros((len(self), 0), np.int8), name=self.name, notes=tuple(self.notes()))

    def notes(self) -> list[str]:
        """A line a kind of defect, language and split: how often, where, and what was done."""
        found: dict[tuple[str, str, str], list[Defect]] = collections.defaultdict(list)
        for defect in self.defects:
            found[defect.kind, defect.language, defect.split].append(defect)
        out = []
        for (kind, language, split), listed in found.items():
            rows = [str(defect.row) for defect in listed if defect.row >= 0]
            where = f" (rows {', '.join(rows[:8])}{' ...' if len(rows) > 8 else ''})" if rows else ""
            said = "" if rows else f" {'; '.join(defect.text for defect in listed if defect.text)}".rstrip()
            out.append(f"{language} {split}: {kind}{f' x {len(rows)}' if rows else ''}{where}{said}: {RULES[kind]}")
        return out

    def summary(self) -> str:
        """What there is, a line a language and split, then the defects."""
        lines = [f"{self.name}: {len(self)} turns, {len(self.language_names)} languages"]
        for language in self.language_names:
            for split in dict.fromkeys(self.splits[self.languages == language].tolist()):
                part = self.only(language, split)
                lines.append(
                    f"  {language} {split}: {len(part)} turns, {len(set(part.episodes.tolist()))} episodes; turns "
                    f"without flags {part.mixed.sum()}, with translations {(part.parallel != '').sum()}, "
                    f"as context only {(~part.scored).sum()}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes()])

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything but name and defects."""
        held = [self.texts, *(getattr(self, field).tolist() for field in (
            "languages", "splits", "episodes", "rows", "parallel", "mixed", "scored"))]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """n replies, each with the turns before it.

    Attributes:
        contexts: up to seven earlier turns of the reply's episode, oldest first.
        replies: the current turn.
        turns: int[n], the reply's index in the dialogues.
        languages, splits, documents, parallel: str[n], of the reply.
        mixed: bool[n]: flags are missing, the context may hold turns of another dialogue.
        variant: "as said", "shuffled context" or "reply only".
    """

    contexts: tuple[tuple[str, ...], ...]
    replies: tuple[str, ...]
    turns: Int[np.ndarray, "n"]
    languages: Shaped[np.ndarray, "n"]
    splits: Shaped[np.ndarray, "n"]
    documents: Shaped[np.ndarray, "n"]
    parallel: Shaped[np.ndarray, "n"]
    mixed: Bool[np.ndarray, "n"]
    variant: str = "as said"

    def __len__(self) -> int:
        return len(self.replies)

    def take(self, index: np.ndarray) -> "Windows":
        """The windows at an int or bool index."""
        index = np.arange(len(self))[index]
        part: dict[str, Any] = {field: getattr(self, field)[index] for field in (
            "turns", "languages", "splits", "documents", "parallel", "mixed")}
        return dataclasses.replace(self, contexts=tuple(self.contexts[i] for i in index),
                                   replies=tuple(self.replies[i] for i in index), **part)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the texts, languages and splits."""
        held = [self.contexts, self.replies, self.languages.tolist(), self.splits.tolist()]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()


def windows(dialogues: Dialogues, earlier: int = EARLIER) -> Windows:
    """A window for every turn that has one before it in its episode and is scored.

    Within an episode only. A stretch without flags is crossed as if it were one dialogue, as the original did, and its
    windows are marked `mixed`. The first turn of an episode is no reply; leaked turns are contexts, no replies.

    Raises:
        InputError: `earlier` below 1; no window at all.
    """
    if earlier < 1:
        raise InputError(f"earlier is {earlier}; a window needs 1 or more turns before its reply")
    contexts, turns, start = [], [], 0
    keys = dialogues._keys()
    for turn, key in enumerate(keys):
        if turn and key != keys[turn - 1]:
            start = turn
        if turn > start and dialogues.scored[turn]:
            contexts.append(dialogues.texts[max(start, turn - earlier):turn])
            turns.append(turn)
    if not turns:
        raise InputError(
            f"dialogues {dialogues.name!r} have no reply: every episode is of one turn, or no turn is scored")
    index = np.array(turns)
    return Windows(
        tuple(contexts), tuple(dialogues.texts[turn] for turn in turns), index, dialogues.languages[index],
        dialogues.splits[index], dialogues.documents[index], dialogues.parallel[index], dialogues.mixed[index])


def shuffle_contexts(found: Windows, seed: int = 0) -> Windows:
    """Each reply after the context of another document of its language and split, with as many turns.

    Where no other document has as many earlier turns, as many as it has.

    Raises:
        InputError: a language's split is one document.
    """
    generator = np.random.default_rng([seed, 61])
    contexts = list(found.contexts)
    length = np.array([len(context) for context in found.contexts])
    for language, split in dict.fromkeys(zip(found.languages.tolist(), found.splits.tolist())):
        pool = np.flatnonzero((found.languages == language) & (found.splits == split))
        for row in pool:
            others = pool[found.documents[pool] != found.documents[row]]
            if not len(others):
                raise InputError(f"{language} {split} is one document; contexts cannot be shuffled between documents")
            most = min(length[row], length[others].max())
            chosen = found.contexts[generator.choice(others[length[others] >= most])]
            contexts[row] = chosen[len(chosen) - most:]
    return dataclasses.replace(found, contexts=tuple(contexts), variant="shuffled context")


def reply_only(found: Windows) -> Windows:
    """The replies with nothing before them."""
    return dataclasses.replace(found, contexts=((),) * len(found), variant="reply only")


def same_turn(text: str) -> str:
    """What two turns share that count as one: letters and digits, composed and in lower case.

    >>> same_turn("Na gode  sosai.") == same_turn("na gode sosai")
    True
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    marks = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in folded)
    return " ".join(marks.split()) or folded.strip()


def leaks(train: Dialogues, test: Dialogues, words: int = 1) -> tuple[Leak, ...]:
    """Turns of `test` that `train` has in the same language, capitals, blanks and punctuation aside.

    Args:
        words: that a turn has at least. Phrases that everybody says ("thank you") recur by chance; turns of five words
            and more (`LONG`) hardly do.
    """
    known: dict[tuple[str, str], int] = {}
    for row, (text, language) in enumerate(zip(train.texts, train.languages.tolist())):
        known.setdefault((language, same_turn(text)), row)
    found = []
    for row, (text, language) in enumerate(zip(test.texts, test.languages.tolist())):
        said = same_turn(text)
        if (language, said) in known and len(said.split()) >= words:
            found.append(Leak(row, known[language, said], text))
    return tuple(found)


def without_leaks(train: Dialogues, test: Dialogues, words: int = 1) -> Dialogues:
    """`test` with its leaked turns no longer scored; they stay as context, so that no other window changes."""
    scored = test.scored.copy()
    scored[[leak.test for leak in leaks(train, test, words)]] = False
    return dataclasses.replace(test, scored=scored)


def parallel_turns(dialogues: Dialogues, languages: Sequence[str] | None = None) -> Int[np.ndarray, "G n"]:
    """Turns that every language has, column by column translations of each other; only what is scored in all.

    Empty (n = 0) where there are none: whether languages are parallel is a property of the data, not an error.
    """
    names = tuple(languages) if languages is not None else dialogues.language_names
    homes: list[dict[str, int]] = []
    for name in names:
        rows = np.flatnonzero((dialogues.languages == name) & (dialogues.parallel != "") & dialogues.scored)
        homes.append({str(dialogues.parallel[row]): int(row) for row in rows[::-1]})
    common = [one for one in reversed(homes[0]) if all(one in home for home in homes)] if homes else []
    return np.array([[home[one] for one in common] for home in homes], int).reshape(len(names), len(common))
