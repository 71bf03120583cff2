"""Finnish: subject, verb, object; no gender; adjectives agree in number and case.

A total object is in the genitive singular or nominative plural, the object of a verb without an
end (love, look for, carry, ...) in the partitive. After a numeral stand the partitive singular and
a singular verb.
"""

from xlingjax.corpora.world.lexicon import Forms, names
from xlingjax.corpora.world.meaning import Meaning


def clause(forms: Forms, m: Meaning) -> list[str]:
    """time, subject, verb, object, place"""
    number = "pl" if m.subject_plural and not m.numeral else "sg"
    verb = forms[m.verb]
    phrases = [forms[m.time]["form"] if m.time else "", _subject(forms, m, number),
               verb[f"{number} {'past' if m.past else 'present'}"]]
    if m.object:
        if verb["object"] == "part":
            case = "part pl" if m.object_plural else "part sg"
        else:
            case = "nom pl" if m.object_plural else "gen sg"
        phrases.append(_inflected(forms, m.object, m.object_adjective, case))
    phrases.append(forms[m.place]["form"] if m.place else "")
    return phrases


def _subject(forms: Forms, m: Meaning, number: str) -> str:
    if m.subject in names():
        return forms[m.subject]["form"]
    if m.numeral:
        return f"{forms[m.numeral]['form']} {forms[m.subject]['part sg']}"
    return _inflected(forms, m.subject, m.subject_adjective, f"nom {number}")


def _inflected(forms: Forms, noun: str, adjective: str, case: str) -> str:
    return f"{forms[adjective][case]} {forms[noun][case]}" if adjective else forms[noun][case]
