"""German: the verb stands second; articles, adjectives and some nouns show gender, number and case.

After the definite article an adjective ends in -e in the nominative singular and in the feminine
and neuter accusative singular, in -en elsewhere.
"""

from xlingjax.corpora.world.lexicon import Forms, names
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

ARTICLES = {"Masc": "der", "Fem": "die", "Neut": "das"}
DEFINITE: Values = {"Definite": "Def"}
THIRD: Values = {"Person": "3"}


def _masculine_accusative(values: Values) -> bool:
    return values["Case"] == "Acc" and values["Gender"] == "Masc" and values["Number"] == "Sing"


def _article(entry: Values, values: Values) -> str:
    plural = values["Number"] == "Plur"
    return "die" if plural else "den" if _masculine_accusative(values) else ARTICLES[values["Gender"]]


def _adjective_form(entry: Values, values: Values) -> str:
    weak = values["Number"] == "Plur" or _masculine_accusative(values)
    return entry["stem"] + ("en" if weak else "e")


def _noun_form(entry: Values, values: Values) -> str:
    return entry["pl" if values["Number"] == "Plur" else "acc sg" if values["Case"] == "Acc" else "nom sg"]


def _verb_form(entry: Values, values: Values) -> str:
    return entry[f"{SHORT[values['Number']]} {'past' if values['Tense'] == 'Past' else 'present'}"]


CASE = ("Nom", "Acc")
AGREES = {"Case": CASE, "Gender": ("Masc", "Fem", "Neut"), "Number": NUMBER}
NOUN = Paradigm("NOUN", _noun_form, {"Case": CASE, "Number": NUMBER})
ARTICLE = Paradigm("DET", _article, AGREES)
ADJECTIVE = Paradigm("ADJ", _adjective_form, AGREES)
VERB = Paradigm("VERB", _verb_form, {"Number": NUMBER, "Tense": TENSE})


def clause(forms: Forms, m: Meaning) -> list[Word]:
    """time, verb, subject, object, place; without a time: subject, verb, object, place"""
    values = {"Number": NUMBER[m.subject_plural], "Tense": TENSE[m.past]}
    person = NONE if m.past or m.subject_plural else THIRD
    verb = inflected(VERB, forms[m.verb], values, "root", SUBJECT, person)
    subject = _noun_phrase(forms, m.subject, m.subject_adjective, m.subject_plural, SUBJECT, m.numeral)
    words = [*fixed(forms, m.time), verb, *subject] if m.time else [*subject, verb]
    if m.object:
        words += _noun_phrase(forms, m.object, m.object_adjective, m.object_plural, OBJECT)
    return words + fixed(forms, m.place)


def _noun_phrase(
        forms: Forms, noun: str, adjective: str, plural: bool, phrase: str, number: str = "") -> list[Word]:
    entry = forms[noun]
    gender = {"Gender": GENDERS[entry["gender"]]}
    if noun in names():
        return [name(forms, noun, phrase, {**gender, "Number": "Sing"})]
    own = {"Case": CASE[phrase == OBJECT], "Number": NUMBER[plural]}
    values = {**own, **gender}
    words = [numeral(forms, number, phrase) if number else inflected(ARTICLE, NONE, values, "det", phrase, DEFINITE)]
    if adjective:
        words.append(inflected(ADJECTIVE, forms[adjective], values, "amod", phrase))
    return [*words, inflected(NOUN, entry, own, RELATIONS[phrase], phrase, gender)]
