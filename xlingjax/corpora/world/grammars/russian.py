"""Russian: subject, verb, object; adjectives agree in gender, number and case, the past in gender.

The accusative of a person or animal is the genitive (masculine singular, and every plural). After
two, three, four stands the genitive singular, after five and ten the genitive plural.
The past is perfective where the act is completed.
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
)


def _noun_form(entry: Values, values: Values) -> str:
    if values["Case"] == "Gen" and values["Number"] == "Plur":  # that of a person or animal is the accusative
        return entry["acc pl"] if entry["gen sg"] else ""
    return entry[f"{values['Case'].lower()} {SHORT[values['Number']]}"]


def _adjective_form(entry: Values, values: Values) -> str:
    genitive = values["Case"] == "Gen" or (values["Case"] == "Acc" and values["Animacy"] == "Anim")
    if values["Number"] == "Plur":
        return entry["gen pl" if genitive else "pl"]
    if values["Gender"] == "Fem":
        return {"Nom": entry["f"], "Acc": entry["acc f"]}.get(values["Case"], "")
    if genitive and (values["Gender"] == "Masc" or values["Case"] == "Gen"):
        return entry["gen m"]
    return entry[SHORT[values["Gender"]]]


def _verb_form(entry: Values, values: Values) -> str:
    if values["Tense"] == "Pres":
        return entry[f"{SHORT[values['Number']]} present"]
    return entry.get(f"{SHORT[values['Gender' if values['Number'] == 'Sing' else 'Number']]} past", "")


CASE, GENDER = ("Nom", "Acc", "Gen"), ("Masc", "Fem", "Neut")
NOUN = Paradigm("NOUN", _noun_form, {"Case": CASE, "Number": NUMBER})
ADJECTIVE = Paradigm("ADJ", _adjective_form, {"Case": CASE, "Gender": GENDER, "Number": NUMBER})
NUMERAL = Paradigm("NUM", lambda entry, values: entry["f" if values["Gender"] == "Fem" else "form"],
                   {"Gender": GENDER})
VERB = Paradigm("VERB", _verb_form, {"Gender": GENDER, "Number": NUMBER, "Tense": TENSE})


def clause(forms: Forms, m: Meaning) -> list[Word]:
    """time, subject, verb, object, place"""
    values = {"Gender": GENDERS[forms[m.subject]["gender"]], "Number": NUMBER[m.subject_plural],
              "Tense": TENSE[m.past]}
    words = [*fixed(forms, m.time), *_subject(forms, m), inflected(
        VERB, forms[m.verb], values, "root", SUBJECT, NONE if m.past else {"Person": "3"})]
    if m.object:
        words += _noun_phrase(forms, m.object, m.object_adjective, "Acc", m.object_plural, OBJECT)
    return words + fixed(forms, m.place)


def _subject(forms: Forms, m: Meaning) -> list[Word]:
    entry = forms[m.subject]
    gender = {"Gender": GENDERS[entry["gender"]]}
    if m.subject in names():
        return [name(forms, m.subject, SUBJECT, {**gender, "Number": "Sing"})]
    if not m.numeral:
        return _noun_phrase(forms, m.subject, m.subject_adjective, "Nom", m.subject_plural, SUBJECT)
    counted = {"Case": "Gen", "Number": "Sing" if forms[m.numeral]["noun"] == "gen sg" else "Plur"}
    return [inflected(NUMERAL, forms[m.numeral], gender, "nummod", SUBJECT),
            inflected(NOUN, entry, counted, RELATIONS[SUBJECT], SUBJECT, gender)]


def _noun_phrase(
        forms: Forms, noun: str, adjective: str, case: str, plural: bool, phrase: str) -> list[Word]:
    gender = {"Gender": GENDERS[forms[noun]["gender"]]}
    own = {"Case": case, "Number": NUMBER[plural]}
    words = []
    if adjective:
        animacy = {"Animacy": "Anim" if noun in animates() else "Inan"}
        words.append(inflected(ADJECTIVE, forms[adjective], own | gender | animacy, "amod", phrase))
    return [*words, inflected(NOUN, forms[noun], own, RELATIONS[phrase], phrase, gender)]
