"""The script a text is written in, from Unicode character names."""

import collections
import functools
import unicodedata
from collections.abc import Iterable

UNKNOWN = "none"


@functools.lru_cache(maxsize=65536)
def _script(character: str) -> str:
    # A letter's Unicode name begins with its script; CJK UNIFIED IDEOGRAPH and the kana stand apart.
    return unicodedata.name(character, UNKNOWN).split()[0]


def main_script(texts: Iterable[str]) -> str:
    """The script of most letters; "none" where there is no letter.

    >>> main_script(["Hello, Мир!", "two words"]), main_script(["42"])
    ('LATIN', 'none')
    """
    counts = collections.Counter(
        _script(character) for text in texts for character in text if character.isalpha())
    return counts.most_common(1)[0][0] if counts else UNKNOWN
