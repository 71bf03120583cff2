"""Agreement of judges against statsmodels and Krippendorff's own example."""

import numpy as np
import pytest
from statsmodels.stats.inter_rater import fleiss_kappa as reference
from tolerances import KERNEL

from xlingjax.kernels.agreement import (
    category_counts,
    fleiss_kappa,
    item_bootstrap,
    krippendorff_alpha,
    majority,
    shuffled_ratings,
    unanimous,
)

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", part E: four observers, twelve units, gaps.
EXAMPLE = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0]]).T - 1
# Fleiss (1971) in the form of every textbook: ten subjects, fourteen raters, five categories, kappa 0.210.
FLEISS = np.array([
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]])


@pytest.mark.parametrize("seed", range(5))
def test_fleiss_is_statsmodels(seed):
    rng = np.random.default_rng(seed)
    ratings = rng.integers(0, 4, (int(rng.integers(5, 60)), int(rng.integers(2, 9))))
    counts = category_counts(ratings, 4)
    assert abs(float(fleiss_kappa(counts)) - reference(counts)) < KERNEL["float64"]


def test_fleiss_published():
    assert round(float(fleiss_kappa(FLEISS)), 3) == 0.210


def test_krippendorff_published():
    counts = category_counts(EXAMPLE, 5)
    assert round(float(krippendorff_alpha(counts)), 3) == 0.743
    assert round(float(krippendorff_alpha(counts, ordered=True)), 3) == 0.815


def test_krippendorff_two_judges_by_hand():
    """Krippendorff (2011), part A: two observers, ten units; four coincidences of 0 with 1: 1 - 19 * 4 / (14 * 6)."""
    first = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0])
    second = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    counts = category_counts(np.stack([first, second], 1), 2)
    assert round(float(krippendorff_alpha(counts)), 3) == 0.095


def test_items_with_one_judgement_change_nothing():
    counts = category_counts(EXAMPLE, 5)
    paired = counts[counts.sum(1) >= 2]
    assert len(paired) < len(counts)
    for measure in (krippendorff_alpha, fleiss_kappa):
        assert float(measure(counts)) == pytest.approx(float(measure(paired)), abs=KERNEL["float64"])


def test_weights_are_repetitions():
    counts = category_counts(EXAMPLE, 5)
    weight = item_bootstrap(len(counts), 3, seed=1)
    for measure in (krippendorff_alpha, fleiss_kappa, lambda c, w=None: krippendorff_alpha(c, w, ordered=True)):
        several = measure(counts, weight)
        assert several.shape == (3,)
        for row in range(3):
            alone = float(measure(np.repeat(counts, weight[row], axis=0)))
            assert several[row] == pytest.approx(alone, abs=1e-12)


def test_nothing_to_agree_on_is_nan():
    alike = np.array([[3, 0], [3, 0]])
    assert np.isnan(fleiss_kappa(alike)) and np.isnan(krippendorff_alpha(alike))
    nothing = np.array([[1, 0], [0, 0]])
    assert np.isnan(fleiss_kappa(nothing)) and np.isnan(krippendorff_alpha(nothing))


def test_majority_and_unanimity():
    counts = np.array([[3, 0, 0], [2, 1, 0], [1, 1, 1], [2, 2, 0], [0, 0, 1], [0, 2, 0]])
    assert majority(counts).tolist() == [0, 0, -1, -1, -1, 1]
    assert unanimous(counts).tolist() == [0, -1, -1, -1, -1, 1]


def test_shuffling_keeps_every_judges_answers_and_gaps():
    shuffled = shuffled_ratings(EXAMPLE, 50, seed=0)
    for draw in shuffled:
        assert ((draw < 0) == (EXAMPLE < 0)).all()
        assert (np.sort(draw, 0) == np.sort(EXAMPLE, 0)).all()
    assert (shuffled != EXAMPLE).any()
    alphas = [float(krippendorff_alpha(category_counts(draw, 5))) for draw in shuffled]
    assert abs(np.mean(alphas)) < 0.1, "agreement of shuffled answers is chance"
