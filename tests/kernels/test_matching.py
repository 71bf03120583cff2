"""Rows are matched as SciPy would and as brute force does."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from xlingjax.kernels import matching


def test_cosines_and_correlations_are_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((7, 5)), rng.standard_normal((9, 5))
    np.testing.assert_allclose(matching.cosines(a, b), 1 - cdist(a, b, "cosine"), atol=1e-12)
    f, g = rng.standard_normal((40, 3)), rng.standard_normal((40, 4))
    np.testing.assert_allclose(matching.correlations(f, g), np.corrcoef(f.T, g.T)[:3, 3:], atol=1e-12)
    best, which = matching.best_cosines(a, b)
    np.testing.assert_allclose(best, matching.cosines(a, b).max(1))
    np.testing.assert_array_equal(which, matching.cosines(a, b).argmax(1))


def test_one_to_one_is_the_best_of_all_assignments() -> None:
    similarity = np.random.default_rng(1).standard_normal((4, 5))
    rows, columns = matching.one_to_one(similarity)
    best = max(sum(similarity[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(5), 4))
    assert similarity[rows, columns].sum() == pytest.approx(best)
    assert len(set(columns.tolist())) == 4


def test_rotations_are_uniform_and_keep_lengths() -> None:
    rng = np.random.default_rng(2)
    turns = np.stack([matching.random_rotation(4, rng) for _ in range(600)])
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.tile(np.eye(4), (600, 1, 1)), atol=1e-9)
    assert np.abs(turns.mean(0)).max() < 0.08, "no direction is preferred"
