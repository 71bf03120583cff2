"""Spanish: subject, verb, object; articles and adjectives agree in gender and number.

An adjective follows its noun. A definite person or animal as object takes "a" (a + el = al).
"""

from xlingjax.corpora.world.lexicon import Forms, animates, names
from xlingjax.corpora.world.meaning import Meaning

ARTICLES = {"m sg": "el", "f sg": "la", "m pl": "los", "f pl": "las"}
STRESSED_A = ("agua",)  # feminine nouns that take "el" in the singular


def clause(forms: Forms, m: Meaning) -> list[str]:
    """time, subject, verb, object, place"""
    number = "pl" if m.subject_plural else "sg"
    phrases = [forms[m.time]["form"] if m.time else "",
               _noun_phrase(forms, m.subject, m.subject_adjective, m.subject_plural, m.numeral),
               forms[m.verb][f"{number} {'past' if m.past else 'present'}"]]
    if m.object:
        phrase = _noun_phrase(forms, m.object, m.object_adjective, m.object_plural)
        if m.object in animates():
            phrase = "al" + phrase[2:] if phrase.startswith("el ") else "a " + phrase
        phrases.append(phrase)
    phrases.append(forms[m.place]["form"] if m.place else "")
    return phrases


def _noun_phrase(forms: Forms, noun: str, adjective: str, plural: bool, numeral: str = "") -> str:
    if noun in names():
        return forms[noun]["form"]
    number = "pl" if plural else "sg"
    agreement = f"{forms[noun]['gender']} {number}"
    word = forms[noun][number]
    article = "el" if word in STRESSED_A else ARTICLES[agreement]
    words = [forms[numeral]["form"] if numeral else article, word]
    if adjective:
        words.append(forms[adjective][agreement])
    return " ".join(words)
