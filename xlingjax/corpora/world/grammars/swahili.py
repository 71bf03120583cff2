"""Swahili: subject, verb, object; adjectives, numerals and verbs agree with the noun's class.

Persons and animals take the concords of classes 1 and 2 whatever their own class; as objects they
are also marked in the verb (m-, before a vowel mw-; plural wa-). Present na-, past li-.
"""

from xlingjax.corpora.world.lexicon import Forms, animates, names
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
)

PLURAL = {"1": "2", "3": "4", "5": "6", "6": "6", "7": "8", "9": "10", "11": "10"}  # class of the plural
LOOKS_LIKE = {"10": "9", "11": "3"}  # the concord of an adjective


def _named(values: Values) -> Values:
    """The class is counted by its singular and called by its number."""
    own = values["NounClass"]
    return {**values, "NounClass": f"Bantu{PLURAL[own] if values['Number'] == 'Plur' else own}"}


def _adjective_form(entry: Values, values: Values) -> str:
    concord = _named(values)["NounClass"].removeprefix("Bantu")
    return entry[LOOKS_LIKE.get(concord, concord)].split(" ")[0]


def _verb_form(entry: Values, values: Values) -> str:
    prefix = ("wa" if values["Number"] == "Plur" else "a") + ("li" if values["Tense"] == "Past" else "na")
    return prefix + values["marker"] + entry["stem"].split()[0]


NOUN = Paradigm("NOUN", lambda entry, values: entry[SHORT[values["Number"]]], {"Number": NUMBER})
ADJECTIVE = Paradigm("ADJ", _adjective_form, {"NounClass": ("1", "3", "5", "7", "9", "11"), "Number": NUMBER}, _named)
VERB = Paradigm("VERB", _verb_form, {"Number": NUMBER, "Tense": TENSE})


def clause(forms: Forms, m: Meaning) -> list[Word]:
    """time, subject, verb, object, place"""
    words = fixed(forms, m.time) + _noun_phrase(
        forms, m.subject, m.subject_adjective, m.subject_plural, SUBJECT, m.numeral) + _verb(forms, m)
    if m.object:
        words += _noun_phrase(forms, m.object, m.object_adjective, m.object_plural, OBJECT)
    return words + fixed(forms, m.place)


def _verb(forms: Forms, m: Meaning) -> list[Word]:
    entry = forms[m.verb]
    marker = ""
    if m.object in animates():
        marker = "wa" if m.object_plural else "mw" if entry["stem"][0] in "aeiou" else "m"
    values = {"Number": NUMBER[m.subject_plural], "Tense": TENSE[m.past], "marker": marker}
    own = {"NounClass": "Bantu2" if m.subject_plural else "Bantu1", "Person": "3"}
    return [inflected(VERB, entry, values, "root", SUBJECT, own),
            *(Word(form, "NOUN", "compound") for form in entry["stem"].split()[1:])]


def _noun_phrase(
        forms: Forms, noun: str, adjective: str, plural: bool, phrase: str, number: str = "") -> list[Word]:
    entry = forms[noun]
    if noun in names():
        return [name(forms, noun, phrase)]
    own = entry["class"]
    # Nouns of classes 9 and 10 mostly look alike; then the class is the word's own whatever its number.
    called = {"NounClass": f"Bantu{PLURAL[own] if plural and entry['pl'] != entry['sg'] else own}"}
    # Of nouns without a plural, those of classes 6 and 9 look like plurals and singulars alike.
    if not entry["pl"] and own in ("6", "9"):
        words = [Word(entry["sg"], "NOUN", RELATIONS[phrase], phrase, called)]
    else:
        words = [inflected(NOUN, entry, {"Number": NUMBER[plural]}, RELATIONS[phrase], phrase, called)]
    if adjective:
        concord = {"NounClass": "1" if noun in animates() else "5" if own == "6" else own,
                   "Number": "Plur" if own == "6" else NUMBER[plural]}
        words.append(inflected(ADJECTIVE, forms[adjective], concord, "amod", phrase))
        words += [Word(form, "NOUN") for form in _rest(forms[adjective], concord)]
    if number:
        form = forms[number]["form"]
        agrees = {"NounClass": "Bantu2", "Number": "Plur"} if form.startswith("wa") else {}
        words.append(Word(form, "NUM", "nummod", phrase, agrees))
    return words


def _rest(adjective: Values, concord: Values) -> list[str]:
    """What follows the word that agrees: "mwenye nguvu" is having strength."""
    class_ = _named(concord)["NounClass"].removeprefix("Bantu")
    return adjective[LOOKS_LIKE.get(class_, class_)].split()[1:]
