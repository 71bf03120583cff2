"""The tokenizer: same bytes every time, nothing unknown, special tokens only where they belong."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_run import LETTERS, corpus
from transformers import AutoTokenizer

from xlingjax.errors import InputError
from xlingjax.training.tokenizer import SPECIAL, encode_texts, train_tokenizer

HASH = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tiny_run import corpus; import hashlib;"
    "from xlingjax.training.tokenizer import train_tokenizer;"
    "print(hashlib.sha256(train_tokenizer(corpus(), "
    "400).backend_tokenizer.to_str().encode()).hexdigest())"
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(corpus(), 400)


@pytest.mark.promise
def test_another_process_with_other_threads_trains_the_same_bytes(tokenizer):
    here = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    for threads in ("1", "4"):
        environment = os.environ | {
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
            "PYTHONHASHSEED": threads,
            "PYTHONPATH": os.getcwd(),
        }
        there = subprocess.run(
            [sys.executable, "-c", HASH, str(Path(__file__).parent)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        assert there == here


@pytest.mark.parametrize(
    "text",
    [
        "abc def",
        "κλμ, абв! 2024",
        "emoji 🦄 and 漢字",
        "a<0x41>b",
        "two  spaces",
        "cafe\u0301 ﷺ \u200f",
        "x" * 5000,
    ],
)
def test_every_text_survives_encoding_and_decoding(tokenizer, text):
    import unicodedata

    ids = encode_texts(tokenizer, (text,))[0]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids.tolist()) == unicodedata.normalize("NFC", text)


def test_text_that_spells_a_special_token_stays_text(tokenizer):
    ids = encode_texts(tokenizer, ("a </s> b <mask> <s>",))[0]
    assert ids.min() >= len(SPECIAL)


def test_lone_surrogates_become_replacement_characters(tokenizer):
    assert tokenizer.decode(encode_texts(tokenizer, ("a\ud800b",))[0].tolist()) == "a\ufffdb"


def test_marks_follow_the_objective():
    ids = train_tokenizer(corpus(), 400)("abc").input_ids
    assert ids[0] == SPECIAL.index("</s>") and ids[-1] >= len(SPECIAL)
    ids = train_tokenizer(corpus(), 400, objective="masked")("abc").input_ids
    assert (ids[0], ids[-1]) == (SPECIAL.index("<s>"), SPECIAL.index("</s>"))


def test_saved_folder_loads_offline(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "abc абв 🦄 12"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert [loaded.convert_tokens_to_ids(token) for token in SPECIAL] == list(range(len(SPECIAL)))
    assert loaded.all_special_ids and set(loaded.all_special_ids) == set(range(len(SPECIAL)))


def test_low_temperature_gives_small_languages_more_pieces():
    text = corpus(documents=120)
    rows = np.concatenate(
        [np.flatnonzero(text.languages == "lat"), np.flatnonzero(text.languages == "arm")[:12]]
    )
    text = text.rows(rows)

    def pieces(temperature: float) -> int:
        vocabulary = train_tokenizer(text, 440, temperature=temperature).get_vocab()
        return sum(
            len(piece) > 1 and set(piece) <= set(LETTERS["arm"] + "▁") for piece in vocabulary
        )

    assert pieces(0.0) > 1.5 * pieces(1.0)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(InputError, match="vocabulary of 300 is too small"):
        train_tokenizer(corpus(), 300)
    with pytest.raises(InputError, match="no text"):
        train_tokenizer(corpus().rows(np.zeros(0, int)), 400)
    with pytest.raises(InputError, match="objective 'prefix'"):
        train_tokenizer(corpus(), 400, objective="prefix")
