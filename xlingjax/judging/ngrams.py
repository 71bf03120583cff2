"""Texts as counts of character n-grams, hashed into a fixed number of buckets; the same on every machine."""

import functools
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

BASE, MIX = np.uint64(1_000_003), np.uint64(0x9E3779B97F4A7C15)
SPACE = 32


def normalised(text: str) -> str:
    """Lower case, composed, digits as 0, everything but letters, marks and digits as one blank.

    >>> normalised("Two  dogs, 17!")
    ' two dogs 00 '
    """
    kept = "".join(map(_plain, unicodedata.normalize("NFC", text).lower()))
    return f" {' '.join(kept.split())} "


@functools.lru_cache(maxsize=65536)
def _plain(character: str) -> str:
    return "0" if character.isdecimal() else character if unicodedata.category(character)[0] in "LM" else " "


def hashed_ngrams(
    text: str, orders: Sequence[int], buckets: int,
) -> Int[np.ndarray, "n"]:
    """The bucket of every n-gram of a text, n-grams of blanks left out.

    >>> hashed_ngrams("ab", (1, 2), 2**10).shape  # "a", "b"; " a", "ab", "b "
    (5,)
    """
    codes = np.array([ord(character) for character in normalised(text)], np.uint64)
    found = []
    with np.errstate(over="ignore"):
        for order in orders:
            count = len(codes) - order + 1
            if count < 1:
                continue
            value, blank = np.full(count, order, np.uint64), np.ones(count, bool)
            for place in range(order):
                part = codes[place:place + count]
                value = value * BASE + part
                blank &= part == SPACE
            value = (value ^ (value >> np.uint64(29))) * MIX
            found.append(((value >> np.uint64(33)) % np.uint64(buckets)).astype(np.int64)[~blank])
    return np.concatenate(found) if found else np.empty(0, np.int64)


def ngram_counts(
    texts: Sequence[str], orders: Sequence[int], buckets: int,
) -> Float[np.ndarray, "S buckets"]:
    """How often each bucket occurs in each text."""
    out = np.zeros((len(texts), buckets), np.float32)
    for row, text in enumerate(texts):
        out[row] = np.bincount(hashed_ngrams(text, orders, buckets), minlength=buckets)
    return out
