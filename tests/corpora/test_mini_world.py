"""The small world's promises: forms shared only by dose, splits that never meet, true labels."""

import itertools
import time
import unicodedata
from collections import Counter

import numpy as np
import pytest

from xlingjax.corpora.world import (
    LANGUAGES,
    TOPICS,
    TRACED,
    facts,
    lexicon,
    mini_world,
    shared_concepts,
)
from xlingjax.corpora.world.lexicon import NOT_FORMS
from xlingjax.corpora.world.sampling import CORE, TRIPLE
from xlingjax.corpora.world.world import _drawn
from xlingjax.errors import InputError

SCRIPTS = {"Latin": "LATIN", "Cyrillic": "CYRILLIC", "Devanagari": "DEVANAGARI"}
LEXICON = lexicon()
MASS = ("bread", "milk", "water", "meat", "rice", "cheese", "honey", "coffee", "sugar")


def words(texts):
    return {word.casefold() for text in texts for word in text.split()}


def common_forms(dose, seed=0):
    return {f.casefold() for name in shared_concepts(dose, seed) for f in LEXICON[name]["shared"]}


@pytest.fixture(scope="module")
def undosed():
    """Training text and probe at dose 0, large enough to say nearly every form."""
    return mini_world("train", dose=0, sentences=2500), mini_world(dose=0)


