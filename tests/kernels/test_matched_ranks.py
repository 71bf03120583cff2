"""Ranks among items of one's own length; heavy tails against SciPy and statsmodels."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.diagnostic import lilliefors

from xlingjax.errors import InputError
from xlingjax.kernels.matched_ranks import matched_ranks
from xlingjax.kernels.tails import power_law, top_share


def test_ranks_are_those_of_scikit_learn_among_the_nearest() -> None:
    rng = np.random.default_rng(0)
    lengths, scores = rng.permutation(40), rng.integers(0, 6, (5, 40)).astype(float)  # ties, no equal lengths
    queries, items = np.arange(5), np.arange(40) // 2
    found = matched_ranks(scores, lengths, queries, items, count=7)
    for query in range(5):
        for item in range(40):
            allowed = np.flatnonzero((items != items[item]) & (items != query))
            near = allowed[np.argsort(np.abs(lengths[allowed] - lengths[item]), kind="stable")]
            gap = np.abs(lengths[near] - lengths[item])
            if gap[6] == gap[7]:  # which of two is taken is random
                continue
            others = scores[query, near[:7]]
            wanted = roc_auc_score(np.r_[1, np.zeros(7)], np.r_[scores[query, item], others])
            assert found[query, item] == pytest.approx(wanted)


def test_length_alone_is_worth_nothing() -> None:
    """Scores that grow with length: unmatched, long items would all stand high."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, 60, 300)
    scores = lengths + rng.standard_normal((4, 300)) * 0.1
    items = np.arange(300)
    found = matched_ranks(scores, lengths, np.full(4, 999), items, count=10)
    long = lengths > 40
    assert abs(np.nanmean(found[:, long & (lengths < 55)]) - 0.5) < 0.03
    assert matched_ranks(scores, lengths, np.full(4, 999), items, count=299)[:, long].mean() > 0.8


def test_an_item_may_come_with_a_score_of_its_own() -> None:
    scores = np.array([[1.0, 2.0, 3.0]])
    found = matched_ranks(scores, np.array([4, 4, 4]), np.array([9]), np.arange(3), 2, own=np.array([[9.0, 9.0, 0.0]]))
    assert found.tolist() == [[1, 1, 0]]
    scores[0, 1] = np.nan
    assert np.isnan(matched_ranks(scores, np.array([4, 4, 4]), np.array([9]), np.arange(3), 2)).all()
    assert np.isnan(matched_ranks(np.ones((1, 2)), np.array([4, 4]), np.array([0]), np.array([0, 0]), 2)).all()


def test_a_power_law_is_told_from_a_normal_tail() -> None:
    rng = np.random.default_rng(2)
    for exponent in (1.5, 2.5, 4.0):
        values = scipy.stats.pareto.rvs(exponent - 1, size=5000, random_state=rng)
        law = power_law(values, 400)
        assert abs(law.exponent - exponent) < 0.3 * (exponent - 1) / 2 and law.size == 400
        assert law.p > 0.01
    assert power_law(np.abs(rng.standard_normal(20000)), 5000).p < 0.01


def test_distance_and_p_are_those_of_statsmodels() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=2000)
    law = power_law(values, 200, draws=2000)
    logs = np.log(np.sort(values)[-200:] / law.start)
    distance, p = lilliefors(logs, dist="exp", pvalmethod="table")
    assert law.distance == pytest.approx(distance, abs=1e-12)
    assert abs(law.p - p) < 0.03
    fitted = scipy.stats.pareto.fit(np.exp(logs), floc=0, fscale=1)
    assert law.exponent == pytest.approx(fitted[0] + 1, rel=1e-3)


def test_too_few_values_are_no_tail() -> None:
    assert np.isnan(power_law(np.array([1.0, -1, 2, 3]), 3).exponent)
    assert np.isnan(power_law(np.ones(9), 4).exponent) and np.isnan(top_share(-np.ones(4)))
    with pytest.raises(InputError, match="count is 2"):
        power_law(np.ones(9), 2)
    normal = np.random.default_rng(4).standard_normal(200_000)
    assert top_share(normal) == pytest.approx(0.067, abs=0.002)
