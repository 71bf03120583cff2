"""Minimal pairs of the embedded corpus: a meaning told right, and with one agreeing word in a wrong form."""

import collections
import functools
from collections.abc import Iterator, Sequence

from xlingjax.corpora.minimal_pairs import (
    ADJECTIVE,
    DETERMINER,
    MINIMUM,
    TIME,
    VERB,
    MinimalPairs,
    Pair,
    collected,
    require_enough,
)
from xlingjax.corpora.world.grammars import text_of
from xlingjax.corpora.world.lexicon import humans
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.word import SUBJECT, Word, otherwise, shown
from xlingjax.corpora.world.world import tell
from xlingjax.errors import InputError

FEATURES = ("Number", "Gender", "NounClass", "Tense")
KINDS = {"root": VERB, "aux": VERB, "amod": ADJECTIVE, "det": DETERMINER}
# With what these say the other tense is wrong; "every day" and "sometimes" go with either, whatever the world says.
DATED = ("now", "nowadays", "yesterday", "last week", "last year", "long ago")
TWO_WORDS = ("hin",)  # the tenses differ in more than one word
FREE_ORDER = ("deu", "rus")  # the object may stand first: "die Frau sehen die Hunde" is right


def mini_world_pairs(
    split: str = "probe", dose: float = 0.15, seed: int = 0, languages: Sequence[str] | None = None,
    sentences: int | None = None, features: Sequence[str] | None = None, minimum: int = MINIMUM,
) -> MinimalPairs:
    """Minimal pairs of the sentences of `mini_world`.

    Verbs agree in Number and Gender (Hindi's also with objects), adjectives and determiners in Number, Gender and
    NounClass, and a verb has the Tense of a time that allows one only ("yesterday"; not in Hindi, whose tenses differ
    in two words). Left out are pairs of which both sentences are possible: nothing else shows the value ("the sheep
    sees"), a numeral is in the phrase, no case says which of two nouns is the subject ("die Frau sehen die Hunde"), a
    masculine noun for a person may be feminine ("врач спала"). What is wrong is so by the grammar of the world: persons
    in the plural take a plural verb in Turkish, and "now" goes with the present.

    Args:
        split, dose, seed, languages, sentences: as of `mini_world`.
        features: some of Number, Gender, NounClass, Tense; default all of which there are enough pairs.
        minimum: pairs that a language needs in a feature, or the feature is left out in it.

    Returns:
        Pairs whose `counts` are those of the training text at the same dose and seed.

    Raises:
        InputError: as `mini_world`, an unknown feature, or no language has enough pairs in a feature.

    >>> pairs = mini_world_pairs(languages=("eng",), features=("Number", "Tense"))
    >>> pairs.right[0], pairs.wrong[0], str(pairs.features[0]), str(pairs.values[0])
    ('every day the big poet buys the letters', 'every day the big poet buy the letters', 'Number', 'Sing')
    """
    for feature in features or ():
        if feature not in FEATURES:
            raise InputError(f"mini_world has no minimal pairs in {feature!r}; it has {', '.join(FEATURES)}")
    pairs: list[Pair] = []
    for part in tell(split, dose, seed, languages, sentences, "matched"):
        count = _training_counts(part.language, dose, seed)
        for words, meaning, document in zip(part.sentences(), part.meanings, part.documents, strict=True):
            text, starts = text_of(words), _starts(words)
            for index, feature, value, wrong, kind in _wrong_words(words, meaning, part.language):
                if features is None or feature in features:
                    word = words[index].form
                    span = (starts[index], starts[index] + len(word))
                    pairs.append(Pair(text, span, wrong, part.language, document, feature, value, kind,
                                      (count[word], count[wrong])))
    return collected(require_enough(pairs, features, minimum, "mini_world"), "training text")


@functools.cache
def _training_counts(language: str, dose: float, seed: int) -> collections.Counter[str]:
    """How often the training text has each form."""
    (part,) = tell("train", dose, seed, (language,), None, "matched")
    return collections.Counter(word.form for words in part.sentences() for word in words)


def _starts(words: list[Word]) -> list[int]:
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word.form) + 1)
    return starts


def _wrong_words(words: list[Word], meaning: Meaning, language: str) -> Iterator[tuple[int, str, str, str, str]]:
    """(index, feature, right value, wrong form, kind) of every word that can be wrong in one value."""
    values = [shown(word) for word in words]
    for index, word in enumerate(words):
        if word.relation not in KINDS:
            continue
        if word.relation == "root" and meaning.time in DATED and language not in TWO_WORDS:
            yield from _choices(word, index, "Tense", values[index], TIME, "")
        subject = word.phrase == SUBJECT
        if not word.phrase or (subject and meaning.numeral):
            continue
        noun = meaning.subject if subject else meaning.object
        cased = not meaning.object or any("Case" in found for other, found in zip(words, values) if other.phrase)
        others = {at: found for at, found in enumerate(values) if at != index and words[at].phrase == word.phrase
                  and words[at].relation in ("nsubj", "obj", *KINDS)}
        own = next(found for other, found in zip(words, values)
                   if other.phrase == word.phrase and other.relation in ("nsubj", "obj"))
        for feature in ("Number", "Gender", "NounClass"):
            if feature == "Number" and subject and not cased and language in FREE_ORDER:
                continue
            if _is_certain(word, noun, feature, values[index], list(others.values()), language):
                yield from _choices(word, index, feature, values[index], KINDS[word.relation], own.get(feature, ""))


def _is_certain(
    word: Word, noun: str, feature: str, own: dict[str, str], others: list[dict[str, str]], language: str,
) -> bool:
    """Whether the sentence cannot be right with another value of a word."""
    if feature not in own:
        return False
    if feature == "Gender" and noun in humans():
        if language == "rus" and own["Gender"] == "Masc" and word.relation == "root":
            return False
        if own["Gender"] == "Masc" or language == "spa":  # what the noun says is not enough: "la artista"
            return sum(found.get(feature) == own[feature] for found in others) > 1
    if feature == "NounClass":  # of persons and animals the noun's own class is another
        return True
    return any(found.get(feature) == own[feature] for found in others)


def _choices(
    word: Word, index: int, feature: str, values: dict[str, str], kind: str, allowed: str,
) -> Iterator[tuple[int, str, str, str, str]]:
    """A wrong form, if the word shows the value and another would be written otherwise.

    Which of several is decided by the word's length, so that none of two genders is always the wrong one.
    """
    if feature not in values:
        return
    forms = [form for value, form in otherwise(word, feature).items() if value != allowed]
    if forms:
        yield index, feature, values[feature], forms[len(word.form) % len(forms)], kind
