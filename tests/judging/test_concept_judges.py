"""Concepts are seen in documents never trained on; how often a judge errs is what it says."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from xlingjax.corpora import mini_world
from xlingjax.errors import InputError
from xlingjax.judging.concepts import fit_concepts, kappa, marker_words


@pytest.fixture(scope="module")
def judged():
    world = mini_world(sentences=600, languages=("eng", "rus"))
    positives, _ = world.counts()
    frequent = [name for name, group, count in zip(world.concepts, world.groups, positives.min(0))
                if group == "own form" and count >= 40][:3]  # fmt: skip
    corpus = world.with_concepts([*frequent, "animals"])
    return fit_concepts(corpus), corpus


def test_words_are_found_and_little_else(judged) -> None:
    judge, _ = judged
    assert np.nanmin(judge.lexicon.sensitivity[:, :3]) > 0.7, "a word's own forms are its markers"
    assert np.nanmax(judge.lexicon.false_positives[:, :3]) < 0.2
    assert np.nanmin(judge.classifier.sensitivity[:, :3]) > 0.6
    assert np.nanmax(judge.classifier.false_positives) < 0.2
    assert np.nanmin(judge.agreement[:, :3]) > 0.4


def test_verdicts_by_language(judged) -> None:
    """Each language's classifier and markers see the concept in its own sentences."""
    judge, corpus = judged
    for g, name in enumerate(judge.languages):
        own = corpus.language(name)
        for said in (judge.called(own.texts), judge.hits(own.texts)):
            assert said.shape == (len(own), 2, 4)
            right = said[:, g, 0] == (own.labels[:, 0] == 1)
            assert right.mean() > 0.9 and (said[:, 1 - g, 0][own.labels[:, 0] == 1]).mean() < 0.5


def test_labels_without_meaning_are_not_found(judged) -> None:
    _, corpus = judged
    rng = np.random.default_rng(0)
    order = {name: rng.permutation((corpus.languages == name).sum()) for name in corpus.language_names}
    labels = corpus.labels.copy()
    for name, index in order.items():
        rows = np.flatnonzero(corpus.languages == name)
        labels[rows] = corpus.labels[rows[index]]
    judge = fit_concepts(dataclasses.replace(corpus, labels=labels))
    gap = judge.classifier.sensitivity - judge.classifier.false_positives
    assert np.abs(np.nanmean(gap)) < 0.1


def test_marker_words_worked_by_hand() -> None:
    texts = ["the dog sleeps"] * 30 + ["the cat sleeps"] * 30
    labels = np.array([[1]] * 30 + [[0]] * 30)
    (words,) = marker_words(texts, labels)
    assert words == ("dog",)


def test_kappa_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random(50) < 0.4, rng.random(50) < 0.4
    assert kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))
    assert np.isnan(kappa(np.ones(3, bool), np.ones(3, bool)))


def test_what_cannot_be_trained_is_named(judged) -> None:
    _, corpus = judged
    labels = corpus.labels.copy()
    labels[corpus.languages == "rus", 1] = 0
    with pytest.raises(InputError, match=rf"concept '{corpus.concepts[1]}' has no positive sentence .* of rus"):
        fit_concepts(dataclasses.replace(corpus, labels=labels))
