"""Turkish: subject, object, verb; no gender; a definite object takes the accusative.

Persons in the plural take a plural verb; animals, and everything after a numeral, a singular one.
After a numeral the noun is singular.
"""

from xlingjax.corpora.world.lexicon import Forms, humans, names
from xlingjax.corpora.world.meaning import Meaning


def clause(forms: Forms, m: Meaning) -> list[str]:
    """time, subject, place, object, verb"""
    verb = forms[m.verb]["past" if m.past else "present"]
    if m.subject_plural and not m.numeral and m.subject in humans():
        verb += _plural_suffix(verb)
    return [forms[m.time]["form"] if m.time else "", _subject(forms, m),
            forms[m.place]["form"] if m.place else "", _object(forms, m) if m.object else "", verb]


def _plural_suffix(word: str) -> str:
    last = next(letter for letter in reversed(word) if letter in "aıoueiöü")
    return "lar" if last in "aıou" else "ler"


def _subject(forms: Forms, m: Meaning) -> str:
    if m.subject in names():
        return forms[m.subject]["form"]
    word = forms[m.subject]["pl" if m.subject_plural and not m.numeral else "nom sg"]
    before = m.numeral or m.subject_adjective
    return f"{forms[before]['form']} {word}" if before else word


def _object(forms: Forms, m: Meaning) -> str:
    if m.object_plural:
        word = forms[m.object]["pl"]
        word += {"lar": "ı", "ler": "i"}.get(word[-3:], "")  # a common form stays as it is
    else:
        word = forms[m.object]["acc sg"]
    return f"{forms[m.object_adjective]['form']} {word}" if m.object_adjective else word
