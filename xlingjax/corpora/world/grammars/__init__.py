"""One short grammar a language: `clause(forms, meaning)` gives the words in their order."""

from collections.abc import Callable

from xlingjax.corpora.world.grammars import (
    english,
    finnish,
    german,
    hindi,
    russian,
    spanish,
    swahili,
    turkish,
)
from xlingjax.corpora.world.lexicon import Forms
from xlingjax.corpora.world.meaning import Meaning
from xlingjax.corpora.world.word import Word

CLAUSES: dict[str, Callable[[Forms, Meaning], list[Word]]] = {
    "eng": english.clause, "spa": spanish.clause, "deu": german.clause, "rus": russian.clause,
    "tur": turkish.clause, "fin": finnish.clause, "hin": hindi.clause, "swh": swahili.clause,
}


def realise(language: str, forms: Forms, meaning: Meaning) -> str:
    """The sentence, without capital or full stop: a word has one form wherever it stands.

    Example:
        >>> from xlingjax.corpora.world.lexicon import own_forms
        >>> meaning = Meaning(
        ...     "girl", "eat", "apple", past=True, object_adjective="red", time="yesterday")
        >>> realise("deu", own_forms("deu"), meaning)
        'gestern aß das Mädchen den roten Apfel'
        >>> realise("tur", own_forms("tur"), meaning)
        'dün kız kırmızı elmayı yedi'
    """
    return text_of(CLAUSES[language](forms, meaning))


def text_of(words: list[Word]) -> str:
    """The words as written, a blank between them."""
    return " ".join([word.form for word in words])
