"""Claims over a trace: family-wise error, Holm, emergence, persistence."""

import numpy as np
import pytest
import statsmodels.stats.multitest
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.kernels import traces


def test_band_by_hand():
    """Two cells, draws 0..4 and the same times ten: distances do not depend on the scale."""
    draws = np.stack([np.arange(5.0), 10 * np.arange(5.0)], axis=1)
    band = traces.simultaneous_band(np.array([9.0, 20.0]), draws, level=0.2)
    # the median cell's sd is the floor, half way between the two cells' sds
    spread = np.array([(1 + 10) / 2, 10]) * np.sqrt(2.5) * np.sqrt(1 + 1 / 5)
    others = 4 - 1.5, 40 - 15
    sds = np.maximum(np.array([1, 10]) * np.std([0, 1, 2, 3], ddof=1), 5.5 * np.sqrt(2.5))
    largest = max(np.array(others) / (sds * np.sqrt(1 + 1 / 4)))
    close(band.upper, np.array([2, 20]) + largest * spread, 1e-9)
    close(band.p[1], (1 + 3) / 6, 1e-12)
    assert band.smallest_p == 1 / 6


@pytest.mark.promise
def test_null_leaves_the_band_anywhere_no_more_often_than_the_level():
    rng = np.random.default_rng(0)
    left, adjusted = 0, 0
    for _ in range(400):
        values = rng.poisson(1.5, (40, 6, 10)) + rng.normal(size=(40, 1, 1))  # discrete, correlated
        band = traces.simultaneous_band(values[0].astype(float), values[1:].astype(float))
        left += (values[0] > band.upper).any()
        adjusted += (band.p <= 0.05).any()
    assert left / 400 < 0.085 and adjusted / 400 < 0.085


def test_band_sees_a_signal_beside_a_cell_that_is_almost_always_zero():
    rng = np.random.default_rng(1)
    draws = np.concatenate([rng.normal(size=(99, 5)), np.eye(99)[:, :1]], axis=1)
    band = traces.simultaneous_band(np.array([0.0, 0, 8, 0, 0, 0]), draws)
    assert band.p[2] == 0.01 and (np.delete(band.p, 2) > 0.05).all()


def test_too_few_draws_have_no_band():
    draws = np.random.default_rng(0).normal(size=(10, 3))
    assert np.isinf(traces.simultaneous_band(np.zeros(3), draws).upper).all()
    with pytest.raises(InputError, match="2 null draws"):
        traces.simultaneous_band(np.zeros(3), draws[:2])
    draws[:, 1] = 0
    draws[0, 2] = np.nan
    assert np.isnan(traces.simultaneous_band(np.zeros(3), draws).p[1:]).all()


def test_holm_against_statsmodels():
    p = np.random.default_rng(2).random(30) ** 3
    close(traces.holm(p), statsmodels.stats.multitest.multipletests(p, method="holm")[1], 1e-12)
    table = np.array([[0.01, np.nan], [0.02, 0.5]])
    close(traces.holm(table), [[0.03, np.nan], [0.04, 0.5]], 1e-12)


def test_emergence_is_the_start_of_the_last_run():
    exceeds = np.array([
        [0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(traces.emergence(exceeds), [3, 0, -1, 4, -1])
    low, high = traces.emergence_interval(exceeds[[0, 1, 3]], np.array([1, 2, 4, 8, 16]))
    assert (low, high) == (1.0, 16.0)
    assert traces.emergence_interval(exceeds, np.array([1, 2, 4, 8, 16]))[1] == np.inf


def test_persistence_by_hand():
    sets = np.array([[[1, 2, 3, 4]], [[2, 4, 6, -1]], [[-1, -1, -1, -1]]])
    got = traces.persistence(sets)[..., 0]
    close(got, [[1, 0.5, 0], [2 / 3, 1, 0], [np.nan] * 3], 1e-12)


def test_a_low_floor_lets_a_band_follow_a_spread_that_truly_differs() -> None:
    rng = np.random.default_rng(0)
    spread = np.array([1.0, 1.0, 1.0, 0.2])
    draws = rng.normal(size=(499, 4)) * spread
    observed = np.array([0.0, 0.0, 0.0, 1.0])  # five of its own standard deviations, one of the others'
    wide, narrow = (traces.simultaneous_band(observed, draws, floor=floor) for floor in (1.0, 0.1))
    assert wide.p[3] > 0.3 and narrow.p[3] < 0.01
    np.testing.assert_allclose(narrow.upper / spread, narrow.upper[0], rtol=0.2)
