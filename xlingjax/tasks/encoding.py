"""Texts as rows of one length: `first a between`, or `first a between b between`, whatever the tokenizer's template.

Token types are not used (a body's second row of them would have to be trained); pairs are told apart by the token
between. A row always ends with it, so that a decoder's last token has seen all.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Tokenizer

from xlingjax.errors import InputError

_SURROGATE = re.compile("[\ud800-\udfff]")


class Marks(NamedTuple):
    """The special tokens of a row: those before the first text, and the one after each."""

    first: tuple[int, ...]
    between: int


class Pieces(NamedTuple):
    """A text's tokens, without special ones, and the characters of each, blanks at both ends left out."""

    ids: Int[np.ndarray, "t"]
    spans: Int[np.ndarray, "t 2"]


def read_marks(tokenizer: Any) -> Marks:
    """The marks that a tokenizer's template puts around a text, else its [CLS] or beginning, and [SEP] or end.

    Raises:
        InputError: no fast tokenizer, or one without a token for the end of a text.
    """
    encoded = _backend(tokenizer).encode("a")
    special = np.array(encoded.special_tokens_mask, bool)
    inner = np.flatnonzero(~special)
    lead = tuple(encoded.ids[:inner[0]]) if len(inner) else ()
    tail = tuple(encoded.ids[inner[-1] + 1:]) if len(inner) else ()
    if not lead:
        given = next((i for i in (tokenizer.cls_token_id, tokenizer.bos_token_id) if i is not None), None)
        lead = () if given is None else (given,)
    ends = (*tail[:1], tokenizer.sep_token_id, tokenizer.eos_token_id)
    between = next((i for i in ends if i is not None), None)
    if between is None:
        raise InputError(
            f"{type(tokenizer).__name__} has no token that ends a text (sep_token or eos_token); pairs of texts need "
            "one between them, so name one")
    return Marks(lead, between)


def read_pieces(tokenizer: Any, texts: Sequence[str]) -> list[Pieces]:
    """Tokens of each text; text that spells a special token stays text, half a surrogate pair becomes U+FFFD.

    Raises:
        InputError: no fast tokenizer (characters of tokens are known to fast ones only).
    """
    backend = _backend(tokenizer)
    backend.encode_special_tokens = True
    found = []
    clean = [_SURROGATE.sub("\ufffd", text) for text in texts]
    for text, encoded in zip(clean, backend.encode_batch(clean, add_special_tokens=False), strict=True):
        spans = np.array(encoded.offsets, np.int64).reshape(-1, 2)
        blank = np.array([character.isspace() for character in text] + [False], bool)
        for span in spans:
            while span[0] < span[1] and blank[span[0]]:
                span[0] += 1
            while span[0] < span[1] and blank[span[1] - 1]:
                span[1] -= 1
        found.append(Pieces(np.array(encoded.ids, np.int32), spans))
    return found


def joined(marks: Marks, parts: Sequence[np.ndarray]) -> Int[np.ndarray, "t"]:
    """One row: the parts with their marks."""
    row = list(marks.first)
    for part in parts:
        row += [*part.tolist(), marks.between]
    return np.array(row, np.int32)


def starts_of(marks: Marks, parts: Sequence[np.ndarray]) -> list[int]:
    """At which token of the row each part begins."""
    starts, at = [], len(marks.first)
    for part in parts:
        starts.append(at)
        at += len(part) + 1
    return starts


def cut_to(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens each of one or two texts keeps so that all fit in `room`; the longer one is cut first.

    >>> cut_to([3, 10], 8), cut_to([9, 10], 8), cut_to([2, 3], 8), cut_to([9], 8)
    ([3, 5], [4, 4], [2, 3], [8])
    """
    if sum(lengths) <= room:
        return list(lengths)
    if len(lengths) == 1:
        return [room]
    short = min(min(lengths), room // 2)
    return [short, room - short] if lengths[0] <= lengths[1] else [room - short, short]


def padded(
    rows: Sequence[np.ndarray], length: int,
) -> tuple[Int[np.ndarray, "n T"], Bool[np.ndarray, "n T"]]:
    """Rows of tokens as one array, padded on the right, and its mask."""
    tokens, mask = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        tokens[i, :len(row)], mask[i, :len(row)] = row, True
    return tokens, mask


def _backend(tokenizer: Any) -> Tokenizer:
    """A copy, so that settings made here do not reach the caller's."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(
            f"{type(tokenizer).__name__} is no fast tokenizer; tasks need to know which characters a token writes, so "
            "give the fast one of this model (tokenizer.json)")
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy
