"""Minimal pairs: one word differs, in one value, and the sentence with it is wrong."""

import numpy as np
import pytest

from xlingjax.corpora import mini_world, mini_world_pairs, mini_world_words, read_pairs
from xlingjax.corpora.minimal_pairs import cased, lower
from xlingjax.errors import InputError

LANGUAGES = ("eng", "spa", "deu", "rus", "tur", "fin", "hin", "swh")


@pytest.fixture(scope="module")
def world():
    return mini_world_pairs(sentences=144)


@pytest.mark.promise
def test_one_word_differs_and_the_rest_is_the_same(world) -> None:
    corpus = mini_world(sentences=144)
    told = {(g, text) for g, text in zip(corpus.languages.tolist(), corpus.texts)}
    said = set(mini_world("train").texts)
    for i in range(len(world)):
        (a, b), (c, d) = world.span_right[i], world.span_wrong[i]
        right, wrong = world.right[i], world.wrong[i]
        assert right[:a] == wrong[:c] and right[b:] == wrong[d:] and right[a:b] != wrong[c:d]
        assert " " not in right[a:b] + wrong[c:d] and wrong[c:d]
        assert (str(world.languages[i]), right) in told and wrong not in said
    assert set(world.documents) <= set(corpus.documents)


def test_every_language_has_the_agreement_that_it_has(world) -> None:
    table = world.table().sum("kind").to_series()
    has = lambda feature: {g for g in LANGUAGES if table.get((feature, g), 0)}
    assert has("Number") == set(LANGUAGES)
    assert has("Tense") == set(LANGUAGES) - {"hin"}
    assert has("Gender") == {"spa", "deu", "rus", "hin"} and has("NounClass") == {"swh"}
    kinds = world.table().sum("feature").to_series()
    assert kinds["determiner", "spa"] and not kinds["determiner", "rus"] and not kinds["adjective", "eng"]


def test_the_values_are_those_of_the_words(world) -> None:
    """The right form shows the value in the annotated corpus, and the wrong form, wherever it is told, another one."""
    bank = mini_world_words(sentences=144)
    at = {(text, int(start)): i for i, (row, (start, _)) in enumerate(zip(bank.row, bank.span))
          for text in [bank.texts[row]]}
    for i in range(len(world)):
        word = at[world.right[i], int(world.span_right[i, 0])]
        label = bank.labels[str(world.features[i])][word]
        assert label in ("", world.values[i]), "strict labels may be silent"


@pytest.mark.parametrize(("language", "right", "wrong"), [
    ("eng", "Jack buys the key", "Jack buy the key"),
    ("eng", "nowadays the elefants find the hungry horses in the field",
     "nowadays the elefants found the hungry horses in the field"),
    ("spa", "ayer Javier trajo las llaves negras", "ayer Javier trajo la llaves negras"),
    ("deu", "der Hund sieht den coffee", "der Hund sehen den coffee"),
    ("rus", "маленькие женщины продали белую бутылку на рынке", "маленькие женщины продали белые бутылку на рынке"),
    ("fin", "yöllä koirat näkevät valkoiset lampaat", "yöllä koirat näkee valkoiset lampaat"),
    ("hin", "भूखे लड़के ने काली बोतल देखी", "भूखे लड़के ने काला बोतल देखी"),
    ("swh", "jioni watoto walikula tufaha jekundu", "jioni watoto walikula tufaha chekundu")])
def test_pairs_by_hand(language, right, wrong) -> None:
    features = {"hin": ("Gender",), "swh": ("NounClass",)}.get(language, ("Number", "Tense"))
    pairs = mini_world_pairs(languages=(language,), features=features)
    assert (right, wrong) in zip(pairs.right, pairs.wrong)


def test_what_may_be_right_after_all_is_left_out() -> None:
    every = mini_world_pairs(dose=0.0, sentences=400, languages=("eng", "deu", "rus", "fin"), minimum=1)
    of = lambda g, feature, kind: [every.right[i].split() for i in np.flatnonzero(
        (every.languages == g) & (every.features == feature) & (every.kinds == kind))]
    assert not any("sheep" in words[:4] for words in of("eng", "Number", "verb")), "the sheep see, the sheep sees"
    for g, numeral in (("eng", "two"), ("deu", "zwei"), ("rus", "два"), ("fin", "kaksi")):
        assert of(g, "Number", "verb") and not any(numeral in words for words in of(g, "Number", "verb"))
    women = [words for words in of("rus", "Gender", "verb") if "женщина" in words[:3]]
    assert women and not any({"врач", "повар", "ученик"} & set(words[:3]) for words in of("rus", "Gender", "verb"))
    several = [words for words in of("deu", "Number", "verb") if words.count("die") + words.count("das") > 1]
    assert all({"der", "den"} & set(words) for words in several), "die Frau sehen die Hunde"
    assert not any({"joskus", "joka"} & set(words) for words in of("fin", "Tense", "verb and time"))


