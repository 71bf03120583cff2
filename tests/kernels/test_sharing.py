"""Measures of sharing against their definitions and hand-worked cases."""

import numpy as np
import pytest
import scipy.stats
from tolerances import close

from xlingjax.kernels import sharing


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return np.stack([np.stack([rng.permutation(40)[:12] for _ in range(3)]) for _ in range(2)])


def common(a, b):
    return len(set(a.tolist()) & set(b.tolist()) - {-1})


def test_half_overlaps_against_sets(sets):
    sets[0, 1, 9:] = -1
    ks = np.array([3, 12])
    across, within = sharing.half_overlaps(sets, ks)
    for row, k in enumerate(ks):
        top = sets[..., :k]
        for a in range(3):
            for b in range(3):
                close(across[row, a, b],
                      (common(top[0, a], top[1, b]) + common(top[1, a], top[0, b])) / 2 / k, 1e-12)
                close(within[row, a, b],
                      (common(top[0, a], top[0, b]) + common(top[1, a], top[1, b])) / 2 / k, 1e-12)
    sets[1, 2] = -1
    across, _ = sharing.half_overlaps(sets, ks)
    assert np.isnan(across[:, 2]).all() and not np.isnan(across[:, :2, :2]).any()


def test_shared_fraction_by_hand_and_not_estimable():
    cross = np.array([[0.8, 0.3, 0.1], [0.3, 0.5, 0.1], [0.1, 0.1, 0.12]])
    null, sd = np.full((3, 3), 0.1), np.full((3, 3), 0.02)
    got = sharing.shared_fraction(cross, null, sd)
    close(got[0, 1], 0.2 / (np.sqrt(0.4) - 0.1), 1e-12)
    assert np.isnan(got[2]).all() and np.isnan(got[:, 2]).all()  # 0.12 < 0.1 + 2 * 0.02
    close(np.diag(got)[:2], [1, 1], 1e-12)


def test_reliability_by_hand():
    ap = np.array([[[0.9, 0.2, 0.4], [0.3, 0.6, np.nan]], [[0.7, 0.1, 0.2], [0.5, 0.4, 0.8]]])
    prevalence = np.array([[0.1, 0.2], [0.1, 0.2]])
    sets = np.array([[[0, 2], [1, 0]], [[0, 1], [2, 1]]])
    got = sharing.reliability(ap, prevalence, sets)
    a_in_b = (np.mean([(0.5 - 0.2) / 0.8, (0.8 - 0.2) / 0.8])  # half 1's {0, 2} in half 2 of B
              + np.mean([(0.3 - 0.2) / 0.8, (0.6 - 0.2) / 0.8])) / 2
    b_in_a = (np.mean([(0.1 - 0.1) / 0.9, (0.7 - 0.1) / 0.9])
              + np.mean([(0.4 - 0.1) / 0.9, (0.2 - 0.1) / 0.9])) / 2
    close([got[0, 1], got[1, 0]], [a_in_b, b_in_a], 1e-12)
    sets[:, 1] = -1
    assert np.isnan(sharing.reliability(ap, prevalence, sets)[1]).all()


def test_breadth_chance_is_binomial_and_matches_random_sets():
    chance = sharing.breadth_chance(np.full(5, 20), 100)
    close(chance, 100 * scipy.stats.binom(5, 0.2).pmf(np.arange(1, 6)), 1e-9)
    rng = np.random.default_rng(1)
    drawn = np.mean([sharing.breadth(np.stack([rng.permutation(100)[:20] for _ in range(5)]))
                     for _ in range(300)], axis=0)
    assert np.abs(drawn - chance).max() < 1


def test_name_and_stratum_overlaps_against_sets(sets):
    strata = np.arange(40) // 15
    sets[0, 2, 5:] = -1
    names = sharing.name_overlaps(sets[0], sets[1], 40)
    layers = sharing.stratum_overlaps(sets[0], sets[1], strata)
    counts = sharing.stratum_counts(sets[0], strata)
    for a in range(3):
        for b in range(3):
            assert names[a, b] == layers[a, b].sum() == common(sets[0, a], sets[1, b])
            for stratum in range(3):
                inside = sets[0, a][(sets[0, a] >= 0) & (strata[sets[0, a]] == stratum)]
                assert layers[a, b, stratum] == common(inside, sets[1, b])
                assert counts[a, stratum] == len(inside)
