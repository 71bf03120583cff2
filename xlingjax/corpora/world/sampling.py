"""What is said: meanings drawn at random, topic by topic, the same for every Python and NumPy.

A meaning is a row of integers, its columns the fields of `Meaning`, its entries positions in the
table of concepts (-1 = none). Only `Generator.random` of PCG64 and integer weights are used.

Two rules keep the splits apart, for every seed:
 - a (subject, verb, object) whose hash is divisible by 5 occurs in probes only, any other in
   training only;
 - a meaning, adjectives aside, belongs by its hash to the training text of one language alone, so
   no two languages ever train on translations of each other.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from xlingjax.corpora.world.lexicon import LANGUAGES, TOPICS, Concept, concepts
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.errors import InputError

# The concepts to follow through training: the first line's have own forms at every dose, the
# second line's may be shared. Every probe says each of them about `ENOUGH` times.
TRACED = (
    "man", "woman", "boy", "girl", "mother", "child", "friend", "dog", "horse", "book", "letter",
    "song", "key", "ship", "apple",
    "doctor", "student", "artist", "elephant", "lamp", "computer", "newspaper", "car", "guitar",
    "photo", "coffee",
    "see", "find", "look for", "buy", "sell", "bring",
    "big", "small", "good", "bad", "old", "new", "white", "black",
    "today", "morning", "evening", "night", "yesterday")
ENOUGH = 15  # of 288 sentences; at least 12 are reached
POOL, LOOK = 300, 24  # a topic's candidates for a probe, and how many each choice looks at

COLUMNS = Meaning._fields
TRIPLE = [COLUMNS.index(name) for name in ("subject", "verb", "object")]
ADJECTIVES = [COLUMNS.index(name) for name in ("subject_adjective", "object_adjective")]
CORE = [i for i in range(len(COLUMNS)) if i not in ADJECTIVES]
FLAGS = ("subject_plural", "object_plural", "past")
WORD_COLUMNS = [i for i, name in enumerate(COLUMNS) if name not in FLAGS]

HELD_OUT = 5  # one in five triples is for probes
THING, PERSON = 4, 1  # a thing is so much likelier an object than a person of equal weight
NUMERAL, PLURAL, PAST, TIME, PLACE = 0.12, 0.4, 0.5, 0.6, 0.5
SUBJECT_ADJECTIVE, OBJECT_ADJECTIVE = 0.5, 0.6


class Choice(NamedTuple):
    """Items to draw from, with the running sum of their integer weights."""

    items: np.ndarray
    cumulative: np.ndarray

    def __call__(self, uniform: np.ndarray) -> np.ndarray:
        return self.items[np.searchsorted(self.cumulative, uniform * self.cumulative[-1], "right")]


def _choice(items: list, weights: list[int]) -> Choice:
    return Choice(np.array(items, np.int64), np.cumsum(np.array(weights, np.int64)))


def scramble(columns: np.ndarray) -> np.ndarray:
    """uint64[n] hashes of the rows of int[n, c], by the finaliser of SplitMix64."""
    state = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        state = state + np.uint64(0x9E3779B97F4A7C15) + column.astype(np.int64).view(np.uint64)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def owner(meanings: np.ndarray) -> np.ndarray:
    """int[n]: the position in LANGUAGES of the one language that may train on the row."""
    return (scramble(meanings[:, CORE]) % np.uint64(len(LANGUAGES))).astype(np.int64)


@functools.cache
def _table() -> tuple[Concept, ...]:
    return tuple(concepts().values())


def _indices(part: str, topic: str | None = None) -> list[int]:
    return [i for i, c in enumerate(_table())
            if c.part == part and (topic is None or topic in c.topics)]


def _suits(wanted: frozenset[str], noun: Concept) -> bool:
    return bool(wanted & noun.tags) or noun.name in wanted


@functools.cache
def frames(topic: str, for_probe: bool) -> Choice:
    """The (subject, verb, object) of a topic that one split may use; items int[n, 3]."""
    table, rows, weights = _table(), [], []
    nouns = _indices("noun", topic)
    for v in _indices("verb", topic):
        verb = table[v]
        objects = [o for o in nouns if _suits(verb.fits, table[o])] if verb.fits else [-1]
        shares = [1 if o < 0 else table[o].weight * (PERSON if "person" in table[o].tags else THING)
                  for o in objects]
        for s in nouns + _indices("name"):
            if not _suits(verb.tags, table[s]) or not objects:
                continue
            for o, share in zip(objects, shares, strict=True):
                if o != s:
                    rows.append((s, v, o))
                    chance = table[s].weight * verb.weight * share / sum(shares)
                    weights.append(round(1e6 * chance))
    triples = np.array(rows, np.int64)
    held_out = scramble(triples) % np.uint64(HELD_OUT) == 0
    kept = held_out if for_probe else ~held_out
    return Choice(triples[kept], np.cumsum(np.array(weights, np.int64)[kept]))


@functools.cache
def _adjectives() -> tuple[np.ndarray, np.ndarray]:
    """The adjectives int[a], and by concept the running weights int[c, a] of those that fit."""
    table, items = _table(), _indices("adjective")
    weights = [[table[a].weight if c.part == "noun" and _suits(table[a].fits, c) else 0
                for a in items] for c in table]
    return np.array(items), np.cumsum(np.array(weights, np.int64), axis=1)


def _adjective(nouns: np.ndarray, wanted: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    items, cumulative = _adjectives()
    running = cumulative[nouns]
    total = running[:, -1]
    position = (uniform[:, None] * total[:, None] >= running).sum(axis=1)
    return np.where(wanted & (total > 0), items[np.minimum(position, len(items) - 1)], -1)


@functools.cache
def _numerals() -> Choice:
    return _choice(_indices("numeral"), [_table()[i].weight for i in _indices("numeral")])


@functools.cache
def _times(tense: str) -> Choice:
    items = [i for i in _indices("time") if tense in _table()[i].tags]
    return _choice(items, [_table()[i].weight for i in items])


@functools.cache
def _places(topic: str) -> Choice:
    items = _indices("place", topic)
    return _choice(items, [_table()[i].weight for i in items])


def _propose(
        topic: str, language: str | None, count: int, generator: np.random.Generator) -> np.ndarray:
    """int[n, 11] meanings of a topic, repeats and all: of `count` those the language may say."""
    u = generator.random((10, count))
    table = _table()
    named = np.array([c.part == "name" for c in table])
    countable = np.array(["count" in c.tags for c in table])
    rows = np.full((count, len(COLUMNS)), -1, np.int64)
    fields = {name: rows[:, i] for i, name in enumerate(COLUMNS)}  # views: writing fills rows
    rows[:, TRIPLE] = frames(topic, language is None)(u[0])
    thing, common = fields["object"], ~named[fields["subject"]]
    fields["numeral"][:] = np.where(common & (u[1] < NUMERAL), _numerals()(u[2]), -1)
    fields["subject_plural"][:] = (fields["numeral"] >= 0) | (common & (u[3] < PLURAL))
    fields["object_plural"][:] = (thing >= 0) & countable[thing] & (u[4] < PLURAL)
    fields["past"][:] = u[5] < PAST
    time = np.where(fields["past"] == 1, _times("past")(u[6]), _times("present")(u[6]))
    fields["time"][:] = np.where(u[7] < TIME, time, -1)
    fields["place"][:] = np.where(u[8] < PLACE, _places(topic)(u[9]), -1)
    if language is not None:
        rows = rows[owner(rows) == list(LANGUAGES).index(language)]
    u = generator.random((4, len(rows)))
    plain = rows[:, COLUMNS.index("numeral")] < 0
    for role, wanted, which in (("subject", plain & (u[0] < SUBJECT_ADJECTIVE), u[1]),
                                ("object", u[2] < OBJECT_ADJECTIVE, u[3])):
        nouns = rows[:, COLUMNS.index(role)]
        column = COLUMNS.index(f"{role}_adjective")
        rows[:, column] = _adjective(nouns, wanted & (nouns >= 0), which)
    return rows


def draw(
        topic: str, count: int, generator: np.random.Generator, language: str | None) -> np.ndarray:
    """int[count, 11] meanings of one topic, none twice (another topic may say the same).

    Args:
        language: the language to train; None = a probe, in which no triple stands twice either.
    """
    kept = np.zeros((0, len(COLUMNS)), np.int64)
    for _ in range(60):
        if len(kept) >= count:
            return kept[:count]
        tries = (count - len(kept)) * (2 if language is None else len(LANGUAGES) + 1) + 64
        kept = np.concatenate([kept, _propose(topic, language, tries, generator)])
        keys = scramble(kept[:, TRIPLE] if language is None else kept)
        kept = kept[np.sort(np.unique(keys, return_index=True)[1])]
    raise InputError(
        f"mini_world has no {count} distinct sentences on {topic!r} to say; ask for fewer")


def traced_quota(topic: str, count: int) -> np.ndarray:
    """int[c + 1], in how many of `count` probe sentences on a topic each concept should occur.

    A concept's quota is spread evenly over its topics; 0 if not traced or not of this topic.
    """
    share = ENOUGH * count * len(TOPICS) / 288
    return np.array([math.ceil(share / len(c.topics) * (c.name in TRACED and topic in c.topics))
                     for c in _table()] + [0])


def draw_balanced(topic: str, count: int, generator: np.random.Generator) -> np.ndarray:
    """int[count, 11] meanings of one topic for a probe, chosen so that traced concepts occur often.

    Each is the best of `LOOK` candidates: the one whose concepts lack most of their quota.
    """
    wanted = traced_quota(topic, count)
    pool = draw(topic, max(count, min(6 * count, POOL)), generator, None)
    words = pool[:, WORD_COLUMNS]
    left, chosen = np.arange(len(pool)), []
    for start in (generator.random(count) * len(pool)).astype(int):
        candidates = np.take(left, np.arange(start, start + LOOK), mode="wrap")
        best = candidates[np.argmax(np.maximum(wanted[words[candidates]], 0).sum(axis=1))]
        wanted[words[best]] -= words[best] >= 0
        left = left[left != best]
        chosen.append(best)
    return pool[chosen][np.argsort(generator.random(count), kind="stable")]


def as_meanings(rows: np.ndarray) -> list[Meaning]:
    """Rows of integers as meanings in words."""
    words = [c.name for c in _table()] + [""]
    columns: list[list] = [
        [bool(x) for x in column] if name in FLAGS else [words[x] for x in column]
        for name, column in zip(COLUMNS, rows.T.tolist(), strict=True)]
    return [Meaning(*row) for row in zip(*columns, strict=True)]


def document_topics(
        documents: int, generator: np.random.Generator, language: str | None = None) -> np.ndarray:
    """int[documents], the topic of each, in random order.

    Without a language every topic has its equal share. With one, each language has shares
    8, 4, 2, 1, 1, 1 (of 17) of its own order of topics.
    """
    shares = np.ones(len(TOPICS), np.int64)
    if language is not None:
        turn = list(LANGUAGES).index(language)
        order = np.arange(len(TOPICS)) if turn < len(TOPICS) else np.arange(len(TOPICS))[::-1]
        shares[np.roll(order, turn)] = (8, 4, 2, 1, 1, 1)
    ends = (np.cumsum(shares) * documents + shares.sum() // 2) // shares.sum()
    topics = np.searchsorted(ends, np.arange(documents), "right")
    return topics[np.argsort(generator.random(documents), kind="stable")]