def test_counts_are_those_of_the_training_text() -> None:
    pairs = mini_world_pairs(languages=("eng",), features=("Number",))
    words = " ".join(mini_world("train", languages=("eng",)).texts).split()
    for i in (0, 5, 17):
        (a, b), (c, d) = pairs.span_right[i], pairs.span_wrong[i]
        assert pairs.counts[i].tolist() == [words.count(pairs.right[i][a:b]), words.count(pairs.wrong[i][c:d])]


def test_rows_and_fingerprint(world) -> None:
    some = world.rows(world.languages == "fin")
    assert len(some) == (world.languages == "fin").sum() and set(some.languages) == {"fin"}
    assert some.fingerprint != world.fingerprint == mini_world_pairs(sentences=144).fingerprint
    assert some.wrong[3] == world.wrong[np.flatnonzero(world.languages == "fin")[3]]


def line(number: int, form: str, lemma: str, upos: str, feats: str, head: int, relation: str) -> str:
    return "\t".join([str(number), form, lemma, upos, "_", feats, str(head), relation, "_", "_"])


def sentence(name: str, text: str, *lines: str) -> str:
    return "\n".join([f"# newdoc id = d{name}", f"# sent_id = {name}", f"# text = {text}", *lines, "", ""])


SPANISH = (
    sentence("1", "Las casas blancas son viejas .",
             line(1, "Las", "el", "DET", "Gender=Fem|Number=Plur", 2, "det"),
             line(2, "casas", "casa", "NOUN", "Gender=Fem|Number=Plur", 5, "nsubj"),
             line(3, "blancas", "blanco", "ADJ", "Gender=Fem|Number=Plur", 2, "amod"),
             line(4, "son", "ser", "AUX", "Number=Plur|VerbForm=Fin", 5, "cop"),
             line(5, "viejas", "viejo", "ADJ", "Gender=Fem|Number=Plur", 0, "root"),
             line(6, ".", ".", "PUNCT", "_", 5, "punct"))
    + sentence("2", "El muro blanco es viejo y los muros BLANCOS son dos .",
               line(1, "El", "el", "DET", "Gender=Masc|Number=Sing", 2, "det"),
               line(2, "muro", "muro", "NOUN", "Gender=Masc|Number=Sing", 5, "nsubj"),
               line(3, "blanco", "blanco", "ADJ", "Gender=Masc|Number=Sing", 2, "amod"),
               line(4, "es", "ser", "AUX", "Number=Sing|VerbForm=Fin", 5, "cop"),
               line(5, "viejo", "viejo", "ADJ", "Gender=Masc|Number=Sing", 0, "root"),
               line(6, "y", "y", "CCONJ", "_", 11, "cc"),
               line(7, "los", "el", "DET", "Gender=Masc|Number=Plur", 8, "det"),
               line(8, "muros", "muro", "NOUN", "Gender=Masc|Number=Plur", 11, "nsubj"),
               line(9, "BLANCOS", "blanco", "ADJ", "Gender=Masc|Number=Plur", 8, "amod"),
               line(10, "son", "ser", "AUX", "Number=Plur|VerbForm=Fin", 11, "cop"),
               line(11, "dos", "dos", "NUM", "NumType=Card", 5, "conj"),
               line(12, ".", ".", "PUNCT", "_", 5, "punct"))
    + sentence("3", "La crisis es blanca y las crisis son dos .",
               line(1, "La", "el", "DET", "Gender=Fem|Number=Sing", 2, "det"),
               line(2, "crisis", "crisis", "NOUN", "Gender=Fem|Number=Sing", 4, "nsubj"),
               line(3, "es", "ser", "AUX", "Number=Sing|VerbForm=Fin", 4, "cop"),
               line(4, "blanca", "blanco", "ADJ", "Gender=Fem|Number=Sing", 0, "root"),
               line(5, "y", "y", "CCONJ", "_", 9, "cc"),
               line(6, "las", "el", "DET", "Gender=Fem|Number=Plur", 7, "det"),
               line(7, "crisis", "crisis", "NOUN", "Gender=Fem|Number=Plur", 9, "nsubj"),
               line(8, "son", "ser", "AUX", "Number=Plur|VerbForm=Fin", 9, "cop"),
               line(9, "dos", "dos", "NUM", "NumType=Card", 4, "conj"),
               line(10, ".", ".", "PUNCT", "_", 4, "punct")))


def test_a_treebank_by_hand(tmp_path) -> None:
    (tmp_path / "spa.conllu").write_text(SPANISH, encoding="utf-8")
    pairs = read_pairs(tmp_path, ["Number", "Gender"], minimum=1)
    swapped = [(str(pairs.features[i]), str(pairs.kinds[i]), pairs.right[i][a:b], pairs.wrong[i][c:d])
               for i, ((a, b), (c, d)) in enumerate(zip(pairs.span_right, pairs.span_wrong))]
    assert set(swapped) == {
        ("Number", "determiner", "Las", "La"), ("Gender", "determiner", "Las", "Los"),
        ("Number", "adjective", "blancas", "blanca"), ("Gender", "adjective", "blancas", "blancos"),
        ("Number", "verb", "son", "es"),
        ("Number", "determiner", "El", "Los"), ("Gender", "determiner", "El", "La"),
        ("Number", "adjective", "blanco", "blancos"), ("Gender", "adjective", "blanco", "blanca"),
        ("Number", "verb", "es", "son"),
        ("Number", "determiner", "los", "el"), ("Gender", "determiner", "los", "las"),
        ("Number", "adjective", "BLANCOS", "BLANCO"), ("Gender", "adjective", "BLANCOS", "BLANCAS"),
        ("Gender", "determiner", "La", "El"), ("Gender", "determiner", "las", "los")}, "crisis shows no number"
    first = swapped.index(("Number", "verb", "son", "es"))
    assert pairs.wrong[first] == "Las casas blancas es viejas ." and pairs.documents[first] == "d1"
    assert pairs.counts[first].tolist() == [2, 2], "son stands thrice, once here"
    assert pairs.values[first] == "Plur" and pairs.languages[first] == "spa"


