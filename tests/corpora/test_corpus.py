"""The corpus itself: what it refuses, counts and names."""

import dataclasses

import numpy as np
import pytest

from xlingjax.corpora import Corpus
from xlingjax.errors import InputError


@pytest.fixture
def corpus():
    return Corpus(
        texts=("a", "b", "c", "d"), languages=np.array(["x", "y", "x", "y"]),
        documents=np.array(["1", "1", "2", "2"]), parallel=np.array(["p", "p", "", ""]),
        labels=np.array([[1, 0], [1, -1], [0, 0], [0, 1]], np.int8),
        concepts=("k", "l"), groups=("g", "g"))


def test_counts_and_check(corpus):
    positives, negatives = corpus.counts()
    assert positives.tolist() == [[1, 0], [1, 1]] and negatives.tolist() == [[1, 2], [1, 0]]
    corpus.with_concepts(["k"]).check()
    with pytest.raises(InputError, match=r"'l' in x \(0 with, 2 without\); 'l' in y \(1 with, 0"):
        corpus.check()
    with pytest.raises(InputError, match="fewer than 2"):
        corpus.with_concepts(["k"]).check(2)
    with pytest.raises(InputError, match="has no concepts"):
        corpus.with_concepts([]).check()
    with pytest.raises(InputError, match="is empty"):
        corpus.rows(np.array([], int)).check()


def test_a_concept_keeps_its_kind(corpus):
    told = dataclasses.replace(corpus, kinds=("noun", "verb"))
    assert told.with_concepts(["l"]).kinds == ("verb",) and corpus.with_concepts(["l"]).kinds == ()
    assert told.rows(np.array([0])).kinds == told.kinds
    assert told.fingerprint != corpus.fingerprint
    with pytest.raises(InputError, match="1 kinds for 2 concepts"):
        dataclasses.replace(corpus, kinds=("noun",))


@pytest.mark.promise
def test_translations_share_a_document(corpus):
    with pytest.raises(InputError, match="translations 'p' lie in documents '1' and '3'"):
        dataclasses.replace(corpus, documents=np.array(["1", "3", "2", "2"]))
    with pytest.raises(InputError, match="empty document id"):
        dataclasses.replace(corpus, documents=np.array(["1", "1", "", "2"]))


def test_unknown_names(corpus):
    with pytest.raises(InputError, match="language 'z' is not in corpus 'corpus'; there are x, y"):
        corpus.language("z")
    with pytest.raises(InputError, match="concept 'kk' is not in corpus 'corpus'; did you mean k?"):
        corpus.with_concepts(["kk"])


def test_fingerprint_is_of_the_content(corpus):
    same = dataclasses.replace(corpus, name="other", notes=("read twice",))
    assert same.fingerprint == corpus.fingerprint
    for change in ({"texts": ("a", "b", "c", "e")}, {"languages": np.array(["x", "y", "x", "x"])},
                   {"labels": -corpus.labels.clip(0)}, {"concepts": ("k", "m")}):
        assert dataclasses.replace(corpus, **change).fingerprint != corpus.fingerprint
