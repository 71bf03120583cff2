"""Turkish: subject, object, verb; no gender; a definite object takes the accusative.

Persons in the plural take a plural verb; animals, and everything after a numeral, a singular one.
After a numeral the noun is singular.
"""

from xlingjax.corpora.world.lexicon import Forms, humans, names
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.word import (
    NUMBER,
    OBJECT,
    RELATIONS,
    SUBJECT,
    TENSE,
    Paradigm,
    Values,
    Word,
    fixed,
    inflected,
    name,
    numeral,
)


def _plural_suffix(word: str) -> str:
    last = next(letter for letter in reversed(word) if letter in "aıoueiöü")
    return "lar" if last in "aıou" else "ler"


def _verb_form(entry: Values, values: Values) -> str:
    form = entry["past" if values["Tense"] == "Past" else "present"].split()[-1]
    return form + _plural_suffix(form) if values["Number"] == "Plur" else form


def _noun_form(entry: Values, values: Values) -> str:
    if values["Number"] == "Sing":
        return entry["acc sg" if values["Case"] == "Acc" else "nom sg"]
    plural = entry["pl"]
    # A common form stays as it is.
    return plural + ({"lar": "ı", "ler": "i"}.get(plural[-3:], "") if values["Case"] == "Acc" else "")


CASE = ("Nom", "Acc")
NOUN = Paradigm("NOUN", _noun_form, {"Case": CASE, "Number": NUMBER})
VERB = Paradigm("VERB", _verb_form, {"Number": NUMBER, "Tense": TENSE})


def clause(forms: Forms, m: Meaning) -> list[Word]:
    """time, subject, place, object, verb"""
    several = m.subject_plural and not m.numeral
    agrees = not several or m.subject in humans()
    values = {"Number": NUMBER[several and agrees], "Tense": TENSE[m.past]}
    words = [*fixed(forms, m.time), *_noun_phrase(
        forms, m.subject, m.subject_adjective, "Nom", several, SUBJECT, m.numeral), *fixed(forms, m.place)]
    if m.object:
        words += _noun_phrase(forms, m.object, m.object_adjective, "Acc", m.object_plural, OBJECT)
    words += [Word(form, "NOUN", "compound") for form in forms[m.verb]["past"].split()[:-1]]
    return [*words, inflected(
        VERB, forms[m.verb], values, "root", SUBJECT if agrees else "", {"Person": "3"})]


def _noun_phrase(
        forms: Forms, noun: str, adjective: str, case: str, plural: bool, phrase: str,
        number: str = "") -> list[Word]:
    if noun in names():
        return [name(forms, noun, phrase)]
    words = [numeral(forms, number, phrase)] if number else []
    if adjective:
        words.append(Word(forms[adjective]["form"], "ADJ", "amod", phrase))
    return [*words, inflected(
        NOUN, forms[noun], {"Case": case, "Number": NUMBER[plural]}, RELATIONS[phrase], phrase)]
