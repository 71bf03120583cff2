"""Spanish: subject, verb, object; articles and adjectives agree in gender and number.

An adjective follows its noun. A definite person or animal as object takes "a" (a + el = al).
"""

from xlingjax.corpora.world.lexicon import Forms, animates, names
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.word import (
    GENDERS,
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

ARTICLES = {"m sg": "el", "f sg": "la", "m pl": "los", "f pl": "las"}
STRESSED_A = ("agua",)  # feminine nouns that take "el" in the singular
DEFINITE: Values = {"Definite": "Def"}
AL = Word("al", "ADP", "case", OBJECT, {"Definite": "Def", "Gender": "Masc", "Number": "Sing"})
A = Word("a", "ADP", "case", OBJECT)
SE = Word("se", "PRON", "expl", "", {"Person": "3"})


def _agreeing(values: Values) -> str:
    return f"{SHORT[values['Gender']]} {SHORT[values['Number']]}"


def _article(noun: Values, values: Values) -> str:
    stressed = values["Number"] == "Sing" and noun["sg"] in STRESSED_A
    return "el" if stressed else ARTICLES[_agreeing(values)]


def _verb_form(entry: Values, values: Values) -> str:
    tense = "past" if values["Tense"] == "Past" else "present"
    return entry[f"{SHORT[values['Number']]} {tense}"].split()[-1]


AGREES = {"Gender": ("Masc", "Fem"), "Number": NUMBER}
NOUN = Paradigm("NOUN", lambda entry, values: entry[SHORT[values["Number"]]], {"Number": NUMBER})
ARTICLE = Paradigm("DET", _article, AGREES)
ADJECTIVE = Paradigm("ADJ", lambda entry, values: entry[_agreeing(values)], AGREES)
VERB = Paradigm("VERB", _verb_form, {"Number": NUMBER, "Tense": TENSE})


def clause(forms: Forms, m: Meaning) -> list[Word]:
    """time, subject, verb, object, place"""
    words = fixed(forms, m.time) + _noun_phrase(
        forms, m.subject, m.subject_adjective, m.subject_plural, SUBJECT, m.numeral)
    if forms[m.verb]["sg present"].startswith("se "):
        words.append(SE)
    values = {"Number": NUMBER[m.subject_plural], "Tense": TENSE[m.past]}
    words.append(inflected(VERB, forms[m.verb], values, "root", SUBJECT, {"Person": "3"}))
    if m.object:
        phrase = _noun_phrase(forms, m.object, m.object_adjective, m.object_plural, OBJECT)
        if m.object in animates():
            phrase = [AL, *phrase[1:]] if phrase[0].form == "el" else [A, *phrase]
        words += phrase
    return words + fixed(forms, m.place)


def _noun_phrase(
        forms: Forms, noun: str, adjective: str, plural: bool, phrase: str, number: str = "") -> list[Word]:
    entry = forms[noun]
    gender = {"Gender": GENDERS[entry["gender"]]}
    if noun in names():
        return [name(forms, noun, phrase, {**gender, "Number": "Sing"})]
    values = {**gender, "Number": NUMBER[plural]}
    words = [numeral(forms, number, phrase) if number else inflected(ARTICLE, entry, values, "det", phrase, DEFINITE),
             inflected(NOUN, entry, {"Number": NUMBER[plural]}, RELATIONS[phrase], phrase, gender)]
    if adjective:
        words.append(inflected(ADJECTIVE, forms[adjective], values, "amod", phrase, NONE))
    return words
