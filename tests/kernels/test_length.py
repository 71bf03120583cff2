"""Negatives matched by length leave nothing for a length neuron to find."""

import numpy as np

from xlingjax.kernels import length
from xlingjax.kernels.ranking import average_precision


def linked(seed, count=2000):
    rng = np.random.default_rng(seed)
    lengths = np.maximum(3, np.round(np.exp(rng.normal(3, 0.4, count)))).astype(int)
    chance = 1 / (1 + np.exp(2 - 0.5 * (np.log(lengths) - 3) / 0.4))
    return (rng.random((count, 2)) < chance[:, None]).astype(np.int8), lengths


def test_deciles_hold_the_same_ratio_afterwards():
    labels, lengths = linked(0)
    matched = length.match_length(labels, lengths)
    assert (matched[matched != labels] == -1).all()
    decile = length.length_deciles(lengths)
    for concept in range(2):
        positives = np.bincount(decile[matched[:, concept] == 1], minlength=10)
        negatives = np.bincount(decile[matched[:, concept] == 0], minlength=10)
        ratio = negatives.sum() / positives.sum()
        assert np.abs(negatives - ratio * positives).max() <= 0.15 * ratio * positives.max() + 1


def test_length_alone_stops_detecting_the_concept():
    before, after = [], []
    for seed in range(5):
        labels, lengths = linked(seed)
        matched = length.match_length(labels, lengths, seed)
        score = lengths[:, None].astype(np.float32)
        for table, out in ((labels, before), (matched, after)):
            ap = np.asarray(average_precision(score, table == 1, table >= 0))[:, 0]
            prevalence = (table == 1).sum(0) / (table >= 0).sum(0)
            out.extend((ap - prevalence) / (1 - prevalence))
    assert np.mean(before) > 0.06
    assert abs(np.mean(after)) < 0.02


def test_keeps_what_needs_no_matching_and_survives_hopeless_cases():
    lengths = np.tile(np.arange(10), 20)
    balanced = np.repeat([1, 0, 0, 0], 50)[:, None].astype(np.int8)
    assert (length.match_length(balanced, lengths) >= 0).all()
    apart = np.array([[1], [1], [0], [0]], np.int8)
    assert (length.match_length(apart, np.array([90, 91, 2, 3])) == -1).all()
    unlabelled = np.full((4, 1), -1, np.int8)
    assert (length.match_length(unlabelled, np.arange(4)) == -1).all()
