"""German: the verb stands second; articles, adjectives and some nouns show gender, number and case.

After the definite article an adjective ends in -e in the nominative singular and in the feminine
and neuter accusative singular, in -en elsewhere.
"""

from xlingjax.corpora.world.lexicon import Forms, names
from xlingjax.corpora.world.meaning import Meaning

ARTICLES = {"m": "der", "f": "die", "n": "das"}


def clause(forms: Forms, m: Meaning) -> list[str]:
    """time, verb, subject, object, place; without a time: subject, verb, object, place"""
    number = "pl" if m.subject_plural else "sg"
    verb = forms[m.verb][f"{number} {'past' if m.past else 'present'}"]
    subject = _noun_phrase(
        forms, m.subject, m.subject_adjective, m.subject_plural, False, m.numeral)
    phrases = [forms[m.time]["form"], verb, subject] if m.time else [subject, verb]
    if m.object:
        phrases.append(_noun_phrase(forms, m.object, m.object_adjective, m.object_plural, True))
    phrases.append(forms[m.place]["form"] if m.place else "")
    return phrases


def _noun_phrase(
        forms: Forms, noun: str, adjective: str, plural: bool, accusative: bool,
        numeral: str = "") -> str:
    if noun in names():
        return forms[noun]["form"]
    gender = forms[noun]["gender"]
    masculine_accusative = accusative and gender == "m" and not plural
    article = "die" if plural else "den" if masculine_accusative else ARTICLES[gender]
    words = [forms[numeral]["form"] if numeral else article]
    if adjective:
        words.append(forms[adjective]["stem"] + ("en" if plural or masculine_accusative else "e"))
    words.append(forms[noun]["pl" if plural else "acc sg" if accusative else "nom sg"])
    return " ".join(words)
