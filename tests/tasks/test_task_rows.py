"""Rows of tokens: marks, characters of tokens, what is cut."""

import sys
from pathlib import Path

import numpy as np
import pytest
from small_questions import tokenizer

from xlingjax.errors import InputError
from xlingjax.tasks.encoding import cut_to, joined, padded, read_marks, read_pieces, starts_of

sys.path.insert(0, str(Path(__file__).parents[1] / "corpora"))
import tokenizers_for_tests as tiny  # noqa: E402


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def test_marks_follow_the_template(words):
    ids = words.convert_tokens_to_ids
    assert read_marks(words) == ((ids("<s>"),), ids("</s>"))
    decoder = tokenizer("causal")
    assert read_marks(decoder) == ((ids("</s>"),), ids("</s>"))
    assert read_marks(tiny.bpe()) == ((0,), 1)
    with pytest.raises(InputError, match="no token that ends a text"):
        read_marks(tiny.unigram())
    with pytest.raises(InputError, match="no fast tokenizer"):
        read_marks(tiny.Letters())


def test_one_text_is_the_tokenizer_s_own_row(words):
    for text in ("The mill stands.", " two  blanks ", ""):
        [pieces] = read_pieces(words, [text])
        assert joined(read_marks(words), [pieces.ids]).tolist() == words(text)["input_ids"]


def test_spans_are_the_characters_without_blanks(words):
    text = " The  mill, 老\ud800 stands\n"
    [pieces] = read_pieces(words, [text])
    real = pieces.spans[pieces.spans[:, 0] < pieces.spans[:, 1]]
    assert {i for begin, end in real.tolist() for i in range(begin, end)} == {
        i for i, c in enumerate(text) if not c.isspace()}
    for begin, end in real.tolist():
        assert text[begin:end] == text[begin:end].strip() != ""


def test_text_that_spells_a_mark_stays_text(words):
    [pieces] = read_pieces(words, ["a </s> <mask> b"])
    assert not set(pieces.ids.tolist()) & set(words.all_special_ids)
    assert not words.backend_tokenizer.encode_special_tokens  # the caller's is as it was


def test_the_longer_text_is_cut():
    for lengths, room, kept in (([3, 10], 8, [3, 5]), ([10, 3], 8, [5, 3]), ([9, 10], 7, [3, 4]), ([0, 9], 4, [0, 4])):
        assert cut_to(lengths, room) == kept and sum(kept) <= room


def test_pairs_stand_between_marks():
    marks = read_marks(tiny.bpe())
    parts = [np.array([7, 8]), np.array([9])]
    row = joined(marks, parts)
    assert row.tolist() == [0, 7, 8, 1, 9, 1] and starts_of(marks, parts) == [1, 4]
    tokens, mask = padded([row, row[:2]], 7)
    assert tokens.tolist() == [[0, 7, 8, 1, 9, 1, 0], [0, 7, 0, 0, 0, 0, 0]] and mask.sum(1).tolist() == [6, 2]
