"""Replies of encoder-decoders equal Hugging Face's greedy ones; of LSTMs, those made token by token without a state."""

import jax
import numpy as np
import pytest
import torch
from test_pair import batch, build

from xlingjax.errors import InputError
from xlingjax.models.lstm import LstmConfig, LstmPair, forward_lstm_pair, init_lstm_pair, unembed_lstm
from xlingjax.models.pair import load_pair
from xlingjax.models.replying import reply

NEW = 12
CONFIG = LstmConfig(vocab_size=29, width=16, layers=2)


@pytest.fixture(scope="module")
def lstm() -> LstmPair:
    params = init_lstm_pair(CONFIG, jax.random.key(0))
    return LstmPair(jax.tree.map(lambda leaf: 3 * leaf, params), CONFIG, start=2)


def read():
    tokens, _, mask, _ = batch()
    return tokens % 29, mask


@pytest.mark.parametrize("name", ["blenderbot_small", pytest.param("blenderbot", marks=pytest.mark.slow)])
@pytest.mark.parametrize("ngram", [0, 3])
def test_greedy_replies_are_hugging_faces(name, ngram, tmp_path):
    theirs = build(name, tmp_path)
    with torch.no_grad():  # what favours one token everywhere goes, or a reply would be that token again and again
        for key, parameter in theirs.model.decoder.named_parameters():
            parameter.mul_(0 if key.endswith("bias") else 10 if "embed_positions" in key else 1)
    theirs.save_pretrained(tmp_path)
    theirs.generation_config.forced_eos_token_id = None
    tokens, _, mask, _ = batch()
    ours = load_pair(tmp_path)
    assert ours.start == 2
    # The second call's stop token is one that greedy replies reach.
    free = reply(ours, tokens, mask, max_new_tokens=NEW, stop=(), no_repeat_ngram=ngram)
    for stop in (96 + 1000, int(free.tokens[0, 8])):
        with torch.no_grad():
            wanted = theirs.generate(
                torch.tensor(tokens), attention_mask=torch.tensor(mask).long(), do_sample=False, num_beams=1,
                max_new_tokens=NEW, no_repeat_ngram_size=ngram, encoder_no_repeat_ngram_size=0, eos_token_id=stop,
                pad_token_id=stop, forced_eos_token_id=None).numpy()[:, 1:]
        found = reply(ours, tokens, mask, max_new_tokens=NEW, no_repeat_ngram=ngram, stop=(stop,))
        for row in range(2):
            length = int(found.lengths[row])
            np.testing.assert_array_equal(found.tokens[row, :length], wanted[row, :length])
            assert (wanted[row, length:] == stop).all()
    assert found.lengths[0] <= 9 and len(set(free.tokens.ravel().tolist())) > 3


def test_an_lstm_replies_as_it_would_without_a_state(lstm):
    tokens, mask = read()
    found = reply(lstm, tokens, mask, max_new_tokens=6, stop=())
    whole = jax.jit(lambda written, real: unembed_lstm(lstm.params, forward_lstm_pair(
        lstm.params, CONFIG, tokens, mask, written, real)))
    written = np.full((2, 7), lstm.start)
    for count in range(1, 7):
        logits = np.asarray(whole(written, np.broadcast_to(np.arange(7) < count, (2, 7))))
        written[:, count] = logits[:, count - 1].argmax(-1)
    np.testing.assert_array_equal(found.tokens, written[:, 1:])
    alone = reply(lstm, tokens[1:, :12], mask[1:, :12], max_new_tokens=6, stop=())
    np.testing.assert_array_equal(alone.tokens[0], found.tokens[1])


def test_draws_obey_their_filters_and_their_seeds(lstm):
    tokens, mask = read()
    settings = {"max_new_tokens": 20, "temperature": 1.5, "stop": ()}
    first = reply(lstm, tokens, mask, seeds=[3, 4], **settings)
    other = reply(lstm, tokens[::-1], mask[::-1], seeds=[4, 3], **settings)
    np.testing.assert_array_equal(first.tokens, other.tokens[::-1])
    assert (first.tokens != reply(lstm, tokens, mask, seeds=[5, 6], **settings).tokens).any()
    np.testing.assert_array_equal(reply(lstm, tokens, mask, top_k=1, **settings).tokens,
                                  reply(lstm, tokens, mask, max_new_tokens=20, stop=()).tokens)
    kept = reply(lstm, tokens, mask, no_repeat_ngram=3, **settings).tokens
    for row in kept.tolist():
        grams = [tuple(row[i:i + 3]) for i in range(18)]
        assert len(set(grams)) == 18


def test_what_cannot_be_answered_is_named(lstm, tmp_path):
    tokens, mask = read()
    with pytest.raises(InputError, match="row 1 has no token to answer"):
        reply(lstm, tokens, mask & np.array([[True], [False]]))
    with pytest.raises(InputError, match="outside the vocabulary of 29"):
        reply(lstm, tokens + 29, mask)
    with pytest.raises(InputError, match="3 seeds for 2 rows"):
        reply(lstm, tokens, mask, seeds=[1, 2, 3])
    with pytest.raises(InputError, match="top_p is 0"):
        reply(lstm, tokens, mask, top_p=0)
    build("blenderbot_small", tmp_path)
    with pytest.raises(InputError, match="the decoder has 50 positions"):
        reply(load_pair(tmp_path), tokens, mask, max_new_tokens=50)
