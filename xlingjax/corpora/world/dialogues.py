"""Small dialogues in the embedded world: two things are told, then asked about.

A reply to a question cannot be guessed without the turns before it: who did it, what it was done to and where are drawn
at random, and only the telling says which.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from xlingjax.corpora.dialogues import Dialogues
from xlingjax.corpora.world.grammars import CLAUSES, text_of
from xlingjax.corpora.world.lexicon import TOPICS, Forms, animates, concepts, forms
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.sampling import POOL, as_meanings, draw
from xlingjax.corpora.world.word import Word
from xlingjax.corpora.world.world import MOST, generator_of, shared_concepts
from xlingjax.errors import InputError

ASKED = ("who", "what", "where")
# The languages whose questions are written here, and how they ask.
WORDS = {"eng": ("who", "what", "where"), "deu": ("wer", "was", "wo"), "spa": ("quién", "qué", "dónde"),
         "swh": ("nani", "nini", "wapi")}
ABOUT = tuple(topic for topic in TOPICS if topic != "animals")  # there nothing is done to things
QUESTIONS = 3  # of an episode's six
TURNS = 2 + 2 * QUESTIONS
MARGIN = 10  # sentences drawn for one that can be asked about: it has a place, and a thing as object
MOST_TRAIN, MOST_HELD_OUT = 2000, 120  # episodes that the world can tell


class _Parts(NamedTuple):
    """A clause in parts; `verb` with what belongs to it, `base` the English verb after "does"."""

    subject: str
    verb: str
    object: str
    place: str
    base: str


def mini_dialogues(
    languages: Sequence[str] = tuple(WORDS), dose: float = 0.15, seed: int = 0, train: int = 400, held_out: int = 60,
) -> Dialogues:
    """Episodes of eight turns: two sentences of the embedded world, then three questions and their answers.

    Nothing told in validation or test is told in training: no (subject, verb, object) of theirs occurs there, nor one
    of validation in test. Training episodes are drawn for each language by itself, so no two languages train on
    translations of each other; validation and test are the same dialogues in every language, row by row.

    Args:
        languages: of eng, deu, spa, swh.
        dose, seed: as for `mini_world`.
        train: episodes of each language; held_out: of validation, and of test.

    Raises:
        InputError: a language that asks no questions here, or more episodes than the world can tell.

    >>> one = mini_dialogues(("eng", "swh"), train=2, held_out=1).only("eng", "test")
    >>> for turn in one.texts: print(turn)
    nowadays the farmers see the good bread in the village
    the student finds the red bottles in the shop
    where does the student find the red bottles
    in the shop
    where do the farmers see the good bread
    in the village
    what do the farmers see
    the good bread
    """
    unknown = [language for language in languages if language not in WORDS]
    if unknown or not languages or len(set(languages)) != len(languages):
        raise InputError(
            f"mini_dialogues: languages {list(languages)} must be one or more of {', '.join(WORDS)}, each once")
    if not 0 <= dose <= MOST:
        raise InputError(f"mini_dialogues: dose {dose} is outside 0 to {MOST}")
    for what, wanted, most in (("train", train, MOST_TRAIN), ("held_out", held_out, MOST_HELD_OUT)):
        if not 1 <= wanted <= most:
            raise InputError(f"mini_dialogues: {what} is {wanted}; ask for 1 to {most} episodes")
    shared = shared_concepts(dose, seed)
    tested = _facts(None, 2 * held_out, seed)
    order = {"train": train, "valid": held_out, "test": held_out}
    texts, columns = [], []
    for language in languages:
        told = {"train": _facts(language, train, seed), "valid": tested[:held_out], "test": tested[held_out:]}
        words = forms(language, shared)
        for split, count in order.items():
            generator = generator_of(seed, f"questions {language if split == 'train' else split}")
            for episode in range(count):
                for place, turn in enumerate(_episode(language, words, told[split][episode], generator)):
                    row = TURNS * episode + place
                    texts.append(turn)
                    columns.append((language, split, str(episode), row, "" if split == "train" else f"{split}/{row}"))
    named, splits, episodes, rows, parallel = (np.array(column) for column in zip(*columns, strict=True))
    return Dialogues(tuple(texts), named, splits, episodes, rows.astype(int), parallel, np.zeros(len(texts), bool),
                     np.ones(len(texts), bool), "mini_dialogues")


def _facts(language: str | None, episodes: int, seed: int) -> list[tuple[Meaning, Meaning]]:
    """Two sentences on one topic for every episode, that differ in subject, place, and verb or object."""
    generator = generator_of(seed, f"dialogues {language or 'held out'}")
    each = -(-episodes // len(ABOUT))
    table, by_topic = list(concepts().values()), []
    known: set[tuple[str, str, str]] = set()
    for topic in ABOUT:
        wanted = 2 * each * MARGIN
        found = draw(topic, wanted if language else min(POOL, wanted), generator, language)
        places = [concept.name for concept in table if concept.part == "place" and topic in concept.topics]
        fits: list[Meaning] = []
        for meaning, uniform in zip(as_meanings(found), generator.random(len(found))):
            triple = (meaning.subject, meaning.verb, meaning.object)
            if not meaning.object or meaning.object in animates() or (language is None and triple in known):
                continue
            if not meaning.place and language is None:  # what nobody trains on may be said anywhere
                meaning = meaning._replace(place=places[int(uniform * len(places))])
            if meaning.place:
                known.add(triple)
                fits.append(meaning)
        by_topic.append(_pairs(fits, each, topic))
    return [by_topic[i % len(ABOUT)][i // len(ABOUT)] for i in range(episodes)]


def _pairs(fits: list[Meaning], count: int, topic: str) -> list[tuple[Meaning, Meaning]]:
    left = list(fits)
    out: list[tuple[Meaning, Meaning]] = []
    while left and len(out) < count:
        first = left.pop(0)
        for i, other in enumerate(left):
            if (other.subject != first.subject and other.place != first.place
                    and (other.verb, other.object) != (first.verb, first.object)):
                out.append((first, left.pop(i)))
                break
    if len(out) < count:
        raise InputError(
            f"mini_dialogues: the world has {len(out)} of {count} episodes to tell on {topic!r}; ask for fewer")
    return out


def _episode(
    language: str, words: Forms, told: tuple[Meaning, Meaning], generator: np.random.Generator,
) -> Iterator[str]:
    for meaning in told:
        yield text_of(CLAUSES[language](words, meaning))
    for number in np.argsort(generator.random(6), kind="stable")[:QUESTIONS].tolist():
        yield from _exchange(language, words, told[number // 3], ASKED[number % 3])


def _exchange(language: str, words: Forms, meaning: Meaning, asked: str) -> tuple[str, str]:
    """A question and its answer."""
    word = WORDS[language][ASKED.index(asked)]
    said = _parts(language, words, meaning)
    if asked == "who":  # whoever it was, the question has a third person singular
        anyone = _parts(language, words, meaning._replace(
            subject="man", subject_plural=False, subject_adjective="", numeral=""))
        return f"{word} {anyone.verb} {said.object}", said.subject
    rest, answer = ("", said.object) if asked == "what" else (f" {said.object}", said.place)
    if language == "swh":
        return f"{said.subject} {said.verb}{rest} {word}", answer
    if language == "eng":
        does = "did" if meaning.past else "do" if meaning.subject_plural else "does"
        return f"{word} {does} {said.subject} {said.base}{rest}", answer
    return f"{word} {said.verb} {said.subject}{rest}", answer


def _parts(language: str, words: Forms, meaning: Meaning) -> _Parts:
    timeless = meaning._replace(time="")
    clause: list[Word] = CLAUSES[language](words, timeless._replace(place=""))
    root = next(i for i, word in enumerate(clause) if word.relation == "root")
    before = [word for word in clause[:root] if word.relation != "expl"]
    clitics = [word for word in clause[:root] if word.relation == "expl"]
    after = [word for word in clause[root + 1:] if not word.relation.startswith("compound")]
    compounds = [word for word in clause[root + 1:] if word.relation.startswith("compound")]
    base = [words[meaning.verb]["pl present"].split()[0]] if language == "eng" else []
    place = CLAUSES[language](words, timeless)[len(clause):]
    return _Parts(text_of(before), text_of([*clitics, clause[root], *compounds]), text_of(after), text_of(place),
                  " ".join([*base, *(word.form for word in compounds)]))
