"""A word of a sentence: how it is written, what it is, and which grammatical values it shows.

Values are named as Universal Dependencies names them. A value counts as shown where the word alone shows it: any other
value, all else equal, would be written otherwise. So an English noun has no Gender, "sheep" no Number, and German
"die Frauen" no Gender on its article. What belongs to a word and does not inflect it (the Gender of a noun) is always
shown. The form that a word would have with another value is what makes a sentence ungrammatical on purpose.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from xlingjax.corpora.world.lexicon import Forms

Values = Mapping[str, str]

SUBJECT, OBJECT = "subject", "object"
RELATIONS = {SUBJECT: "nsubj", OBJECT: "obj"}
NUMBER, TENSE = ("Sing", "Plur"), ("Pres", "Past")
SHORT = {"Sing": "sg", "Plur": "pl", "Masc": "m", "Fem": "f", "Neut": "n"}
GENDERS = {"m": "Masc", "f": "Fem", "n": "Neut"}
NONE: Values = {}
SINGULAR: Values = {"Number": "Sing"}


class Paradigm(NamedTuple):
    """How a class of words inflects.

    Attributes:
        upos: part of speech.
        form: (entry of the lexicon, values) -> the written form, "" where there is none.
        axes: feature -> the values that the class distinguishes.
        named: values as the class counts them -> as they are called.
    """

    upos: str
    form: Callable[[Values, Values], str]
    axes: Mapping[str, tuple[str, ...]]
    named: Callable[[Values], Values] = lambda values: values


class Word(NamedTuple):
    """One word.

    Attributes:
        form: as written.
        upos: part of speech.
        relation: to its head, "root" for the verb; "" within a fixed phrase of place or time.
        phrase: the noun phrase that it belongs to or agrees with, "subject" or "object"; "" for neither.
        own: values that do not inflect it.
        paradigm, entry, values: how it inflects, its entry in the lexicon, and the values that it has here.
    """

    form: str
    upos: str
    relation: str = ""
    phrase: str = ""
    own: Values = NONE
    paradigm: Paradigm | None = None
    entry: Values = NONE
    values: Values = NONE


def inflected(
    paradigm: Paradigm, entry: Values, values: Values, relation: str, phrase: str, own: Values = NONE,
) -> Word:
    """The word that an entry becomes with these values."""
    return Word(paradigm.form(entry, values), paradigm.upos, relation, phrase, own, paradigm, entry, values)


def name(forms: Forms, concept: str, phrase: str, own: Values = SINGULAR) -> Word:
    """A person's name, of which the lexicon knows one form."""
    return Word(forms[concept]["form"], "PROPN", RELATIONS[phrase], phrase, own)


def numeral(forms: Forms, concept: str, phrase: str) -> Word:
    """A numeral that does not inflect."""
    return Word(forms[concept]["form"], "NUM", "nummod", phrase)


def fixed(forms: Forms, concept: str) -> list[Word]:
    """The words of a phrase of place or time, none for no concept."""
    if not concept:
        return []
    entry = forms[concept]
    return [Word(form, upos, own=own) for form, (upos, own) in zip(
        entry["form"].split(), _marks(entry["words"]), strict=True)]


@functools.cache
def _marks(cell: str) -> list[tuple[str, Values]]:
    """"ADP NOUN|Number=Sing" -> part of speech and values of each word."""
    words = [word.split("|") for word in cell.split()]
    return [(upos, dict(value.split("=") for value in values)) for upos, *values in words]


def otherwise(word: Word, feature: str) -> dict[str, str]:
    """Every other value of a feature that the word could have here -> its form then, which may be the same.

    >>> noun = Paradigm("NOUN", lambda entry, values: entry[SHORT[values["Number"]]], {"Number": NUMBER})
    >>> otherwise(inflected(noun, {"sg": "mouse", "pl": "mice"}, {"Number": "Sing"}, "nsubj", SUBJECT), "Number")
    {'Plur': 'mice'}
    """
    if word.paradigm is None or feature not in word.paradigm.axes:
        return {}
    called = word.paradigm.named(word.values).get(feature)
    found = {}
    for value in word.paradigm.axes[feature]:
        changed = {**word.values, feature: value}
        label, form = word.paradigm.named(changed)[feature], word.paradigm.form(word.entry, changed)
        if label != called and form:
            found[label] = form
    return found


def shown(word: Word) -> dict[str, str]:
    """Feature -> value, of all that the word shows."""
    out = dict(word.own)
    if word.paradigm is not None:
        called = word.paradigm.named(word.values)
        out |= {feature: called[feature] for feature in word.paradigm.axes
                if feature in called and word.form not in otherwise(word, feature).values()}
    return out


def head(words: list[Word], index: int) -> int | None:
    """Index of a word's head; None for the root and within fixed phrases.

    What is about a noun depends on the noun of its phrase, the rest on the verb.
    """
    word = words[index]
    if word.relation in ("", "root"):
        return None
    inside = word.relation in ("det", "amod", "nummod", "case")
    wanted = RELATIONS[word.phrase] if inside else "root"
    return next(i for i, other in enumerate(words) if other.relation == wanted)
