"""Text as rows of tokens: batches that depend on the seed and the step alone."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.training.languages import language_shares
from xlingjax.training.tokenizer import encode_texts


@dataclasses.dataclass(frozen=True, eq=False)
class TokenText:
    """One language's documents in a row, `</s>` before each.

    Attributes:
        tokens: int32[n].
        starts: int64[m], positions where a row may begin: every sentence, and inside sentences
        longer
            than half a row every half row, so that no token is out of reach.
        characters: in the n tokens.
        real: tokens that are text, n without the `</s>`.
    """

    tokens: np.ndarray
    starts: np.ndarray
    characters: int
    real: int


def token_texts(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, length: int
) -> dict[str, TokenText]:
    """Encodes a corpus language by language, documents in their order, no document across
    languages."""
    encoded = encode_texts(tokenizer, corpus.texts)
    eos = np.array([tokenizer.eos_token_id], np.int32)
    half = max(1, (length - 1) // 2)
    found = {}
    for language in corpus.language_names:
        rows = np.flatnonzero(corpus.languages == language)
        order = {
            name: place for place, name in enumerate(dict.fromkeys(corpus.documents[rows].tolist()))
        }
        rows = np.array(sorted(rows, key=lambda row: order[str(corpus.documents[row])]))
        pieces: list[np.ndarray] = []
        starts: list[int] = []
        at, previous = 0, None
        for row in rows:
            if corpus.documents[row] != previous:
                previous = corpus.documents[row]
                pieces.append(eos)
                at += 1
            ids = encoded[row]
            starts.extend(range(at, at + max(len(ids), 1), half))
            pieces.append(ids)
            at += len(ids)
        real = sum(len(encoded[row]) for row in rows)
        if real:
            found[language] = TokenText(
                np.concatenate(pieces),
                np.unique(np.minimum(starts, at - 1)),
                sum(len(corpus.texts[row]) for row in rows),
                real,
            )
    return found


class Stream:
    """Endless training batches of several languages.

    A row is a mark (`</s>` or `<s>`) and `length - 1` tokens of one language from a random place
    on, so every training row begins as an evaluated sentence does. Batch n is drawn from (seed, n)
    alone: nothing is replayed on resume and no position is saved.

    Args:
        texts: language -> its tokens.
        rows, length: B and T.
        mark: id of the token that begins every row.
        temperature: languages are drawn with `language_shares(tokens, temperature)`.
        seed: of the draws.
    """

    def __init__(
        self,
        texts: dict[str, TokenText],
        rows: int,
        length: int,
        mark: int,
        temperature: float,
        seed: int,
    ) -> None:
        if not texts:
            raise InputError("no training language has any text")
        if rows < 1 or length < 8:
            raise InputError(
                f"a batch of {rows} rows of {length} tokens is too small; take 1 row of 8 or more"
            )
        self.languages = tuple(texts)
        self.shares = language_shares([text.real for text in texts.values()], temperature)
        self.rows, self.length, self.mark, self.seed = rows, length, mark, seed
        self.available = sum(text.real for text in texts.values())
        self._texts = tuple(texts.values())

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch of a step: tokens int32[B, T] and the language index of each row, int[B]."""
        random = np.random.default_rng([self.seed, 3, step])
        languages = random.choice(len(self.languages), size=self.rows, p=self.shares)
        tokens = np.empty((self.rows, self.length), np.int32)
        tokens[:, 0] = self.mark
        for row, language in enumerate(languages):
            text = self._texts[language]
            drawn = random.integers(len(text.tokens))
            place = max(int(np.searchsorted(text.starts, drawn, "right")) - 1, 0)
            span = (text.starts[place] + np.arange(self.length - 1)) % len(text.tokens)
            tokens[row, 1:] = text.tokens[span]
        return tokens, languages


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """Held-out text cut into rows without overlap.

    Attributes:
        tokens: int32[n, B, T].
        mask: bool[n, B, T], True = real token.
        rows: int[n, B], language index of each row, -1 = filler.
        languages: the names behind the indices.
        tokens_per_character: of each language.
    """

    tokens: np.ndarray
    mask: np.ndarray
    rows: np.ndarray
    languages: tuple[str, ...]
    tokens_per_character: np.ndarray


def held_rows(
    texts: dict[str, TokenText], rows: int, length: int, mark: int, pad: int, most: int
) -> Held:
    """Cuts each language's first `most` tokens into rows for evaluation."""
    spans: list[tuple[int, np.ndarray]] = []
    for number, text in enumerate(texts.values()):
        tokens = text.tokens[:most]
        for start in range(0, len(tokens), length - 1):
            spans.append((number, tokens[start : start + length - 1]))
    batches = -(-len(spans) // rows)
    tokens = np.full((batches * rows, length), pad, np.int32)
    mask = np.zeros(tokens.shape, bool)
    owner = np.full(batches * rows, -1)
    for row, (number, span) in enumerate(spans):
        tokens[row, 0], tokens[row, 1 : len(span) + 1] = mark, span
        mask[row, : len(span) + 1] = True
        owner[row] = number
    shape = (batches, rows)
    density = [text.real / text.characters for text in texts.values()]
    return Held(
        tokens.reshape(*shape, length),
        mask.reshape(*shape, length),
        owner.reshape(shape),
        tuple(texts),
        np.array(density),
    )


def leave_out(corpus: Corpus, languages: Sequence[str]) -> Corpus:
    """The corpus without some languages; an unknown name is an `InputError`."""
    for language in languages:
        if language not in corpus.language_names:
            raise InputError(
                f"language {language!r}, to be left out, is not in corpus {corpus.name!r}; "
                f"it has {', '.join(corpus.language_names)}"
            )
    kept = ~np.isin(corpus.languages, list(languages))
    if not kept.any():
        raise InputError(
            f"every language of corpus {corpus.name!r} is left out; nothing to train on"
        )
    return corpus.rows(kept)
