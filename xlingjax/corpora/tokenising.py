"""Text to token ids: which tokens are special, what was cut, what was replaced.

Any text is harmless here. What happens to what:

- empty or blank text: a row, perhaps without a real token; then its responses are NaN and `empty`
  counts it;
- lone surrogates (half a UTF-16 pair, which UTF-8 cannot hold): each becomes U+FFFD; `replaced`
  counts the texts;
- NUL, right-to-left text, combining marks: handed to the tokenizer as they are;
- unknown scripts: whatever the tokenizer does; its unknown tokens are real tokens, and `unknown`
  counts them;
- text longer than the context: the first tokens stay, special tokens at both ends stay; `truncated`
  counts the texts;
- a text that spells a special token ("</s>"): the tokenizer makes it that token, and it is special.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from xlingjax.errors import InputError

_CHUNK = 1024  # texts handed to the tokenizer at once; bounds what it holds beside our arrays
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """S tokenised sentences.

    Attributes:
        ids: S arrays int32[t], special tokens included.
        special: S arrays bool[t]; True = a special token, which by default does not count.
        truncated: sentences cut to `max_length`.
        empty: sentences without a real token.
        replaced: sentences in which lone surrogates were replaced by U+FFFD.
        unknown: real tokens the tokenizer had no piece for, in all sentences together.
    """

    ids: tuple[np.ndarray, ...]
    special: tuple[np.ndarray, ...]
    truncated: int = 0
    empty: int = 0
    replaced: int = 0
    unknown: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """int[S]: tokens of each sentence, special tokens included."""
        return np.array([len(ids) for ids in self.ids], np.int64)

    @functools.cached_property
    def real_lengths(self) -> np.ndarray:
        """int[S]: real tokens of each sentence; the token count that length controls use."""
        return np.array([np.count_nonzero(~special) for special in self.special], np.int64)

    def rows(self, index: np.ndarray) -> "Tokens":
        """The sentences at an int or bool index; the counts stay those of the whole."""
        index = np.asarray(index)
        index = np.flatnonzero(index) if index.dtype == bool else index
        return dataclasses.replace(
            self, ids=tuple(self.ids[i] for i in index),
            special=tuple(self.special[i] for i in index))


def tokenise(tokenizer: Any, texts: Sequence[str], max_length: int) -> Tokens:
    """Token ids of every text, with special tokens as the tokenizer's template adds them.

    Special are the tokens the template adds and those spelled in the text, never the unknown token.

    Args:
        tokenizer: a Hugging Face tokenizer, fast or slow.
        texts: S texts.
        max_length: the most tokens of a sentence, special ones included (the model's context).

    Raises:
        InputError: an item is no text, or `max_length` leaves no room for a real token.
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(
                f"text {row} is a {type(text).__name__}, not a string; give strings only")
    extra = tokenizer.num_special_tokens_to_add(pair=False)
    if max_length <= extra:
        raise InputError(
            f"max_length {max_length} leaves no room for a real token beside the {extra} special "
            f"tokens of {type(tokenizer).__name__}; give at least {extra + 1}")
    unk = tokenizer.unk_token_id
    spelled = np.array(sorted(set(tokenizer.all_special_ids) - {unk}), np.int64)
    all_ids, all_special = [], []
    truncated = replaced = unknown = 0
    for start in range(0, len(texts), _CHUNK):
        clean = [_SURROGATE.sub("\ufffd", text) for text in texts[start:start + _CHUNK]]
        replaced += sum(a != b for a, b in zip(clean, texts[start:start + _CHUNK], strict=True))
        for ids, template in _encode(tokenizer, clean):
            if len(ids) > max_length:
                truncated += 1
                ids, template = _cut(ids, template, max_length)
            special = template | np.isin(ids, spelled)
            if unk is not None:
                unknown += int(np.count_nonzero((ids == unk) & ~special))
            all_ids.append(ids)
            all_special.append(special)
    empty = sum(bool(special.all()) for special in all_special)
    return Tokens(tuple(all_ids), tuple(all_special), truncated, empty, replaced, unknown)


def _encode(tokenizer: Any, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids int32[t], bool[t]: added by the template) of every text, uncut."""
    fast = bool(tokenizer.is_fast)
    options = {
        "padding": False, "truncation": False, "return_attention_mask": False, "verbose": False}
    whole = tokenizer(texts, add_special_tokens=True, return_special_tokens_mask=fast, **options)
    ids = [np.array(row, np.int32) for row in whole["input_ids"]]
    if fast:
        masks = [np.array(mask, bool) for mask in whole["special_tokens_mask"]]
        return list(zip(ids, masks, strict=True))
    # Slow tokenizers may return a mask of zeros; what the template adds shows in the difference.
    bare = tokenizer(texts, add_special_tokens=False, **options)["input_ids"]
    return [(row, _added(row, inner)) for row, inner in zip(ids, bare, strict=True)]


def _added(whole: np.ndarray, bare: list[int]) -> np.ndarray:
    """bool[t]: tokens of `whole` in front of and behind the run that equals `bare`."""
    for start in range(len(whole) - len(bare) + 1):
        if np.array_equal(whole[start:start + len(bare)], bare):
            place = np.arange(len(whole))
            return (place < start) | (place >= start + len(bare))
    return np.zeros(len(whole), bool)


def _cut(ids: np.ndarray, template: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `length` tokens, except that template tokens at the end stay at the end."""
    inner = np.flatnonzero(~template)
    tail = len(ids) - (inner[-1] + 1)
    keep = np.concatenate([np.arange(length - tail), np.arange(len(ids) - tail, len(ids))])
    return ids[keep], template[keep]


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's table).

    Bytes that Latin-1 prints stand for themselves; the others take the characters from U+0100 on.
    """
    table, free = {}, 256
    for byte in range(256):
        printable = 33 <= byte <= 126 or (161 <= byte <= 255 and byte != 173)
        table[chr(byte) if printable else chr(free)] = byte
        free += not printable
    return table


def _decode(values: Iterable[int]) -> str:
    return bytes(values).decode("utf-8", "backslashreplace")


def pieces(tokenizer: Any, ids: Sequence[int], spaced: bool = False) -> list[str]:
    """Each token as a reader wants to see it: no word-boundary mark, bytes decoded.

    A part of a character shows its bytes as `\\xe4`; a piece of blanks only shows as "␣".

    Args:
        spaced: a piece that begins a word has a blank before it, so that joined pieces are the text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = "" if backend is None else repr(backend.decoder)
    byte_level, word_pieces = "ByteLevel" in decoder, "WordPiece" in decoder
    table = _byte_alphabet()
    special = set(tokenizer.all_special_tokens)
    result = []
    for token in tokenizer.convert_ids_to_tokens([int(i) for i in ids]):
        token = str(token)
        if token in special:
            result.append(token)
            continue
        if byte_level and all(character in table for character in token):
            token = _decode(table[character] for character in token)
        elif match := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token):  # SentencePiece's byte fallback
            token = _decode([int(match[1], 16)])
        else:
            begins = word_pieces and not token.startswith("##")
            token = " " * begins + token.replace("\u2581", " ").removeprefix("##")
        result.append(token if spaced else token.strip() or "␣")
    return result
