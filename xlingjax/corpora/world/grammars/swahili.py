"""Swahili: subject, verb, object; adjectives, numerals and verbs agree with the noun's class.

Persons and animals take the concords of classes 1 and 2 whatever their own class; as objects they
are also marked in the verb (m-, before a vowel mw-; plural wa-). Present na-, past li-.
"""

from xlingjax.corpora.world.lexicon import Forms, animates, names
from xlingjax.corpora.world.meaning import Meaning

SINGULAR = {"11": "3"}  # adjectives of class 11 look like those of class 3
PLURAL = {"1": "2", "3": "4", "5": "6", "6": "6", "7": "8", "9": "9", "11": "9"}  # 10 looks like 9


def clause(forms: Forms, m: Meaning) -> list[str]:
    """time, subject, verb, object, place"""
    phrases = [forms[m.time]["form"] if m.time else "",
               _noun_phrase(forms, m.subject, m.subject_adjective, m.subject_plural, m.numeral),
               _verb(forms, m)]
    if m.object:
        phrases.append(_noun_phrase(forms, m.object, m.object_adjective, m.object_plural))
    phrases.append(forms[m.place]["form"] if m.place else "")
    return phrases


def _verb(forms: Forms, m: Meaning) -> str:
    stem = forms[m.verb]["stem"]
    prefix = ("wa" if m.subject_plural else "a") + ("li" if m.past else "na")
    if m.object in animates():
        prefix += "wa" if m.object_plural else "mw" if stem[0] in "aeiou" else "m"
    return prefix + stem


def _noun_phrase(forms: Forms, noun: str, adjective: str, plural: bool, numeral: str = "") -> str:
    if noun in names():
        return forms[noun]["form"]
    words = [forms[noun]["pl" if plural else "sg"]]
    if adjective:
        own = "1" if noun in animates() else forms[noun]["class"]
        words.append(forms[adjective][PLURAL[own] if plural else SINGULAR.get(own, own)])
    if numeral:
        words.append(forms[numeral]["form"])
    return " ".join(words)