def test_coordination_numerals_and_alternatives_are_left_out(tmp_path) -> None:
    text = sentence(
        "4", "Los muros blancos y la casa son",
        line(1, "Los", "el", "DET", "Gender=Masc|Number=Plur", 2, "det"),
        line(2, "muros", "muro", "NOUN", "Gender=Masc|Number=Plur", 7, "nsubj"),
        line(3, "blancos", "blanco", "ADJ", "Gender=Masc|Number=Plur", 2, "amod"),
        line(4, "y", "y", "CCONJ", "_", 6, "cc"),
        line(5, "la", "el", "DET", "Gender=Fem|Number=Sing", 6, "det"),
        line(6, "casa", "casa", "NOUN", "Gender=Fem|Number=Sing", 2, "conj"),
        line(7, "son", "ser", "VERB", "Number=Plur|VerbForm=Fin", 0, "root")) + sentence(
        "5", "es", line(1, "es", "ser", "VERB", "Number=Sing|VerbForm=Fin", 0, "root"))
    (tmp_path / "spa.conllu").write_text(SPANISH + text, encoding="utf-8")
    pairs = read_pairs(tmp_path, minimum=1)
    assert {str(pairs.right[i]).split()[a] for i in np.flatnonzero(pairs.documents == "d4") for a in [4]} <= {"la"}
    assert set(pairs.kinds[pairs.documents == "d4"]) <= {"determiner"}


def test_casing() -> None:
    assert cased("Her", "ihn", "deu") == "Ihn" and cased("mcFoo", "x", "eng") == "x"
    assert cased("I", "we", "eng") == "We" and cased("OLUR", "idi", "tur") == "İDİ"
    assert lower("İKİ", "tur") == "iki"


@pytest.mark.parametrize(("arguments", "says"), [
    ({"features": ["Gender"]}, "no language of eng has 20 minimal pairs in 'Gender' (found: none at all)"),
    ({"features": ["Number"], "minimum": 50}, "has 50 minimal pairs in 'Number' (found: eng 2)"),
    ({}, "no language of eng has 20 minimal pairs in any feature"),
    ({"languages": ["xxx"]}, "language 'xxx' is not in")])
def test_treebanks_that_cannot_serve(tmp_path, arguments, says) -> None:
    bank = sentence("1", "dogs bark", line(1, "dogs", "dog", "NOUN", "Number=Plur", 2, "nsubj"),
                    line(2, "bark", "bark", "VERB", "Number=Plur", 0, "root")) + sentence(
        "2", "dog barks", line(1, "dog", "dog", "NOUN", "Number=Sing", 2, "nsubj"),
        line(2, "barks", "bark", "VERB", "Number=Sing", 0, "root"))
    (tmp_path / "eng.conllu").write_text(bank, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_pairs(tmp_path, **arguments)
    assert says in str(error.value)


def test_worlds_that_cannot_serve() -> None:
    with pytest.raises(InputError, match="no minimal pairs in 'Case'"):
        mini_world_pairs(features=("Case",))
    with pytest.raises(InputError, match="no language of mini_world has 20 minimal pairs in 'Gender'"):
        mini_world_pairs(languages=("eng",), features=("Gender",))


@pytest.mark.slow
def test_real_treebanks(data) -> None:
    """Hundreds of pairs in nearly every language; the swapped forms are attested, the text is the treebank's."""
    pairs = read_pairs(data / "pud")
    found = pairs.table().sum("kind").to_series()
    for language in ("eng", "deu", "fra", "spa", "ita", "rus"):
        assert found["Number", language] > 200, language
    for language in ("deu", "fra", "spa", "ita", "rus", "hin", "ara"):
        assert found["Gender", language] > 200, language
    assert not found.get(("Gender", "eng"), 0)
    assert (pairs.counts[:, 1] >= 1).all() and (pairs.counts[:, 0] >= 0).all()
    english = pairs.rows((pairs.languages == "eng") & (pairs.kinds == "verb"))
    swapped = {(english.right[i][a:b].lower(), english.wrong[i][c:d].lower())
               for i, ((a, b), (c, d)) in enumerate(zip(english.span_right, english.span_wrong))}
    assert {("is", "are"), ("are", "is"), ("has", "have"), ("was", "were"), ("were", "was")} <= swapped
    assert not {("are", "am"), ("is", "am")} & swapped
