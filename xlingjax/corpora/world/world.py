"""The embedded corpus: one small world, told in eight languages."""

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.world.grammars import CLAUSES, text_of
from xlingjax.corpora.world.lexicon import LANGUAGES, TOPICS, Forms, concepts, forms, own_forms
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.sampling import (
    COLUMNS,
    TRACED,
    WORD_COLUMNS,
    as_meanings,
    document_topics,
    draw,
    draw_balanced,
)
from xlingjax.corpora.world.word import Word
from xlingjax.errors import InputError

MOST = 0.3  # the largest dose the lexicon has common forms for
SENTENCES = {"probe": 288, "train": 6000}
LARGEST = {"probe": 1800, "train": 60_000}  # what the world can say without repeating itself
DOCUMENT = {"probe": 4, "train": 10}  # sentences in a document


def mini_world(
        split: str = "probe", dose: float = 0.15, seed: int = 0,
        languages: Sequence[str] | None = None, sentences: int | None = None,
        topics: str = "matched") -> Corpus:
    """Sentences of a small world in up to eight languages, labelled by what they say.

    "probe" holds the same sentences in every language, in the same documents, with parallel ids.
    "train" holds sentences that each language draws for itself: none has a translation in the
    training text of another language, and no (subject, verb, object) of a probe occurs in any
    training text, whatever the seeds and doses of the two. A document keeps to one topic.

    At dose 0 no word form occurs in two languages. Otherwise that share of the nouns takes one
    common form in every language: the same nouns everywhere, chosen by the seed, a larger dose
    keeping those of a smaller one. So does an equal share, rounded up, of the persons' names
    ("Anna") and numerals ("3"). Common forms are those of loanwords at home in several languages
    ("guitar", "kamel"), in Latin letters; they have a plural and do not decline.

    A text has no capital at its start and no full stop, so that a word has one form wherever it
    stands; German nouns and all names are capitalised.

    The concepts, by group: the words of the lexicon other than names ("own form", or "shared form"
    at this dose), the document's topic ("topic"), and "Number=Plur" of the subject and "Tense=Past"
    ("feature"); their labels are the same in all languages. "Gender=Fem" ("gender") is the
    subject's grammatical gender, which differs between languages, and -1 where there is none. The
    kind of a word is its part of speech, of any other concept its group.

    What still predicts a word beside its topic: a verb its kind of object (eat: food), an adjective
    its kind of noun (sweet: food), a time adverb the tense. For the concepts in `TRACED`, of which
    every default probe has at least 12 positives, the strongest tie is song with listen (0.46 as a
    correlation in the training text), the median 0.08.

    Args:
        split: "probe" or "train".
        dose: share of the nouns with a common form, 0 to 0.3.
        seed: chooses the shared concepts and the sentences.
        languages: ISO 639-3 codes, default all eight; a language's sentences do not depend on
            which others are asked for.
        sentences: how many in each language, default 288 (probe, 72 documents) or 6,000 (train).
        topics: "matched", all topics equally often; "unlike", the training text of every language
            has topic shares 8, 4, 2, 1, 1, 1 of 17 in an order of its own.

    Raises:
        InputError: an unknown split, language or topics, a dose outside 0 to 0.3, or more
            sentences than the world can say.

    Example:
        >>> corpus = mini_world(sentences=12, dose=0, languages=("eng", "deu", "hin"))
        >>> for text in corpus.texts[4::12]:
        ...     print(text)
        in the evening the girls send the new ticket
        am Abend schicken die Mädchen die neue Fahrkarte
        शाम को लड़कियाँ नया टिकट भेजती हैं
    """
    texts, spoken, rows, subjects, documents, parallel = [], [], [], [], [], []
    for part in tell(split, dose, seed, languages, sentences, topics):
        texts += [text_of(words) for words in part.sentences()]
        spoken += [part.language] * len(part.meanings)
        rows.append(part.rows)
        subjects.append(_gender(part.language)[part.rows[:, COLUMNS.index("subject")]])
        documents += part.documents
        parallel += part.parallel
    labels, names, groups, kinds = _labels(
        np.concatenate(rows), np.concatenate(subjects), shared_concepts(dose, seed))
    return Corpus(
        tuple(texts), np.array(spoken), np.array(documents), np.array(parallel),
        labels, names, groups, f"mini_world {split} (dose {dose:g}, seed {seed}, {topics} topics)",
        kinds=kinds)


class Told(NamedTuple):
    """What one language tells.

    Attributes:
        forms: of the language at the dose.
        rows: int[n, 12], the meanings as integers, the topic in the last column.
        meanings, documents, parallel: of each sentence.
    """

    language: str
    forms: Forms
    rows: np.ndarray
    meanings: list[Meaning]
    documents: list[str]
    parallel: list[str]

    def sentences(self) -> Iterator[list[Word]]:
        """The words of each sentence."""
        clause = CLAUSES[self.language]
        return (clause(self.forms, meaning) for meaning in self.meanings)


