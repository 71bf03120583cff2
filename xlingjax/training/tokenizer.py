"""A subword tokenizer trained on a corpus: the same corpus gives the same bytes."""

import collections
import json
from collections.abc import Iterator

import numpy as np
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.training.languages import language_shares, readable

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
LEAST = len(SPECIAL) + len(BYTES) + 64
LONGEST = (
    16  # characters in a piece; keeps whole phrases of unspaced scripts from becoming one piece
)
MARKS = {"causal": "</s> $A", "masked": "<s> $A </s>"}  # as XGLM and as XLM-R do


def train_tokenizer(
    corpus: Corpus,
    vocabulary: int,
    *,
    temperature: float = 0.3,
    objective: str = "causal",
    seed: int = 0,
) -> PreTrainedTokenizerFast:
    """Byte-pair encoding over characters, rare characters as bytes, so that nothing is unknown.

    Pieces are characters and their merges (readable in every script), with "▁" for the space before
    a word; characters outside the alphabet (a third of the vocabulary, most frequent first) fall
    back to UTF-8 bytes. Languages are balanced by repeating or cutting their text to
    `language_shares(characters, temperature)`. BPE rather than unigram: its counts are integers and
    its ties ordered, so that training twice gives the same bytes; unigram sums floats in the order
    of the threads.

    Args:
        corpus: the text to train on; documents held out should not be in it.
        vocabulary: pieces in all, V, special tokens and 256 bytes included. Small corpora may give
        fewer.
        temperature: 1 = languages as they occur, 0 = all alike.
        objective: "causal" puts `</s>` before every text, "masked" `<s>` before and `</s>` after.
        seed: order in which texts are repeated or cut.

    Returns:
        A tokenizer whose `save_pretrained` folder loads offline.

    Raises:
        InputError: corpus without text, vocabulary too small.
    """
    if vocabulary < LEAST:
        raise InputError(
            f"a vocabulary of {vocabulary} is too small; it holds {len(SPECIAL)} special tokens, "
            "256 bytes "
            f"and at least 64 characters, so ask for {LEAST} or more"
        )
    if objective not in MARKS:
        raise InputError(f"unknown objective {objective!r}; it is one of {', '.join(MARKS)}")
    texts = _balanced(corpus, temperature, seed)
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    alphabet = _alphabet(texts, backend, (vocabulary - len(SPECIAL) - len(BYTES)) // 3)
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[*SPECIAL, *BYTES],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            max_token_length=LONGEST,
            min_frequency=2,
            show_progress=False,
        ),
    )
    backend = _bytes_as_pieces(backend)
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=MARKS[objective],
        special_tokens=[(mark, SPECIAL.index(mark)) for mark in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        clean_up_tokenization_spaces=False,
    )


def encode_texts(tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...]) -> list[np.ndarray]:
    """Ids of each text, int32, without special tokens; text that spells `</s>` stays text."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    encoded = backend.encode_batch_fast(
        [readable(text) for text in texts], add_special_tokens=False
    )
    return [np.array(encoding.ids, np.int32) for encoding in encoded]


def word_begins(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """bool[V]: the pieces that begin a word: with "▁" before them (ours, SentencePiece), or without "##" (WordPiece).

    >>> from tokenizers import Tokenizer, models
    >>> pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "dog": 1, "##s": 2}, unk_token="[UNK]"))
    >>> word_begins(PreTrainedTokenizerFast(tokenizer_object=pieces)).tolist()
    [True, True, False]
    """
    vocabulary = tokenizer.get_vocab()
    pieces = np.full(max(vocabulary.values()) + 1, "", object)
    for piece, number in vocabulary.items():
        pieces[number] = piece
    if any(piece.startswith("▁") for piece in vocabulary):
        special = set(tokenizer.all_special_tokens)
        return np.array([piece.startswith("▁") or piece in special for piece in pieces])
    return np.array([not piece.startswith("##") for piece in pieces])


def _balanced(corpus: Corpus, temperature: float, seed: int) -> list[str]:
    """Texts of all languages, each repeated or cut to its share of the corpus's characters."""
    by_language = []
    for language in corpus.language_names:
        rows = np.flatnonzero(corpus.languages == language)
        texts = [readable(corpus.texts[row]) for row in rows]
        by_language.append([text for text in texts if text.strip()])
    amounts = [sum(map(len, texts)) for texts in by_language]
    if not by_language or not any(amounts):
        raise InputError(f"corpus {corpus.name!r} has no text to train a tokenizer on")
    shares = language_shares(amounts, temperature)
    chosen = []
    for number, (texts, share) in enumerate(zip(by_language, shares)):
        order = np.random.default_rng([seed, 2, number]).permutation(len(texts))
        room = share * sum(amounts)
        for text in _cycle(texts, order):
            if room <= 0:
                break
            chosen.append(text)
            room -= len(text)
    return chosen


def _cycle(texts: list[str], order: np.ndarray) -> Iterator[str]:
    while True:
        for index in order:
            yield texts[index]


def _alphabet(texts: list[str], backend: Tokenizer, size: int) -> list[str]:
    """The most frequent characters after normalisation, ties by code point.

    Chosen here because the trainer cuts ties in the order of a randomly seeded hash table.
    """
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(backend.normalizer.normalize_str(text))
    counts["▁"] = sum(counts.values())
    for space in [character for character in counts if character.isspace()]:
        del counts[space]
    return sorted(sorted(counts), key=lambda character: -counts[character])[:size]


def _bytes_as_pieces(backend: Tokenizer) -> Tokenizer:
    """Takes the byte pieces off the list of special tokens, so that text spelling `<0x41>` stays
    text."""
    state = json.loads(backend.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if token["content"] in SPECIAL
    ]
    return Tokenizer.from_str(json.dumps(state))
