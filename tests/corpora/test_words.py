"""Words of treebanks, and the tokens that write them."""

import numpy as np
import pytest

from xlingjax.corpora.tokenising import tokenise
from xlingjax.corpora.words import read_words, word_positions
from xlingjax.corpora.world import mini_world
from xlingjax.errors import InputError
from xlingjax.training.tokenizer import train_tokenizer

BANK = """# newdoc id = d1
# sent_id = 1
# text = Vamos del parque (ya) al mar.
1\tVamos\tir\tVERB\t_\tNumber=Plur|Tense=Pres\t0\troot\t_\t_
2-3\tdel\t_\t_\t_\t_\t_\t_\t_\t_
2\tde\tde\tADP\t_\t_\t4\tcase\t_\t_
3\tel\tel\tDET\t_\tGender=Fem,Masc|Number=Sing\t4\tdet\t_\t_
4\tparque\tparque\tNOUN\t_\tGender=Masc|Number=Sing\t1\tobl:loc\t_\t_
5\t(\t(\tPUNCT\t_\t_\t6\tpunct\t_\t_
6\tya\tya\tADV\t_\t_\t1\tadvmod\t_\t_
7\t)\t)\tPUNCT\t_\t_\t6\tpunct\t_\t_
8-9\tal\t_\t_\t_\t_\t_\t_\t_\t_
8\ta\ta\tADP\t_\t_\t10\tcase\t_\t_
9\tel\tel\tDET\t_\t_\t10\tdet\t_\t_
10\tmar\tmar\tNOUN\t_\tGender=Fem,Masc|Number=Sing\t1\tobl\t_\t_
11\t.\t.\tPUNCT\t_\t_\t1\tpunct\t_\t_

# sent_id = 2
# text = Otra cosa
1\tDistinta\tdistinta\tDET\t_\tNumber=Sing\t2\tdet\t_\t_
2\tcosa\tcosa\tNOUN\t_\tGender=Fem|Number=Sing\t0\troot\t_\t_

"""


@pytest.fixture
def bank(tmp_path):
    (tmp_path / "spa.conllu").write_text(BANK, encoding="utf-8")
    return read_words(tmp_path, ["upos", "Gender", "Number", "order:obl"])


def test_words_that_stand_alone_are_placed_and_labelled(bank) -> None:
    at = {bank.form[i]: i for i in range(len(bank.form))}
    assert list(at) == ["vamos", "parque", "(", "ya", ")", "mar", "."], "no part of del and al, nor what is not there"
    for form, i in at.items():
        start, end = bank.span[i]
        assert bank.texts[bank.row[i]][start:end].lower() == form
    of = lambda task: {form: str(bank.labels[task][i]) for form, i in at.items() if bank.labels[task][i]}
    assert of("upos")["mar"] == "NOUN" and of("upos")["("] == "PUNCT"
    assert of("Gender") == {"parque": "Masc"}, "of two alternatives none is known"
    assert of("Number") == {"vamos": "Plur", "parque": "Sing", "mar": "Sing"}
    assert of("order:obl") == {"parque": "after", "mar": "after"}
    assert bank.documents.tolist() == ["d1", "d1"] and bank.languages.tolist() == ["spa", "spa"]


def test_the_fingerprint_is_of_all_that_is_read(bank, tmp_path) -> None:
    same = read_words(tmp_path, ["upos", "Gender", "Number", "order:obl"])
    assert same.fingerprint == bank.fingerprint
    (tmp_path / "spa.conllu").write_text(BANK.replace("\tADV\t", "\tPART\t"), encoding="utf-8")
    assert read_words(tmp_path, ["upos", "Gender", "Number", "order:obl"]).fingerprint != bank.fingerprint


def test_what_applies_to_no_word_is_named(tmp_path) -> None:
    (tmp_path / "spa.conllu").write_text(BANK, encoding="utf-8")
    with pytest.raises(InputError, match="task 'Case' applies to no word of spa"):
        read_words(tmp_path, ["Case"])
    with pytest.raises(InputError, match="language 'xxx' is not in"):
        read_words(tmp_path, ["upos"], ["xxx"])


def test_tokens_of_a_word_write_it_and_nothing_else(bank) -> None:
    tokenizer = train_tokenizer(mini_world("train", sentences=60, languages=("spa",)), 400)
    tokens = tokenise(tokenizer, bank.texts, 64)
    places = word_positions(tokenizer, bank, tokens)
    for i, (first, last) in enumerate(places):
        written = tokenizer.decode(tokens.ids[bank.row[i]][first:last + 1])
        assert bank.form[i] in written.lower() and len(written.strip()) <= len(bank.form[i]) + 1
    assert (np.diff(places[bank.row == 0][:, 0]) > 0).all()
    short = tokenise(tokenizer, bank.texts, 8)
    cut = word_positions(tokenizer, bank, short)
    assert (cut[0] == places[0]).all() and cut[-1, 0] == -1 or cut[5, 0] == -1, "what is cut off has no token"


def test_a_slow_tokenizer_is_refused(bank) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="Slow is a slow tokenizer"):
        word_positions(Slow(), bank, None)
