"""Automatic measures of replies against sacrebleu and hand-worked cases."""

import numpy as np
import pytest

from xlingjax.corpora import mini_world
from xlingjax.errors import InputError
from xlingjax.judging.languages import fit_languages
from xlingjax.judging.replies import (
    Exchange,
    bleu_of,
    bleu_parts,
    chrf_of,
    chrf_parts,
    distinct,
    measure_replies,
    repetition,
)

sacrebleu = pytest.importorskip("sacrebleu.metrics")
WORDS = "the a dog Cat sees, eats! in; house ẹ̀gbọ́n ńlá 17:45 — it's و".split()


def texts(seed: int, count: int, longest: int = 9) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, int(rng.integers(0, longest)))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_summed_parts_are_sacrebleus_corpus_scores(seed):
    said, wanted = texts(seed, 30), [text or "x" for text in texts(seed + 100, 30)]
    assert "" in said
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    parts = bleu_parts(said, wanted).sum(0, keepdims=True)
    assert bleu_of(parts)[0] == pytest.approx(bleu.corpus_score(said, [wanted]).score, abs=1e-9)
    parts = chrf_parts(said, wanted).sum(0, keepdims=True)
    assert chrf_of(parts)[0] == pytest.approx(chrf.corpus_score(said, [wanted]).score, abs=1e-9)


def test_signatures_are_sacrebleus():
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    bleu.corpus_score(["a b"], [["a c"]])
    chrf.corpus_score(["a b"], [["a c"]])
    attrs = measure_replies({"m": ["a", "b"]}, [Exchange("x", "a", "1"), Exchange("y", "b", "2")], "eng", draws=3).attrs
    assert attrs["bleu_signature"] == str(bleu.get_signature())
    assert attrs["chrf_signature"] == str(chrf.get_signature())


def test_distinct_and_repetition_by_hand():
    assert distinct(["the dog", "the cat"], 1) == 3 / 4
    assert distinct(["the dog", "the cat"], 2) == 1
    assert distinct(["The dog!", "the  DOG"], 2) == 1 / 2, "capitals, blanks and punctuation aside"
    assert distinct(["a b c d", "a b"], 1, words=4) == 1, "the fifth word does not count"
    assert np.isnan(distinct([""], 1))
    assert repetition("na so na so") == pytest.approx(1 / 3)


def exchanges(count: int) -> list[Exchange]:
    return [Exchange(f"question {i}", f"the answer is {i} in house {i % 7}", f"d{i // 4}") for i in range(count)]


def test_copies_score_full_and_shuffled_ones_less():
    given = exchanges(40)
    same = [one.reference for one in given]
    parrot = [one.before for one in given]
    dull = ["I do not know"] * 40
    found = measure_replies({"same": same, "parrot": parrot, "dull": dull}, given, "eng", draws=50)
    one = found.sel(replies="same")
    assert float(one["bleu"]) == pytest.approx(100) and float(one["chrf"]) == pytest.approx(100)
    assert float(one["bleu_chance"]) < 90 and float(one["chrf_chance"]) < 90
    assert float(one["bleu_low"]) == pytest.approx(100)
    assert (
        float(found["copied"].sel(replies="parrot")) == 1 and float(found["copied_chance"].sel(replies="parrot")) == 0
    )
    assert float(found["repeated"].sel(replies="dull")) == 1 and float(found["repeated"].sel(replies="same")) == 0
    assert float(found["distinct_1"].sel(replies="dull")) < float(found["distinct_1"].sel(replies="human"))
    human = found.sel(replies="human")
    assert np.isnan(human["bleu"]) and float(human["distinct_2"]) == float(one["distinct_2"])
    assert float(human["words"]) == 7 and float(human["words_low"]) == 7
    for name in ("chrf", "distinct_1", "characters", "repetition"):
        at = found[name].sel(replies="parrot")
        assert float(found[f"{name}_low"].sel(replies="parrot")) <= float(at) + 1e-12
        assert float(at) <= float(found[f"{name}_high"].sel(replies="parrot")) + 1e-12


def test_intervals_move_whole_documents():
    given = [Exchange("q", f"r{i}", "first" if i < 20 else "second") for i in range(40)]
    said = ["long long long words"] * 20 + ["short"] * 20
    found = measure_replies({"m": said}, given, "eng", draws=400).sel(replies="m")
    assert (float(found["words_low"]), float(found["words_high"])) == (1, 4)


def test_the_right_language():
    judge, held_out = fit_languages(mini_world("train", languages=("eng", "fin"), sentences=400))
    rows = {name: np.flatnonzero(held_out.languages == name)[:30] for name in ("eng", "fin")}
    eng, fin = ([held_out.texts[row] for row in rows[name]] for name in ("eng", "fin"))
    given = [Exchange("q", text, str(i)) for i, text in enumerate(fin)]
    found = measure_replies(
        {"wrong": eng, "half": [*fin[:15], *eng[15:]], "silent": [""] * 30}, given, "fin", judge, 50
    )
    share = found["right_language"]
    assert float(share.sel(replies="human")) > 0.9 and float(share.sel(replies="wrong")) == 0
    assert abs(float(share.sel(replies="half")) - 0.5) < 0.1
    assert float(found["undetermined"].sel(replies="silent")) == 1 == float(found["empty"].sel(replies="silent"))
    with pytest.raises(InputError, match="does not know 'swh'"):
        measure_replies({"m": eng}, given, "swh", judge)


@pytest.mark.parametrize(
    "systems, given, said",
    [
        ({}, exchanges(4), "no system"),
        ({"m": ["a"]}, exchanges(8), "1 replies to 8"),
        ({"human": ["a"] * 8}, exchanges(8), "otherwise"),
        ({"m": ["a"] * 4}, exchanges(4), "one document"),
    ],
)
def test_refused(systems, given, said):
    with pytest.raises(InputError, match=said):
        measure_replies(systems, given, "eng")
