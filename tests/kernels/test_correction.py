"""Shares and rates are recovered from a judge that errs in known ways."""

import numpy as np
import pytest
from scipy.optimize import minimize

from xlingjax.kernels.correction import corrected_rate, corrected_shares


def judge(rng, languages=4):
    confusion = rng.dirichlet(np.ones(languages + 1), languages) * 0.4
    confusion[np.arange(languages), np.arange(languages)] += 0.6
    return confusion


def test_exact_verdicts_give_the_truth() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        confusion, truth = judge(rng), rng.dirichlet(np.ones(4))
        np.testing.assert_allclose(corrected_shares(1e4 * truth @ confusion, confusion), truth, atol=2e-3)


def test_it_is_the_maximum_of_the_likelihood() -> None:
    """Against SciPy's constrained optimiser, also where the truth lies on the border."""
    rng = np.random.default_rng(1)
    for truth in (np.array([0.5, 0.3, 0.2, 0]), np.array([1.0, 0, 0, 0]), np.full(4, 0.25)):
        confusion = judge(rng)
        counts = rng.multinomial(300, truth @ confusion)
        loss = lambda shares, counts=counts, confusion=confusion: -(counts * np.log(shares @ confusion)).sum()
        best = minimize(loss, np.full(4, 0.25), bounds=[(1e-9, 1)] * 4, method="SLSQP", options={"ftol": 1e-12},
                        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1})  # fmt: skip
        found = np.asarray(corrected_shares(counts, confusion), float)
        assert loss(found / found.sum()) <= best.fun + 1e-2
        assert found.sum() == pytest.approx(1, abs=1e-4)


def test_many_at_once_and_nothing_counted() -> None:
    confusion = judge(np.random.default_rng(2))
    counts = np.array([[5, 1, 0, 0, 2], [0, 0, 0, 0, 0]])
    both = np.asarray(corrected_shares(counts, confusion))
    np.testing.assert_allclose(both[0], corrected_shares(counts[0], confusion), atol=1e-6)
    assert np.isnan(both[1]).all()


def test_rates() -> None:
    sensitivity, false_positives = 0.7, 0.1
    for truth in (0, 0.2, 1):
        said = truth * sensitivity + (1 - truth) * false_positives
        assert float(corrected_rate(said, sensitivity, false_positives)) == pytest.approx(truth, abs=1e-6)
    assert float(corrected_rate(0.05, sensitivity, false_positives)) == 0, "fewer than errors alone"
    assert np.isnan(corrected_rate(0.5, 0.3, 0.3))
