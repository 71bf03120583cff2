"""Prompts: examples come from other documents, the answer is not given, and what is too long is refused."""

import dataclasses

import numpy as np
import pytest

from xlingjax.corpora import mini_world
from xlingjax.corpora.prompts import STOP, continuations, few_shot, language_name, require_room
from xlingjax.errors import InputError
from xlingjax.training.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def corpus():
    return mini_world(languages=("eng", "rus", "fin"), sentences=80)


@pytest.mark.promise
def test_examples_are_of_other_documents_and_translations(corpus) -> None:
    prompts = few_shot(corpus, "rus", "fin", shots=5, count=40, seed=3)
    assert len(prompts) == 40 and prompts.shots.shape == (40, 5) and set(prompts.languages) == {"fin"}
    source = {corpus.parallel[i]: corpus.texts[i] for i in np.flatnonzero(corpus.languages == "rus")}
    for i in range(40):
        row, shots = prompts.rows[i], prompts.shots[i]
        assert corpus.documents[row] not in corpus.documents[shots] and prompts.documents[i] == corpus.documents[row]
        assert len(set(corpus.documents[shots].tolist())) == 5, "one of a document, as long as there are enough"
        wanted = "".join(f"Russian: {source[corpus.parallel[one]]}\nFinnish: {corpus.texts[one]}\n\n" for one in shots)
        assert prompts.texts[i] == wanted + f"Russian: {source[corpus.parallel[row]]}\nFinnish:"
        assert prompts.references[i] == corpus.texts[row] and STOP == "\n"
    assert len(set(prompts.rows.tolist())) == 40


def test_the_seed_decides_and_more_prompts_keep_the_first(corpus) -> None:
    some, more = (few_shot(corpus, "eng", "rus", shots=2, count=count) for count in (5, 9))
    assert more.texts[:5] == some.texts == few_shot(corpus, "eng", "rus", shots=2, count=5).texts
    assert few_shot(corpus, "eng", "rus", shots=2, count=5, seed=1).texts != some.texts


def test_only_the_documents_that_may_be_asked_are(corpus) -> None:
    asked = set(corpus.documents[:8].tolist())
    prompts = few_shot(corpus, "eng", "rus", shots=2, count=50, asked=asked)
    assert len(prompts) == 8 and set(prompts.documents) == asked
    begun = continuations(corpus, words=2, count=50, asked=asked)
    assert set(begun.documents) <= asked and len(begun) <= 24


def test_continuations_are_the_beginnings_of_the_same_sentences(corpus) -> None:
    prompts = continuations(corpus, words=3, count=6, seed=1)
    assert [int((prompts.languages == name).sum()) for name in corpus.language_names] == [6, 6, 6]
    for text, rest, row in zip(prompts.texts, prompts.references, prompts.rows):
        assert text + rest == corpus.texts[row] and len(text.split()) == 3 and len(rest.split()) >= 2
    shared = [set(corpus.parallel[prompts.rows[prompts.languages == name]].tolist()) for name in ("eng", "rus")]
    assert len(shared[0] & shared[1]) >= 3, "translations, as far as both are long enough"


def test_room(corpus) -> None:
    tokenizer = train_tokenizer(mini_world("train", sentences=60, languages=("eng", "rus")), 400)
    prompts = few_shot(corpus, "eng", "rus", shots=3, count=4)
    longest = require_room(prompts, tokenizer, None, 20)
    assert longest == max(len(tokenizer(text)["input_ids"]) for text in prompts.texts)
    assert require_room(prompts, tokenizer, longest + 20, 20) == longest
    with pytest.raises(InputError, match=f"the longest of {longest} tokens, leave no room for 20 new ones"):
        require_room(prompts, tokenizer, longest + 19, 20)


def test_real_parallel_text(data) -> None:
    from xlingjax.corpora import read_conllu, read_sib200

    pud = read_conllu(data / "pud", concepts=(), languages=("eng", "deu"), parallel=True)
    sib = read_sib200(data / "sib200.tsv.xz", ("eng_Latn", "hin_Deva"))
    for found, pair, name in ((pud, ("eng", "deu"), "German"), (sib, ("eng_Latn", "hin_Deva"), "Hindi")):
        prompts = few_shot(found, *pair, shots=3, count=5)
        assert all(text.startswith("English: ") and text.endswith(f"{name}:") for text in prompts.texts)
        assert all(text.count(STOP) == 10 for text in prompts.texts)


@pytest.mark.parametrize(("call", "says"), [
    (lambda c: few_shot(c, "eng", "xxx"), "'xxx' has no name here"),
    (lambda c: few_shot(c, "eng", "deu"), "'deu' is not in corpus"),
    (lambda c: few_shot(c, "eng", "rus", shots=0), "0 examples"),
    (lambda c: few_shot(c, "eng", "rus", shots=78), "only 76 translations lie outside"),
    (lambda c: few_shot(c, "eng", "rus", shots=200), "201 are needed"),
    (lambda c: few_shot(c, "eng", "rus", asked=["nothing"]), "may be asked has a translation"),
    (lambda c: continuations(c, words=30), "'eng' has no sentence of 32 words"),
    (lambda c: continuations(c, words=0), "0 words")])
def test_what_cannot_be_asked_is_named(corpus, call, says) -> None:
    with pytest.raises(InputError, match=says):
        call(corpus)
    assert language_name("eng") == "English"


def test_breaks_within_a_sentence_do_not_break_a_prompt(corpus) -> None:
    broken = dataclasses.replace(corpus, texts=tuple(text.replace(" ", "\n", 1) for text in corpus.texts))
    assert few_shot(broken, "eng", "rus").texts == few_shot(corpus, "eng", "rus").texts
