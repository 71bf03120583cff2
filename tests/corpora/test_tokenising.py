"""Tokenising: special tokens, cuts, hostile text (P21)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers_for_tests import Letters, bpe, unigram

from xlingjax.corpora import pieces, tokenise
from xlingjax.errors import InputError


@pytest.fixture(scope="module")
def byte_level():
    return bpe()


@pytest.fixture(scope="module")
def metaspace():
    return unigram()


def test_template_tokens_are_special_and_text_is_not(byte_level):
    tokens = tokenise(byte_level, ["the cat", "Katze"], 64)
    for ids, special in zip(tokens.ids, tokens.special, strict=True):
        assert ids.dtype == np.int32 and special.dtype == bool
        assert ids[0] == 0 and ids[-1] == 1
        assert special.tolist() == [True] + [False] * (len(ids) - 2) + [True]
    assert byte_level.decode(tokens.ids[0][1:-1]) == "the cat"
    assert tokens.real_lengths.tolist() == (tokens.lengths - 2).tolist()
    assert (tokens.truncated, tokens.empty, tokens.replaced, tokens.unknown) == (0, 0, 0, 0)


def test_spelled_special_token_is_special(byte_level):
    [ids], [special] = (lambda t: (t.ids, t.special))(tokenise(byte_level, ["the</s>cat"], 64))
    assert special[np.flatnonzero(ids == 1)].all() and (~special).sum() == len(ids) - 3


def test_unknown_token_is_real_and_counted(metaspace):
    tokens = tokenise(metaspace, ["the cat", "the ꙮ cat ꙮ"], 64)
    assert not any(special.any() for special in tokens.special)
    assert tokens.unknown == 2


def test_slow_tokenizer_equals_template():
    tokens = tokenise(Letters(), ["abz", "", "a" * 30], 10)
    assert tokens.ids[0].tolist() == [0, 3, 4, 2, 1]
    assert tokens.special[0].tolist() == [True, False, False, False, True]
    assert tokens.ids[1].tolist() == [0, 1] and tokens.special[1].all()
    assert tokens.ids[2].tolist() == [0] + [3] * 8 + [1]
    assert (tokens.truncated, tokens.empty, tokens.unknown) == (1, 1, 1)


def test_cut_keeps_the_ends(byte_level):
    text = "the cat sat on the mat " * 50
    whole = tokenise(byte_level, [text], 10_000).ids[0]
    cut = tokenise(byte_level, ["the", text, text], 12)
    assert cut.truncated == 2
    assert cut.ids[1].tolist() == whole[:11].tolist() + [1]
    assert cut.special[1].tolist() == [True] + [False] * 10 + [True]
    exact = tokenise(byte_level, [text], len(whole))
    assert exact.truncated == 0 and exact.ids[0].tolist() == whole.tolist()


def test_no_room_is_refused(byte_level):
    with pytest.raises(InputError, match="max_length 2 leaves no room.*at least 3"):
        tokenise(byte_level, ["the"], 2)
    with pytest.raises(InputError, match="text 1 is a NoneType"):
        tokenise(byte_level, ["the", None], 8)


HOSTILE = {
    "empty": "", "blank": " \t\n\u3000", "lone surrogate": "a\ud800b\udfff", "NUL": "a\0b",
    "right-to-left": "שלום \u202e abc مرحبا", "combining": "e" + "\u0301" * 500,
    "script": "𐎠𐎡𐎢 ꙮ 𞤀", "private": "\ue000\uffff\U0010ffff", "line ends": "a\r\n\u2028b\x0b\x0c",
    "specials": "<s></s><pad>" * 20,
}


@pytest.mark.promise
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("make", [bpe, unigram, Letters])
def test_hostile_text(make, name):
    text = HOSTILE[name]
    tokenizer = make()
    alone = tokenise(tokenizer, [text], 16)
    assert alone.lengths[0] <= 16
    assert alone.empty == int(alone.special[0].all())
    assert alone.replaced == int(name == "lone surrogate")
    beside = tokenise(tokenizer, ["the cat", text, "die Katze"], 16)
    assert beside.ids[1].tolist() == alone.ids[0].tolist()


@pytest.mark.promise
@pytest.mark.parametrize("make", [bpe, unigram])
@pytest.mark.parametrize("text", ["a" * 1_000_000, "the cat " * 125_000], ids=["no blank", "words"])
def test_million_characters(make, text):
    tokens = tokenise(make(), [text], 512)
    assert tokens.lengths.tolist() == [512] and tokens.truncated == 1


@pytest.mark.promise
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=()), max_size=40), max_size=6),
    st.integers(3, 20))
def test_any_text(texts, max_length):
    tokenizer = _shared()
    tokens = tokenise(tokenizer, texts, max_length)
    assert len(tokens) == len(texts)
    assert [len(special) for special in tokens.special] == tokens.lengths.tolist()
    assert (tokens.lengths <= max_length).all()
    assert tokens.empty == sum(length == 0 for length in tokens.real_lengths)
    assert tokens.replaced == sum(any("\ud800" <= c <= "\udfff" for c in text) for text in texts)
    for ids in tokens.ids:
        assert all(pieces(tokenizer, ids))


def _shared(cache=[]):  # noqa: B006 - one tokenizer for all examples
    return cache[0] if cache else cache.append(bpe()) or cache[0]


def test_pieces_are_readable(byte_level, metaspace):
    ids = tokenise(byte_level, ["the saß"], 64).ids[0]
    shown = pieces(byte_level, ids)
    assert shown[0] == "<s>" and shown[1] == "the" and shown[-1] == "</s>"
    assert "".join(shown[1:-1]) == "thesaß"
    half = byte_level.convert_tokens_to_ids("Ã")
    assert pieces(byte_level, [half]) == ["\\xc3"]
    assert pieces(byte_level, [byte_level.convert_tokens_to_ids("Ġ")]) == ["␣"]
    shown = pieces(metaspace, tokenise(metaspace, ["the cat"], 64).ids[0])
    assert "".join(shown).replace("␣", "") == "thecat"


def test_spaced_pieces_joined_are_the_text():
    import tiny_trace

    tokenizer = tiny_trace.model().tokenizer
    ids = tokenizer("the dogs see a cat", add_special_tokens=False)["input_ids"]
    assert "".join(pieces(tokenizer, ids, spaced=True)).strip() == "the dogs see a cat"
    assert "".join(pieces(tokenizer, ids)) == "thedogsseeacat"
