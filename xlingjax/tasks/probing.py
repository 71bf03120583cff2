"""Small tasks that ask what hidden states know: agreement of a word, and whether it is used in one sense twice."""

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xlingjax.corpora.files import choose, table
from xlingjax.corpora.minimal_pairs import VERB, MinimalPairs
from xlingjax.errors import InputError
from xlingjax.tasks.classification import Classification
from xlingjax.tasks.task import Example

AGREEMENT = Classification("agreement", ("right", "wrong"), reads="word", linear=True)
WORDS_IN_CONTEXT = Classification("words in context", ("same", "other"), reads="words", linear=True)


def agreement_examples(
    pairs: MinimalPairs, feature: str = "Number", kinds: Sequence[str] = (VERB,), seed: int = 0,
) -> tuple[Example, ...]:
    """Is the word right where it stands? Both sentences of minimal pairs, for `AGREEMENT`.

    Of each two forms of a word, pairs are kept such that either form is the right one equally often: who knows the
    word alone, and not what it agrees with, is right half the time.

    Args:
        pairs: `read_pairs(...)` of treebanks or `mini_world_pairs(...)`.
        feature: in which the word agrees.
        kinds: what agrees; by default verbs with their subjects.
        seed: which pairs are kept.

    Raises:
        InputError: no two forms are each right somewhere.
    """
    cells: dict[tuple[str, ...], dict[bool, list[int]]] = {}
    for i in np.random.default_rng([seed, 53]).permutation(len(pairs)).tolist():
        if pairs.features[i] == feature and pairs.kinds[i] in kinds:
            right, wrong = (text[span[0]:span[1]].lower() for text, span in (
                (pairs.right[i], pairs.span_right[i]), (pairs.wrong[i], pairs.span_wrong[i])))
            cell = cells.setdefault((str(pairs.languages[i]), *sorted((right, wrong))), {True: [], False: []})
            cell[right < wrong].append(i)
    fewest = lambda cell: min(map(len, cell.values()))
    kept = sorted(i for cell in cells.values() for side in cell.values() for i in side[:fewest(cell)])
    if not kept:
        raise InputError(
            f"{pairs.name}: no two forms that differ in {feature!r} are each right in some pair of {', '.join(kinds)}; "
            "give more text, or another feature or kind")
    return tuple(
        Example(f"{i}/{label}", (text,), str(pairs.languages[i]), str(pairs.documents[i]), label=label,
                spans=((int(span[0]), int(span[1])),))
        for i in kept for label, text, span in (
            ("right", pairs.right[i], pairs.span_right[i]), ("wrong", pairs.wrong[i], pairs.span_wrong[i])))


class Use(NamedTuple):
    """One word in a sentence of a table of senses."""

    language: str
    word: str  # lemma and part of speech
    sense: str
    document: str
    text: str
    span: tuple[int, int]


def words_in_context(
    path: str | Path, languages: Sequence[str] | None = None, seed: int = 0,
) -> tuple[Example, ...]:
    """Is a word used in one sense in two sentences? For `WORDS_IN_CONTEXT`, from a table as `read_senses` reads it.

    Each word (a lemma with its part of speech) has as many pairs of one sense as of two, so that who knows only the
    word is right half the time. A document of the table, with its translations, is used once, by the language with the
    least text and its rarest word first; the document of the examples is the word. So a split tears no word apart, and
    no text or translation of it is on both sides.

    Args:
        path: columns lang, doc, sent, text, tokens, lemmas, senses; the last three with one entry a token, "O" = none.
        languages: default all of the table.
        seed: which uses make pairs.

    Raises:
        InputError: a column or language is missing, or no word has two senses in enough sentences.
    """
    rows = list(table(path, ("lang", "doc", "sent", "text", "tokens", "lemmas", "senses")))
    chosen = choose(languages, (row["lang"] for row in rows), "language", path)
    rng = np.random.default_rng([seed, 59])
    pairs: dict[str, list[tuple[str, Use, Use]]] = {}
    taken: set[str] = set()
    for language in sorted(chosen, key=lambda code: (sum(row["lang"] == code for row in rows), code)):
        words: dict[str, list[Use]] = {}
        for row in rows:
            for use in _uses(row) if row["lang"] == language else ():
                words.setdefault(use.word, []).append(use)
        several = [uses for uses in words.values() if len({use.sense for use in uses}) > 1]
        for uses in sorted(several, key=lambda uses: (len(uses), uses[0].word)):
            free: dict[str, Use] = {}
            for i in rng.permutation(len(uses)).tolist():
                if uses[i].document not in taken:
                    free.setdefault(uses[i].document, uses[i])
            found = _balanced(list(free.values()))
            taken |= {use.document for _, *both in found for use in both}
            pairs.setdefault(language, []).extend(found)
    if not any(pairs.values()):
        raise InputError(f"{path}: no word of {', '.join(chosen)} has two senses in enough sentences; give more text")
    return tuple(
        Example(f"{one.word}/{i}", (one.text, other.text), language, f"{language} {one.word}", label=label,
                spans=(one.span, other.span))
        for language in chosen for i, (label, one, other) in enumerate(pairs.get(language, ())))


def _uses(row: dict[str, str]) -> Iterator[Use]:
    """The words of a row that have a sense and stand in its text as they are, in order."""
    tokens, lemmas, senses = (row[name].split() for name in ("tokens", "lemmas", "senses"))
    at = 0
    for token, lemma, sense in zip(tokens, lemmas, senses):
        place = row["text"].find(token, at)
        if place < 0:
            continue
        at = place + len(token)
        if sense != "O" and sense.count(".") >= 2:
            word = f"{lemma.lower()}.{sense.rsplit('.', 2)[1]}"
            yield Use(row["lang"], word, sense, row["doc"], row["text"], (place, at))


def _balanced(uses: Sequence[Use]) -> list[tuple[str, Use, Use]]:
    """Pairs of one word, as many of one sense as of two, no use twice."""
    left: dict[str, list[Use]] = collections.defaultdict(list)
    for use in uses:
        left[use.sense].append(use)
    most = lambda: sorted((sense for sense in left if left[sense]), key=lambda sense: (-len(left[sense]), sense))
    pairs: list[tuple[str, Use, Use]] = []
    while (senses := most()) and len(left[senses[0]]) >= 2:
        same = ("same", left[senses[0]].pop(), left[senses[0]].pop())
        two = most()[:2]
        if len(two) < 2:
            break
        pairs += [same, ("other", left[two[0]].pop(), left[two[1]].pop())]
    return pairs
