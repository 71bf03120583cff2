"""F1 and exact match of answers, as SQuAD 1.1 and MLQA define them.

SQuAD: lower case, without ASCII punctuation, without English articles, blanks as one; whatever the language (XQuAD's
published figures are such). MLQA: punctuation of all scripts, articles of the language, Chinese character by character.
"""

import collections
import re
import string
import unicodedata
from collections.abc import Callable, Sequence

from xlingjax.errors import InputError

RULES = ("squad", "mlqa")
MLQA_ARTICLES = {  # as its evaluation removes them; the Arabic article wherever its two letters stand
    "en": r"\b(?:a|an|the)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": "ال",
    "hi": "",
    "zh": "",
}
_HAN = ("\u4e00", "\u9fa5")


def normalise(text: str, rules: str = "squad", language: str = "en") -> str:
    """A text as answers are compared: words with one blank between them.

    Args:
        text: an answer.
        rules: "squad" or "mlqa".
        language: of the answer, two letters; "squad" does not ask for it.

    Raises:
        InputError: unknown rules, or a language that MLQA does not define.

    >>> normalise("The  Panthers' defence, a wall")
    'panthers defence wall'
    >>> normalise("¿El río Rin?", "mlqa", "es"), normalise("公元 794年", "mlqa", "zh")
    ('río rin', '公 元 794 年')
    """
    check(rules, [language])
    text = text.lower()
    if rules == "squad":
        text = "".join(character for character in text if character not in string.punctuation)
        return " ".join(re.sub(MLQA_ARTICLES["en"], " ", text).split())
    text = "".join(character for character in text if not _punctuation(character))
    if MLQA_ARTICLES[language]:
        text = re.sub(MLQA_ARTICLES[language], " ", text)
    if language == "zh":
        text = "".join(f" {c} " if _HAN[0] <= c <= _HAN[1] else c for c in text)
    return " ".join(text.split())


def check(rules: str, languages: Sequence[str]) -> None:
    """`InputError` for unknown rules, or a language that they do not define."""
    if rules not in RULES:
        raise InputError(f"rules are {rules!r}; choose one of {', '.join(RULES)}")
    for language in languages:
        if rules == "mlqa" and language not in MLQA_ARTICLES:
            raise InputError(
                f"MLQA's scoring does not define language {language!r} (it has {', '.join(MLQA_ARTICLES)}); take "
                "rules='squad', or leave the language out")


def _punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def exact(one: str, other: str) -> float:
    """1 where two normalised texts are the same."""
    return float(one == other)


def f1(one: str, other: str) -> float:
    """Harmonic mean of precision and recall of words, counted as often as they occur; 0 without a common one.

    >>> round(f1("red river delta", "red delta"), 3), f1("", "")
    (0.8, 0.0)
    """
    words, others = one.split(), other.split()
    shared = sum((collections.Counter(words) & collections.Counter(others)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(words), shared / len(others)
    return 2 * precision * recall / (precision + recall)


MEASURES: dict[str, Callable[[str, str], float]] = {"f1": f1, "exact": exact}


def best(
    predictions: Sequence[str], answers: Sequence[str], rules: str = "squad", language: str = "en",
) -> dict[str, list[float]]:
    """Measure -> for each prediction, the most that it gets against any of the answers.

    >>> best(["the Rhine", "Bonn"], ["Rhine", "river Rhine"])
    {'f1': [1.0, 0.0], 'exact': [1.0, 0.0]}
    """
    right = [normalise(answer, rules, language) for answer in answers]
    said = [normalise(prediction, rules, language) for prediction in predictions]
    return {name: [max(measure(one, other) for other in right) for one in said] for name, measure in MEASURES.items()}