def tell(
        split: str, dose: float, seed: int, languages: Sequence[str] | None, sentences: int | None,
        topics: str) -> Iterator[Told]:
    """What `mini_world` has of each language, with the same arguments and errors."""
    chosen = tuple(LANGUAGES if languages is None else languages)
    count = SENTENCES.get(split, 0) if sentences is None else sentences
    _check(split, dose, seed, chosen, count, topics)
    shared = shared_concepts(dose, seed)
    for language in chosen:
        own = language if split == "train" else None
        drawn, topic = _drawn(own, count, DOCUMENT[split], seed, topics == "unlike")
        documents = [f"{own or 'probe'}-{seed}-{i // DOCUMENT[split]}" for i in range(count)]
        parallel = ["" if own else f"{document}-{i % DOCUMENT[split]}"
                    for i, document in enumerate(documents)]
        yield Told(language, forms(language, shared), np.column_stack([drawn, topic]),
                   as_meanings(drawn), documents, parallel)


def shared_concepts(dose: float, seed: int = 0) -> frozenset[str]:
    """The nouns, names and numerals that take one common form in every language at a dose.

    Example:
        >>> len(shared_concepts(0.05) & shared_concepts(0.3)), sorted(shared_concepts(0))
        (7, [])
    """
    generator = generator_of(seed, "shared")
    chosen: list[str] = []
    for part in ("noun", "name", "numeral"):
        everything = [c for c in concepts().values() if c.part == part]
        place: dict[str, float] = {}  # in the order of sharing: traced nouns evenly among others
        for traced in (True, False):
            loans = [c.name for c in everything if c.shared and (c.name in TRACED) == traced]
            order = np.argsort(generator.random(len(loans)), kind="stable")
            place |= {loans[i]: (rank + 0.5) / len(loans) for rank, i in enumerate(order)}
        exact = dose * len(everything)
        count = math.floor(exact + 0.5) if part == "noun" else math.ceil(exact - 1e-9)
        chosen += sorted(place, key=lambda name: (place[name], name))[:count]
    return frozenset(chosen)


def generator_of(seed: int, purpose: str) -> np.random.Generator:
    entropy = np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])
    return np.random.Generator(np.random.PCG64(entropy))


def _drawn(
        language: str | None, count: int, size: int, seed: int,
        unlike: bool) -> tuple[np.ndarray, np.ndarray]:
    """Meanings int[count, 11] in documents of `size`, and the topic int[count] of each."""
    generator = generator_of(seed, language or "probe")
    per_document = document_topics(math.ceil(count / size), generator, language if unlike else None)
    topic = np.repeat(per_document, size)[:count]
    rows = np.zeros((count, len(COLUMNS)), np.int64)
    for i, name in enumerate(TOPICS):
        number = int((topic == i).sum())
        rows[topic == i] = (draw(name, number, generator, language) if language else
                            draw_balanced(name, number, generator))
    return rows, topic


def _gender(language: str) -> np.ndarray:
    """int8[c]: 1 = feminine, 0 = another gender, -1 = the language has none."""
    words = own_forms(language)
    if "gender" not in words["man"]:
        return np.full(len(words), -1, np.int8)
    return np.array([words[name].get("gender") == "f" for name in concepts()], np.int8)


def _labels(
        rows: np.ndarray, gender: np.ndarray,
        shared: frozenset[str]) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Labels int8[S, C] of meanings (topic in the last column), concept names, groups and kinds."""
    table = list(concepts().values())
    said = np.zeros((len(rows), len(table) + 1), np.int8)  # the last column takes the -1 of "none"
    for column in WORD_COLUMNS:
        said[np.arange(len(rows)), rows[:, column]] = 1
    lexical = [i for i, concept in enumerate(table) if concept.part != "name"]
    labels = np.empty((len(rows), len(lexical) + len(TOPICS) + 3), np.int8)
    labels[:, :len(lexical)] = said[:, lexical]
    labels[:, len(lexical):-3] = rows[:, -1:] == np.arange(len(TOPICS))
    labels[:, -3] = rows[:, COLUMNS.index("subject_plural")]
    labels[:, -2] = rows[:, COLUMNS.index("past")]
    labels[:, -1] = gender
    names = (*(table[i].name for i in lexical), *TOPICS, "Number=Plur", "Tense=Past", "Gender=Fem")
    groups = (*("shared form" if table[i].name in shared else "own form" for i in lexical),
              *("topic" for _ in TOPICS), "feature", "feature", "gender")
    kinds = (*(table[i].part for i in lexical), *("topic" for _ in TOPICS), *groups[-3:])
    return labels, names, groups, kinds


def _check(
        split: str, dose: float, seed: int, languages: tuple[str, ...], count: int,
        topics: str) -> None:
    if split not in SENTENCES:
        raise InputError(f"mini_world has no split {split!r}; ask for 'probe' or 'train'")
    if topics not in ("matched", "unlike"):
        raise InputError(f"mini_world: topics={topics!r} is unknown; ask for 'matched' or 'unlike'")
    if not 0 <= dose <= MOST:
        raise InputError(
            f"mini_world: dose {dose} is outside 0 to {MOST}, the share of nouns it can share")
    if seed < 0:
        raise InputError(f"mini_world: seed {seed} is negative; give 0 or more")
    if not 1 <= count <= LARGEST[split]:
        raise InputError(
            f"mini_world: {count} sentences a language; ask for 1 to {LARGEST[split]} in {split!r}")
    for language in languages:
        if language not in LANGUAGES:
            raise InputError(
                f"mini_world does not speak {language!r}; it speaks {', '.join(LANGUAGES)}")
    if not languages or len(set(languages)) != len(languages):
        raise InputError(f"mini_world: languages {list(languages)} must be one or more, each once")
