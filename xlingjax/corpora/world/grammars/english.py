"""English: subject, verb, object; number in nouns and in the present tense."""

from xlingjax.corpora.world.lexicon import Forms, names
from xlingjax.corpora.world.meaning import Meaning


def clause(forms: Forms, m: Meaning) -> list[str]:
    """time, subject, verb, object, place"""
    plural = m.subject_plural
    verb = forms[m.verb]["past" if m.past else "pl present" if plural else "sg present"]
    phrases = [forms[m.time]["form"] if m.time else "",
               _noun_phrase(forms, m.subject, m.subject_adjective, plural, m.numeral), verb]
    if m.object:
        phrases.append(_noun_phrase(forms, m.object, m.object_adjective, m.object_plural))
    phrases.append(forms[m.place]["form"] if m.place else "")
    return phrases


def _noun_phrase(forms: Forms, noun: str, adjective: str, plural: bool, numeral: str = "") -> str:
    if noun in names():
        return forms[noun]["form"]
    words = [forms[numeral]["form"] if numeral else "the"]
    if adjective:
        words.append(forms[adjective]["form"])
    return " ".join([*words, forms[noun]["pl" if plural else "sg"]])
