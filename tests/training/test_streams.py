"""Streams: batches from seed and step alone, one language a row, nothing left out and nothing
leaked."""

import numpy as np
import pytest
from tiny_run import corpus

from xlingjax.errors import InputError
from xlingjax.training.languages import hold_out, language_shares
from xlingjax.training.streams import Stream, held_rows, leave_out, token_texts
from xlingjax.training.tokenizer import SPECIAL, encode_texts, train_tokenizer

EOS = SPECIAL.index("</s>")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(corpus(), 400)


def stream(tokenizer, text=None, seed=0, temperature=0.5, rows=8, length=16) -> Stream:
    text = corpus() if text is None else text
    return Stream(token_texts(text, tokenizer, length), rows, length, EOS, temperature, seed)


@pytest.mark.promise
def test_a_batch_depends_on_seed_and_step_alone(tokenizer):
    one, two = stream(tokenizer), stream(tokenizer)
    in_order = [one.batch(step)[0] for step in range(1, 9)]
    backwards = [two.batch(step)[0] for step in range(8, 0, -1)][::-1]
    np.testing.assert_array_equal(in_order, backwards)
    assert not np.array_equal(in_order[0], in_order[1])
    assert not np.array_equal(in_order[0], stream(tokenizer, seed=1).batch(1)[0])


def test_rows_are_text_of_one_language_in_order(tokenizer):
    text = corpus()
    joined = {}
    for language, found in token_texts(text, tokenizer, 16).items():
        joined[language] = found.tokens.tolist() * 3
        rows = text.language(language)
        ids = encode_texts(tokenizer, rows.texts)
        expected, last = [], None
        for document, sentence in zip(rows.documents, ids):
            expected += ([EOS] if document != last else []) + sentence.tolist()
            last = document
        assert found.tokens.tolist() == expected
    source = stream(tokenizer)
    for step in range(20):
        tokens, languages = source.batch(step)
        assert (tokens[:, 0] == EOS).all()
        for row, language in zip(tokens, languages):
            inside = ",".join(map(str, row[1:].tolist()))
            assert inside in ",".join(map(str, joined[source.languages[language]]))


def test_documents_that_lie_apart_are_joined_again(tokenizer):
    text = corpus()
    shuffled = text.rows(np.random.default_rng(0).permutation(len(text)))
    for language, found in token_texts(shuffled, tokenizer, 16).items():
        assert (found.tokens == EOS).sum() == len(set(shuffled.language(language).documents))


def test_every_token_is_reached_also_in_long_sentences(tokenizer):
    text = corpus(documents=6)
    text = type(text)(
        (" ".join(text.texts[:20]), *text.texts[1:]),
        text.languages,
        text.documents,
        text.parallel,
        text.labels,
    )
    found = token_texts(text, tokenizer, 16)["lat"]
    source = Stream({"lat": found}, 8, 16, EOS, 0.5, 0)
    numbered = type(found)(
        np.arange(len(found.tokens), dtype=np.int32), found.starts, 1, found.real
    )
    source._texts = (numbered,)
    seen = np.unique(np.concatenate([source.batch(step)[0][:, 1:].ravel() for step in range(200)]))
    np.testing.assert_array_equal(seen, np.arange(len(found.tokens)))


def test_languages_are_drawn_by_temperature(tokenizer):
    for temperature in (0.0, 0.5, 1.0):
        source = stream(tokenizer, temperature=temperature)
        drawn = np.concatenate([source.batch(step)[1] for step in range(500)])
        share = np.bincount(drawn, minlength=4) / len(drawn)
        np.testing.assert_allclose(share, source.shares, atol=0.035)  # 4 sd of 4,000 draws
    np.testing.assert_allclose(language_shares([8, 1], 1 / 3), [2 / 3, 1 / 3])


@pytest.mark.promise
def test_a_language_left_out_never_occurs(tokenizer):
    source = stream(tokenizer, leave_out(corpus(), ["arm"]))
    assert source.languages == ("lat", "cyr", "gre")
    forbidden = set(
        np.concatenate(encode_texts(tokenizer, corpus().language("arm").texts)).tolist()
    )
    forbidden -= set(
        np.concatenate(encode_texts(tokenizer, leave_out(corpus(), ["arm"]).texts)).tolist()
    )
    assert len(forbidden) > 10
    for step in range(100):
        assert not forbidden & set(source.batch(step)[0].ravel().tolist())
    with pytest.raises(InputError, match="'xxx', to be left out, is not in corpus"):
        leave_out(corpus(), ["xxx"])
    with pytest.raises(InputError, match="every language"):
        leave_out(corpus(), corpus().language_names)


@pytest.mark.promise
def test_held_out_documents_leave_in_all_languages():
    text = corpus(documents=40)
    kept, held = hold_out(text, 0.1, seed=0)
    assert not set(kept.documents) & set(held.documents)
    assert len(kept) + len(held) == len(text)
    for language in text.language_names:
        share = (held.languages == language).sum() / (text.languages == language).sum()
        assert 0.05 < share < 0.35
    again = hold_out(text, 0.1, seed=0)[1]
    assert again.fingerprint == held.fingerprint
    assert hold_out(text, 0.1, seed=1)[1].fingerprint != held.fingerprint


def test_a_language_of_one_document_stays_in_training():
    text = corpus(documents=1, languages=("lat",))
    kept, held = hold_out(text, 0.1, seed=0)
    assert len(held) == 0 and len(kept) == len(text)


def test_held_rows_cover_the_text_once(tokenizer):
    texts = token_texts(corpus(), tokenizer, 16)
    held = held_rows(texts, 8, 16, EOS, 1, most=10**9)
    for number, text in enumerate(texts.values()):
        mine = held.rows == number
        inside = held.mask[mine].copy()
        inside[:, 0] = False
        np.testing.assert_array_equal(held.tokens[mine][inside], text.tokens)
    assert not held.mask[held.rows < 0].any() and (held.tokens[~held.mask] == 1).all()
    short = held_rows(texts, 8, 16, EOS, 1, most=20)
    assert short.mask[..., 1:].sum() == 20 * len(texts)


def test_what_cannot_be_sampled_is_refused(tokenizer):
    for temperature in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="temperature"):
            language_shares([1, 2], temperature)
    with pytest.raises(InputError, match="no text"):
        language_shares([1, 0], 0.5)
    with pytest.raises(InputError, match="too small"):
        stream(tokenizer, rows=0)
    with pytest.raises(InputError, match="held-out share"):
        hold_out(corpus(), 1.0, 0)
