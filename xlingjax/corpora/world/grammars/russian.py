"""Russian: subject, verb, object; adjectives agree in gender, number and case, the past in gender.

The accusative of a person or animal is the genitive (masculine singular, and every plural). After
two, three, four stands the genitive singular, after five and ten the genitive plural.
The past is perfective where the act is completed.
"""

from xlingjax.corpora.world.lexicon import Forms, animates, names
from xlingjax.corpora.world.meaning import Meaning


def clause(forms: Forms, m: Meaning) -> list[str]:
    """time, subject, verb, object, place"""
    number = "pl" if m.subject_plural else "sg"
    gender = "pl" if m.subject_plural else forms[m.subject]["gender"]
    phrases = [forms[m.time]["form"] if m.time else "", _subject(forms, m),
               forms[m.verb][f"{gender} past" if m.past else f"{number} present"]]
    if m.object:
        phrases.append(_object(forms, m))
    phrases.append(forms[m.place]["form"] if m.place else "")
    return phrases


def _subject(forms: Forms, m: Meaning) -> str:
    noun = forms[m.subject]
    if m.subject in names():
        return noun["form"]
    if m.numeral:
        numeral = forms[m.numeral]
        return f"{numeral['f' if noun['gender'] == 'f' else 'form']} {noun[numeral['noun']]}"
    word = noun["nom pl" if m.subject_plural else "nom sg"]
    if not m.subject_adjective:
        return word
    return f"{forms[m.subject_adjective]['pl' if m.subject_plural else noun['gender']]} {word}"


def _object(forms: Forms, m: Meaning) -> str:
    noun = forms[m.object]
    word = noun["acc pl" if m.object_plural else "acc sg"]
    if not m.object_adjective:
        return word
    animate = m.object in animates()
    if m.object_plural:
        column = "gen pl" if animate else "pl"
    elif noun["gender"] == "f":
        column = "acc f"
    elif noun["gender"] == "m" and animate:
        column = "gen m"
    else:
        column = noun["gender"]
    return f"{forms[m.object_adjective][column]} {word}"
