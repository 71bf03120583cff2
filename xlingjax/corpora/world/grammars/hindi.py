"""Hindi: subject, object, verb; adjectives and verbs agree in gender and number.

A person or animal as object stands in the oblique with को (with love: से). In the past the subject
of an ergative verb stands in the oblique with ने, and the verb agrees with an unmarked object,
else it is masculine singular. Other verbs agree with their subject.
"""

from xlingjax.corpora.world.lexicon import Forms, animates, names
from xlingjax.corpora.world.meaning import Meaning


def clause(forms: Forms, m: Meaning) -> list[str]:
    """time, subject, place, object, verb"""
    ergative = m.past and forms[m.verb]["ergative"] == "ne"
    marked = m.object in animates()
    if m.subject in names():
        subject = forms[m.subject]["form"]
    else:
        subject = _noun_phrase(
            forms, m.subject, m.subject_adjective, m.subject_plural, ergative, m.numeral)
    phrases = [forms[m.time]["form"] if m.time else "", subject, "ने" if ergative else "",
               forms[m.place]["form"] if m.place else ""]
    if m.object:
        phrases.append(_noun_phrase(forms, m.object, m.object_adjective, m.object_plural, marked))
        phrases.append((forms[m.verb]["object"] or "को") if marked else "")
    return [*phrases, _verb(forms, m, ergative, marked)]


def _verb(forms: Forms, m: Meaning, ergative: bool, marked: bool) -> str:
    gender, plural = forms[m.subject]["gender"], m.subject_plural
    if not m.past:
        ending = "ती" if gender == "f" else "ते" if plural else "ता"
        return f"{forms[m.verb]['stem']}{ending} {'हैं' if plural else 'है'}"
    if ergative:
        agrees = m.object and not marked
        gender = forms[m.object]["gender"] if agrees else "m"
        plural = bool(agrees) and m.object_plural
    return forms[m.verb][f"{gender} {'pl' if plural else 'sg'} past"]


def _noun_phrase(
        forms: Forms, noun: str, adjective: str, plural: bool, oblique: bool,
        numeral: str = "") -> str:
    words = [forms[numeral]["form"]] if numeral else []
    if adjective:
        masculine = "m obl" if plural or oblique else "m sg"
        words.append(forms[adjective]["f" if forms[noun]["gender"] == "f" else masculine])
    words.append(forms[noun][f"{'obl' if oblique else 'dir'} {'pl' if plural else 'sg'}"])
    return " ".join(words)
