"""Finnish: subject, verb, object; no gender; adjectives agree in number and case.

A total object is in the genitive singular or nominative plural, the object of a verb without an
end (love, look for, carry, ...) in the partitive. After a numeral stand the partitive singular and
a singular verb.
"""

from xlingjax.corpora.world.lexicon import Forms, names
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.word import (
    NUMBER,
    OBJECT,
    RELATIONS,
    SHORT,
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

COLUMNS = {"Nom": "nom", "Gen": "gen", "Par": "part"}


def _case_form(entry: Values, values: Values) -> str:
    return entry.get(f"{COLUMNS[values['Case']]} {SHORT[values['Number']]}", "")


def _verb_form(entry: Values, values: Values) -> str:
    return entry[f"{SHORT[values['Number']]} {'past' if values['Tense'] == 'Past' else 'present'}"]


AXES = {"Case": tuple(COLUMNS), "Number": NUMBER}
NOUN = Paradigm("NOUN", _case_form, AXES)
ADJECTIVE = Paradigm("ADJ", _case_form, AXES)
VERB = Paradigm("VERB", _verb_form, {"Number": NUMBER, "Tense": TENSE})


def clause(forms: Forms, m: Meaning) -> list[Word]:
    """time, subject, verb, object, place"""
    several = m.subject_plural and not m.numeral
    values = {"Number": NUMBER[several], "Tense": TENSE[m.past]}
    words = [*fixed(forms, m.time), *_subject(forms, m, several),
             inflected(VERB, forms[m.verb], values, "root", SUBJECT, {"Person": "3"})]
    if m.object:
        case = "Par" if forms[m.verb]["object"] == "part" else "Nom" if m.object_plural else "Gen"
        words += _noun_phrase(forms, m.object, m.object_adjective, case, m.object_plural, OBJECT)
    return words + fixed(forms, m.place)


def _subject(forms: Forms, m: Meaning, several: bool) -> list[Word]:
    if m.subject in names():
        return [name(forms, m.subject, SUBJECT)]
    if m.numeral:
        return [numeral(forms, m.numeral, SUBJECT), *_noun_phrase(forms, m.subject, "", "Par", False, SUBJECT)]
    return _noun_phrase(forms, m.subject, m.subject_adjective, "Nom", several, SUBJECT)


def _noun_phrase(forms: Forms, noun: str, adjective: str, case: str, plural: bool, phrase: str) -> list[Word]:
    values = {"Case": case, "Number": NUMBER[plural]}
    words = [inflected(ADJECTIVE, forms[adjective], values, "amod", phrase)] if adjective else []
    return [*words, inflected(NOUN, forms[noun], values, RELATIONS[phrase], phrase)]
