"""Hindi: subject, object, verb; adjectives and verbs agree in gender and number.

A person or animal as object stands in the oblique with को (with love: से). In the past the subject
of an ergative verb stands in the oblique with ने, and the verb agrees with an unmarked object,
else it is masculine singular. Other verbs agree with their subject. The oblique is called Case=Acc,
as treebanks of Hindi do.
"""

from xlingjax.corpora.world.lexicon import Forms, animates, names
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.word import (
    GENDERS,
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

PRESENT: Values = {"Tense": "Pres"}
COMPOUNDS = {"बंद": "ADJ", "ठीक": "ADJ", "भूल": "VERB"}  # what stands before a verb of two words; others are nouns


def _noun_form(entry: Values, values: Values) -> str:
    return entry[f"{'obl' if values['Case'] == 'Acc' else 'dir'} {SHORT[values['Number']]}"]


def _adjective_form(entry: Values, values: Values) -> str:
    masculine = "m obl" if values["Number"] == "Plur" or values["Case"] == "Acc" else "m sg"
    return entry["f" if values["Gender"] == "Fem" else masculine]


def _verb_form(entry: Values, values: Values) -> str:
    gender, number = values["Gender"], values["Number"]
    if values["Tense"] == "Past":
        return entry[f"{SHORT[gender]} {SHORT[number]} past"].split(" ")[-1]
    return entry["stem"].split()[-1] + ("ती" if gender == "Fem" else "ते" if number == "Plur" else "ता")


CASE, GENDER = ("Nom", "Acc"), ("Masc", "Fem")
NOUN = Paradigm("NOUN", _noun_form, {"Case": CASE, "Number": NUMBER})
ADJECTIVE = Paradigm("ADJ", _adjective_form, {"Case": CASE, "Gender": GENDER, "Number": NUMBER})
VERB = Paradigm("VERB", _verb_form, {"Gender": GENDER, "Number": NUMBER, "Tense": TENSE})
AUXILIARY = Paradigm("AUX", lambda entry, values: "हैं" if values["Number"] == "Plur" else "है", {"Number": NUMBER})


def clause(forms: Forms, m: Meaning) -> list[Word]:
    """time, subject, place, object, verb"""
    ergative = m.past and forms[m.verb]["ergative"] == "ne"
    marked = m.object in animates()
    words = fixed(forms, m.time) + _noun_phrase(
        forms, m.subject, m.subject_adjective, m.subject_plural, ergative, SUBJECT, m.numeral)
    if ergative:
        words.append(Word("ने", "ADP", "case", SUBJECT))
    words += fixed(forms, m.place)
    if m.object:
        words += _noun_phrase(forms, m.object, m.object_adjective, m.object_plural, marked, OBJECT)
        if marked:
            words.append(Word(forms[m.verb]["object"] or "को", "ADP", "case", OBJECT))
    return words + _verb(forms, m, ergative, marked)


def _verb(forms: Forms, m: Meaning, ergative: bool, marked: bool) -> list[Word]:
    entry = forms[m.verb]
    gender, plural, phrase = forms[m.subject]["gender"], m.subject_plural, SUBJECT
    if ergative:
        agrees = bool(m.object) and not marked
        gender = forms[m.object]["gender"] if agrees else "m"
        plural, phrase = agrees and m.object_plural, OBJECT if agrees else ""
    number = {"Number": NUMBER[plural]}
    words = [Word(form, COMPOUNDS.get(form, "NOUN"), "compound") for form in entry["stem"].split()[:-1]]
    words.append(inflected(
        VERB, entry, {"Gender": GENDERS[gender], **number, "Tense": TENSE[m.past]}, "root", phrase))
    return words if m.past else [*words, inflected(AUXILIARY, entry, number, "aux", phrase, PRESENT)]


def _noun_phrase(
        forms: Forms, noun: str, adjective: str, plural: bool, oblique: bool, phrase: str,
        number: str = "") -> list[Word]:
    gender = {"Gender": GENDERS[forms[noun]["gender"]]}
    if noun in names():
        return [name(forms, noun, phrase, {**gender, "Number": "Sing"})]
    own = {"Case": CASE[oblique], "Number": NUMBER[plural]}
    words = [numeral(forms, number, phrase)] if number else []
    if adjective:
        words.append(inflected(ADJECTIVE, forms[adjective], own | gender, "amod", phrase))
    return [*words, inflected(NOUN, forms[noun], own, RELATIONS[phrase], phrase, gender)]
