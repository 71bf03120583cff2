"""Calibrated sets against Benjamini & Hochberg on exact pooled p-values."""

import numpy as np
import statsmodels.stats.multitest

from xlingjax.kernels import calibration


def test_equal_to_benjamini_hochberg_on_pooled_p_values():
    rng = np.random.default_rng(0)
    for level in (0.01, 0.05, 0.2):
        null = rng.beta(4, 30, (30, 500))
        ap = np.concatenate([rng.beta(9, 20, 40), rng.beta(4, 30, 460)])
        p = (1 + (null.reshape(-1) >= ap[:, None]).sum(1)) / (1 + null.size)
        expected = statsmodels.stats.multitest.multipletests(p, level, "fdr_bh")[0]
        got = calibration.fdr_sets(ap, null, level)
        assert (got != expected).sum() <= 1  # one neuron may share the bin of the cut
        assert 10 < got.sum() < 60


def test_few_permutations_cannot_call_a_single_neuron():
    rng = np.random.default_rng(1)
    null = rng.uniform(0, 0.3, (40, 100))
    one = np.concatenate([[0.9], rng.uniform(0, 0.1, 99)])
    assert calibration.fdr_sets(one, null[:19]).sum() == 0
    assert calibration.fdr_sets(one, null[:40]).sum() == 1


def test_streaming_counts_equal_counting_at_once_and_skip_nan():
    rng = np.random.default_rng(2)
    ap = rng.random((3, 200)).astype(np.float32)
    ap[0, :50] = np.nan
    ap[1, 0] = 1.0
    parts = calibration.ap_counts(ap[:, :70]) + calibration.ap_counts(ap[:, 70:])
    np.testing.assert_array_equal(parts, calibration.ap_counts(ap))
    np.testing.assert_array_equal(parts.sum(-1), [150, 200, 200])
    edges = np.arange(calibration.BINS) / calibration.BINS
    np.testing.assert_array_equal(
        calibration.above(ap[2], np.array(edges[5000])).sum(), parts[2, 5000:].sum())


def test_nothing_to_find_nothing_found():
    rng = np.random.default_rng(3)
    found = [calibration.fdr_sets(rng.random(200), rng.random((20, 200))).any() for _ in range(400)]
    assert abs(np.mean(found) - 1 / 21) < 0.035
    empty = calibration.fdr_sets(np.full(5, np.nan), np.full((20, 5), np.nan))
    assert not empty.any()