def test_size():
    counts = facts()
    assert counts["concepts"] >= 150 and counts["languages"] >= 8
    assert counts["families"] >= 4 and counts["scripts"] >= 3
    assert all(set(entry["forms"]) == set(LANGUAGES) for entry in LEXICON.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_form_is_there_and_in_the_language_own_script(language):
    script = SCRIPTS[LANGUAGES[language].script]
    for name, entry in LEXICON.items():
        cells = {c: form for c, form in entry["forms"][language].items() if c not in NOT_FORMS}
        assert any(cells.values()), name
        for column, form in cells.items():
            if entry["part"] == "noun" and column != "gen sg":
                assert bool(form) != (name in MASS and "pl" in column.split()), (name, column)
            assert form == unicodedata.normalize("NFC", form) == " ".join(form.split())
            letters = [c for c in form if c.isalpha()]
            assert all(unicodedata.name(c).startswith(script) for c in letters), (name, form)


@pytest.mark.promise
def test_no_word_is_shared_at_dose_zero(undosed):
    """Neither in the text, articles, particles, names and numerals included, nor in the tables."""
    said, tabled = {}, {}
    for language in LANGUAGES:
        said[language] = words(t for corpus in undosed for t in corpus.language(language).texts)
        tabled[language] = words(
            form for entry in LEXICON.values() for c, form in entry["forms"][language].items()
            if c not in NOT_FORMS)
        assert len(said[language]) > 250
    for a, b in itertools.combinations(LANGUAGES, 2):
        assert not said[a] & said[b]
        assert not tabled[a] & tabled[b]
    assert "shared form" not in undosed[1].groups


@pytest.mark.promise
@pytest.mark.parametrize("dose", [0.05, 0.15, 0.3])
def test_what_is_shared_is_the_dose_and_nothing_else(dose):
    corpus = mini_world("train", dose=dose, sentences=2500)
    said = {language: words(corpus.language(language).texts) for language in LANGUAGES}
    common = common_forms(dose)
    own = {language: words(f for e in LEXICON.values() for f in e["forms"][language].values())
           for language in LANGUAGES}
    for a, b in itertools.combinations(LANGUAGES, 2):
        assert said[a] & said[b] <= common
    for language in LANGUAGES:
        assert len(common - said[language]) <= 0.2 * len(common)  # rare plurals may stay unsaid
        for name in shared_concepts(dose):
            forms = {form.casefold() for column, form in LEXICON[name]["forms"][language].items()
                     if column not in NOT_FORMS}
            assert not (forms & said[language]) - common, name
    assert not set.intersection(*own.values()) & common
    nouns = [name for name in shared_concepts(dose) if LEXICON[name]["part"] == "noun"]
    assert len(nouns) == round(dose * facts()["nouns"])
    grouped = {c for c, g in zip(corpus.concepts, corpus.groups, strict=True) if g == "shared form"}
    assert grouped == {name for name in shared_concepts(dose) if LEXICON[name]["part"] != "name"}


def test_a_larger_dose_keeps_the_smaller_one_and_the_seed_chooses():
    for seed in range(5):
        doses = [shared_concepts(d, seed) for d in (0, 0.05, 0.15, 0.3)]
        assert all(small < large for small, large in itertools.pairwise(doses))
        assert [len(set(TRACED) & shared) for shared in doses] == [0, 2, 5, 11]
    assert shared_concepts(0.15, 0) != shared_concepts(0.15, 1)


@pytest.mark.promise
def test_no_probe_triple_and_no_probe_sentence_in_training(undosed):
    train, probe = undosed
    for language in LANGUAGES:
        assert not set(train.language(language).texts) & set(probe.language(language).texts)
    trained = {tuple(row) for language in LANGUAGES for unlike in (False, True) for seed in (0, 1)
               for row in _drawn(language, 1500, 10, seed, unlike)[0][:, TRIPLE].tolist()}
    probed = {tuple(row) for seed in range(4)
              for row in _drawn(None, 288, 4, seed, False)[0][:, TRIPLE].tolist()}
    assert len(trained) > 5000 and len(probed) > 600
    assert not trained & probed
    assert not set(train.documents) & set(probe.documents)


@pytest.mark.promise
def test_no_two_languages_train_on_translations_of_each_other():
    said = {language: {tuple(row) for seed in (0, 1)
                       for row in _drawn(language, 3000, 10, seed, False)[0][:, CORE].tolist()}
            for language in LANGUAGES}
    for a, b in itertools.combinations(LANGUAGES, 2):
        assert not said[a] & said[b]


def test_training_sentences_are_distinct_and_belong_to_no_parallel(undosed):
    train, _ = undosed
    assert set(train.parallel) == {""}
    for language in LANGUAGES:
        part = train.language(language)
        assert len(part) == 2500 and len(set(part.texts)) >= 2450  # two topics may say the same
        assert set(Counter(part.documents.tolist()).values()) == {10}


def test_probe_sentences_line_up(undosed):
    probe = undosed[1]
    english = probe.language("eng")
    assert len(set(english.parallel)) == len(english) == 288
    assert set(Counter(english.documents.tolist()).values()) == {4}
    keep = np.array([group != "gender" for group in probe.groups])
    for language in LANGUAGES:
        part = probe.language(language)
        assert (part.parallel == english.parallel).all()
        assert (part.documents == english.documents).all()
        assert (part.labels[:, keep] == english.labels[:, keep]).all()
        gender = part.labels[:, ~keep].ravel()
        if language in ("spa", "deu", "rus", "hin"):
            assert 0.15 < gender.mean() < 0.6 and gender.min() == 0
        else:
            assert (gender == -1).all()


def test_a_document_keeps_to_one_topic():
    train = mini_world("train", languages=("eng",), sentences=600)
    for corpus in (mini_world(languages=("eng",)), train):
        topic = corpus.with_concepts(TOPICS).labels
        assert (topic.sum(axis=1) == 1).all()
        for document in set(corpus.documents):
            assert len(np.unique(topic[corpus.documents == document], axis=0)) == 1
        assert np.ptp(topic.sum(axis=0)) <= 10


@pytest.mark.parametrize("language", ["eng", "spa", "rus", "fin"])
def test_labels_say_which_words_stand_in_the_text(undosed, language):
    """A concept is labelled if and only if a form of it is read; languages that list every form."""
    for corpus in undosed:
        part = corpus.language(language)
        column = {concept: part.labels[:, i] for i, concept in enumerate(part.concepts)}
        for name, entry in LEXICON.items():
            if entry["part"] == "name":
                continue
            forms = {f" {form} " for column, form in entry["forms"][language].items()
                     if form and column not in NOT_FORMS}
            found = [any(form in f" {text} " for form in forms) for text in part.texts]
            assert (column[name] == found).all(), name


def test_tense_and_number_are_those_of_the_verb(undosed):
    part = undosed[0].language("spa")
    label = {concept: part.labels[:, i] for i, concept in enumerate(part.concepts)}
    for name, entry in LEXICON.items():
        if entry["part"] == "verb":
            for column, form in entry["forms"]["spa"].items():
                for i in np.flatnonzero(label[name]):
                    if f" {form} " in f" {part.texts[i]} ":
                        assert label["Tense=Past"][i] == ("past" in column)
                        assert label["Number=Plur"][i] == ("pl" in column)


@pytest.mark.parametrize("seed", range(6))
def test_traced_concepts_have_enough_positives(seed):
    probe = mini_world(seed=seed, languages=("eng",))
    counts = probe.with_concepts(TRACED).labels.sum(axis=0)
    assert len(TRACED) >= 40 and counts.min() >= 12
    spread = probe.with_concepts(("Number=Plur", "Tense=Past")).labels.mean(axis=0)
    assert ((0.25 < spread) & (spread < 0.6)).all()


def test_no_other_word_gives_a_traced_concept_away():
    corpus = mini_world("train", languages=("eng",))
    lexical = [i for i, group in enumerate(corpus.groups) if group.endswith("form")]
    said = corpus.labels[:, lexical].astype(float)
    names = [corpus.concepts[i] for i in lexical]
    correlation = np.corrcoef(said.T) - np.eye(len(lexical))
    strongest = correlation[[names.index(name) for name in TRACED]].max(axis=1)
    assert strongest.max() < 0.5 and np.median(strongest) < 0.12


@pytest.mark.promise
def test_same_seed_same_bytes():
    """Pinned: the same on every Python, NumPy and machine."""
    assert mini_world().fingerprint[:16] == "6ffabefae7c78e29"
    assert mini_world("train", sentences=500, seed=3).fingerprint[:16] == "f23637d6a2ee9016"
    assert mini_world(seed=1).fingerprint != mini_world().fingerprint


def test_a_language_says_the_same_whoever_else_is_asked():
    for split in ("probe", "train"):
        everyone = mini_world(split, sentences=120)
        alone = mini_world(split, sentences=120, languages=("rus",))
        assert alone.texts == everyone.language("rus").texts
    assert mini_world(languages=("swh", "eng")).language_names == ("swh", "eng")


def test_dose_changes_words_and_not_what_is_said():
    plain, dosed = mini_world(dose=0), mini_world(dose=0.3)
    assert (plain.labels == dosed.labels).all() and plain.texts != dosed.texts


def test_unlike_topics():
    def shares(topics):
        corpus = mini_world("train", sentences=1700, topics=topics)
        corpus = corpus.with_concepts(TOPICS)
        return np.array([corpus.language(code).labels.mean(axis=0) for code in LANGUAGES])

    matched, unlike = shares("matched"), shares("unlike")
    assert np.abs(matched - 1 / 6).max() < 0.01
    np.testing.assert_allclose(np.sort(unlike), np.array([[1, 1, 1, 2, 4, 8]] * 8) / 17, atol=0.01)
    for a, b in itertools.combinations(range(len(LANGUAGES)), 2):
        assert np.abs(unlike[a] - unlike[b]).sum() / 2 > 0.2


@pytest.mark.parametrize("arguments, says", [
    ({"split": "test"}, "no split 'test'"), ({"dose": 0.5}, "dose 0.5"),
    ({"dose": -0.1}, "dose -0.1"), ({"dose": float("nan")}, "dose nan"),
    ({"languages": ("xxx",)}, "does not speak 'xxx'"),
    ({"languages": ()}, "one or more"), ({"languages": ("eng", "eng")}, "each once"),
    ({"sentences": 0}, "0 sentences"), ({"sentences": 10**9}, "ask for 1 to 1800"),
    ({"seed": -1}, "seed -1"), ({"topics": "odd"}, "'odd'")])
def test_bad_requests(arguments, says):
    with pytest.raises(InputError, match=says):
        mini_world(**arguments)


def test_the_default_training_text_is_quick():
    begin = time.process_time()
    corpus = mini_world("train")
    assert len(corpus) == 8 * 6000
    assert time.process_time() - begin < 5  # about 1.5 s alone
