"""Whole words and spans are hidden whole, about as many tokens as asked for; single tokens as before."""

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from xlingjax.errors import InputError
from xlingjax.training.objectives import Objective, hide_tokens
from xlingjax.training.tokenizer import train_tokenizer, word_begins

VOCABULARY = 45
BEGINS = np.arange(VOCABULARY) % 2 == 1  # of the ordinary tokens 5..44, odd ones begin a word


def rows(count=400, length=40):
    random = np.random.default_rng(0)
    tokens = random.integers(5, VOCABULARY, (count, length)).astype(np.int32)
    tokens[:, 0] = 0
    tokens[:, 20] = 2
    return tokens, np.arange(length)[None] < random.integers(10, length + 1, count)[:, None]


def hidden(unit, share=0.3):
    tokens, mask = rows()
    objective = Objective("masked", 4, 5, share, unit, span=4.0)
    begins = jax.numpy.asarray(BEGINS)
    hide = jax.jit(lambda key, tokens, mask: hide_tokens(key, tokens, mask, objective, VOCABULARY, begins))
    shown, positions, counted = (np.array(x) for x in hide(jax.random.key(3), tokens, mask))
    chosen = np.zeros(tokens.shape, bool)
    np.put_along_axis(chosen, positions, counted, 1)
    assert (shown == np.where(chosen, shown, tokens)).all(), "what is not chosen stays"
    assert chosen.sum() == counted.sum() and not (chosen & ~mask).any() and not (chosen & (tokens < 5)).any()
    return tokens, mask, chosen, shown


def test_words_are_hidden_whole():
    tokens, mask, chosen, _ = hidden("word")
    ordinary = mask & (tokens >= 5)
    broken, some = 0, 0
    for row in range(len(tokens)):
        starts = [t for t in range(40) if ordinary[row, t]
                  and (BEGINS[tokens[row, t]] or not ordinary[row, t - 1])]
        ends = [*starts[1:], 40]
        wanted = int(0.3 * ordinary[row].sum() + 0.5)
        words = [[t for t in range(a, b) if ordinary[row, t]] for a, b in zip(starts, ends)]
        parts = [chosen[row, word] for word in words]
        partly = [part for part in parts if part.any() and not part.all()]
        some += any(part.any() for part in parts)
        assert chosen[row].sum() <= wanted
        assert not partly or (len(partly) == 1 and sum(part.any() for part in parts) == 1), "only a lone word is cut"
        broken += bool(partly)
    assert some == len(tokens) and broken < 0.15 * len(tokens)
    share = chosen.sum() / ordinary.sum()
    assert 0.2 < share <= 0.3, share


def test_spans_have_about_the_length_asked_for():
    tokens, mask, chosen, _ = hidden("span", 0.4)
    ordinary = mask & (tokens >= 5)
    runs = (chosen & ~np.pad(chosen, ((0, 0), (1, 0)))[:, :-1]).sum()
    assert chosen.sum() / runs > 2.0, "tokens hidden one by one have runs of 1.4 at this share"
    alone = hidden("token", 0.4)[2]
    assert alone.sum() / (alone & ~np.pad(alone, ((0, 0), (1, 0)))[:, :-1]).sum() < 1.8
    assert 0.28 < chosen.sum() / ordinary.sum() <= 0.4


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_of_ten_hidden_tokens_eight_are_masked(unit):
    tokens, _, chosen, shown = hidden(unit)
    kinds = shown[chosen]
    assert abs((kinds == 4).mean() - 0.8) < 0.03
    assert 0.07 < ((kinds != 4) & (kinds != tokens[chosen])).mean() < 0.13


def test_which_pieces_begin_words(tmp_path):
    from tiny_run import corpus

    tokenizer = train_tokenizer(corpus(languages=("lat",)), 400, objective="masked")
    begins = word_begins(tokenizer)
    text = corpus(languages=("lat",)).texts[0]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert begins[ids].sum() == len(text.split())
    assert begins[tokenizer.all_special_ids].all()
    wordpiece = Tokenizer(models.WordPiece({"[UNK]": 0, "dog": 1, "##s": 2}, unk_token="[UNK]"))
    assert word_begins(PreTrainedTokenizerFast(tokenizer_object=wordpiece)).tolist() == [True, True, False]


def test_what_means_nothing_is_refused():
    for options, message in [({"unit": "letter"}, "unknown unit 'letter'"), ({"share": 1.0}, "share 1.0"),
                             ({"span": 0.5}, "span 0.5")]:
        with pytest.raises(InputError, match=message):
            Objective("masked", 4, 5, **options)
    with pytest.raises(InputError, match="nothing says which tokens begin one"):
        hide_tokens(jax.random.key(0), *rows(2), Objective("masked", 4, 5, unit="word"), VOCABULARY)
