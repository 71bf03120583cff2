"""English: subject, verb, object; number in nouns and in the present tense."""

from xlingjax.corpora.world.lexicon import Forms, names
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.word import (
    NONE,
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

THIRD: Values = {"Person": "3"}
PARTICLES = {"for": "ADP", "to": "ADP", "away": "ADV"}


def _verb_form(entry: Values, values: Values) -> str:
    past = values["Tense"] == "Past"
    return entry["past" if past else f"{SHORT[values['Number']]} present"].split()[0]


NOUN = Paradigm("NOUN", lambda entry, values: entry[SHORT[values["Number"]]], {"Number": NUMBER})
VERB = Paradigm("VERB", _verb_form, {"Number": NUMBER, "Tense": TENSE})


def clause(forms: Forms, m: Meaning) -> list[Word]:
    """time, subject, verb, object, place"""
    words = fixed(forms, m.time) + _noun_phrase(
        forms, m.subject, m.subject_adjective, m.subject_plural, SUBJECT, m.numeral)
    values = {"Number": NUMBER[m.subject_plural], "Tense": TENSE[m.past]}
    person = NONE if m.past or m.subject_plural else THIRD
    words.append(inflected(VERB, forms[m.verb], values, "root", SUBJECT, person))
    words += [Word(form, PARTICLES[form], "compound:prt") for form in forms[m.verb]["past"].split()[1:]]
    if m.object:
        words += _noun_phrase(forms, m.object, m.object_adjective, m.object_plural, OBJECT)
    return words + fixed(forms, m.place)


def _noun_phrase(
        forms: Forms, noun: str, adjective: str, plural: bool, phrase: str, number: str = "") -> list[Word]:
    if noun in names():
        return [name(forms, noun, phrase)]
    words = [numeral(forms, number, phrase) if number else Word("the", "DET", "det", phrase, {"Definite": "Def"})]
    if adjective:
        words.append(Word(forms[adjective]["form"], "ADJ", "amod", phrase))
    return [*words, inflected(NOUN, forms[noun], {"Number": NUMBER[plural]}, RELATIONS[phrase], phrase)]
