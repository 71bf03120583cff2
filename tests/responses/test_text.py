"""From texts to responses: the tokenizer is part of the experiment, hostile text is harmless."""

import dataclasses

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.responses import collect, plan

WORDS = ["<unk>", "<s>", "the", "sun", "rises", "die", "Sonne", "geht", "auf", "."]


def tokenizer(words=WORDS):
    backend = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>")


def corpus(*texts):
    count = len(texts)
    languages = np.array(["eng", "deu"] * count)[:count]
    documents, parallel = np.arange(count).astype(str), np.array([""] * count)
    return Corpus(texts, languages, documents, parallel, np.zeros((count, 0), np.int8))


TEXTS = ("the sun rises .", "die Sonne geht auf .", "", "   ", "<s>", "\x00 \ud800", "the " * 5000)


@pytest.fixture(scope="module")
def model():
    return dataclasses.replace(tiny.model(), tokenizer=tokenizer())


@pytest.mark.promise
def test_hostile_text(model):
    responses = collect(model, corpus(*TEXTS), ("mlp.up",), max_length=50)
    assert responses.pieces.tolist()[:5] == [4, 5, 0, 0, 0] and responses.pieces[6] == 50
    assert responses.attrs["empty"] == [2, 3, 4] and responses.attrs["truncated"] == 1
    assert responses.attrs["replaced"] == 1 and responses.attrs["nonfinite"] == {}
    assert (
        np.isnan(responses.matrix()).all(axis=1).tolist() == [False] * 2 + [True] * 3 + [False] * 2
    )
    assert "1 cut to the context, 3 without a counted token" in str(
        plan(model, corpus(*TEXTS), max_length=50, measure="nothing")
    )


def test_pieces_left_out_in_one_language(model):
    ids = model.tokenizer.convert_tokens_to_ids(["."])
    responses = collect(model, corpus(*TEXTS[:2]), where={"leave_out": {"deu": np.array(ids)}})
    assert responses.pieces.tolist() == [4, 4]
    assert responses.attrs["where"]["leave_out"] == {"deu": 1}


@pytest.mark.promise
def test_another_tokenizer_or_text_is_refused(model, tmp_path):
    texts = corpus(*TEXTS[:2])
    collect(model, texts, workdir=tmp_path)
    model.tokenizer(
        ["padded to eight"], padding=False, truncation=True, max_length=8
    )  # changes no rule
    collect(model, texts, workdir=tmp_path)
    swapped = tokenizer([*WORDS[:8], ".", "auf"])
    with pytest.raises(InputError, match="tokenizer was '[0-9a-f]{64}' and is"):
        collect(dataclasses.replace(model, tokenizer=swapped), texts, workdir=tmp_path)
    with pytest.raises(InputError, match="corpus was '[0-9a-f]{64}' and is"):
        collect(model, corpus("the sun rises .", "die Sonne geht auf"), workdir=tmp_path)


def test_a_tokenizer_that_does_not_fit_is_refused(model):
    large = tokenizer([*WORDS, *map(str, range(100))])
    with pytest.raises(InputError, match="gives token 109, but tiny-0 knows 67 tokens"):
        collect(dataclasses.replace(model, tokenizer=large), corpus("the sun 99"))
