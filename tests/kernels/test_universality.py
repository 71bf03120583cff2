"""Chance of sharing is exact, draws follow it, and matched controls are as active as what they stand beside."""

import itertools

import numpy as np
import pytest

from xlingjax.errors import InputError
from xlingjax.kernels.sharing import breadth, breadth_chance
from xlingjax.kernels.universality import activity_matched, alive_chance, breadth_shares, draw_sets


@pytest.mark.promise
def test_chance_is_the_mean_over_all_draws() -> None:
    """Every pair of sets counted out by hand, with one latent dead in one language."""
    alive = np.array([[True] * 4, [True, True, True, False]])
    every = [breadth(np.array([a, b])) for a in itertools.combinations(range(4), 2)
             for b in itertools.combinations(range(3), 2)]
    np.testing.assert_allclose(alive_chance(np.array([2, 2]), alive), np.mean(every, 0))
    np.testing.assert_allclose(alive_chance(np.array([5, 3, 9]), np.ones((3, 40), bool)),
                               breadth_chance(np.array([5, 3, 9]), 40))


def test_even_draws_have_that_chance() -> None:
    rng = np.random.default_rng(0)
    alive = rng.random((3, 30)) < 0.7
    sizes = np.array([6, 4, 8])
    drawn = draw_sets(alive.astype(float), sizes, 4000, 1)
    assert all(alive[g, drawn[:, g, :sizes[g]]].all() for g in range(3))
    found = np.array([breadth(one) for one in drawn])
    np.testing.assert_allclose(found.mean(0), alive_chance(sizes, alive), atol=4 * found.std(0).max() / 4000**0.5)


def test_draws_in_proportion_to_activity() -> None:
    weight = np.array([[8.0, 1.0, 1.0, 0.0]])
    drawn = draw_sets(weight, np.array([1]), 4000, 0)[:, 0, 0]
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 4000, weight[0] / 10, atol=0.03)
    assert draw_sets(weight, np.array([4]), 1, 0)[0, 0].tolist()[-1] == -1, "only three can be drawn"


def test_shares() -> None:
    np.testing.assert_allclose(breadth_shares(np.array([[4.0, 0.0], [1.0, 3.0]])), [0, 0.75])
    assert np.isnan(breadth_shares(np.zeros(3)))


@pytest.mark.promise
def test_controls_are_as_active() -> None:
    rng = np.random.default_rng(0)
    frequency = 10 ** rng.uniform(-4, 0, 3000)
    activity = np.stack([frequency, frequency * 10 ** rng.normal(0, 0.3, 3000)], 1)
    activity[:50] = 0
    chosen = 100 + np.argsort(-activity[100:, 0])[[0, 3, 200, 900, 2500]]
    barred = np.arange(60, 90)
    drawn = activity_matched(activity, chosen, barred, 40, 0)
    assert not np.isin(drawn, [*chosen, *barred, *range(50)]).any()
    assert all(len(set(row)) == 5 for row in drawn.tolist())
    log = np.log(activity[drawn]) - np.log(activity[chosen])
    assert np.abs(np.median(log, 0)).max() < 0.25, "each is beside its own control"
    assert len(np.unique(drawn[:, 2])) > 5
    plain = np.log(activity[rng.integers(100, 3000, 40)]).mean(0) - np.log(activity[chosen]).mean(0)
    assert np.abs(plain).max() > 0.5, "plain random ones are not"


def test_too_few_to_choose_from() -> None:
    with pytest.raises(InputError, match="1 latents are alive and free to stand beside 2"):
        activity_matched(np.ones((3, 2)), np.array([0, 1]), np.array([], int), 1, 0)
