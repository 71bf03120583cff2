"""Language-specific neurons: worked by hand, against SciPy, and on a planted world."""

import numpy as np
import pytest
from scipy.stats import entropy

from xlingjax.errors import InputError
from xlingjax.kernels.selectivity import activation_entropy, both_ends, language_neurons


def test_entropy_is_scipys() -> None:
    active = np.random.default_rng(0).random((5, 40)).astype(np.float32)
    active[:, 0] = 0
    found = np.asarray(activation_entropy(active))
    np.testing.assert_allclose(found[1:], entropy(active[:, 1:]), rtol=1e-5)
    assert np.isnan(found[0])


def test_planted_neurons_are_found_and_only_these() -> None:
    """Of 2,000 neurons 10 serve one language each; 30 as active ones serve all, 20 specific ones are hardly active."""
    rng = np.random.default_rng(1)
    active = rng.uniform(0.05, 0.3, (4, 2000)).astype(np.float32)
    for language in range(4):
        active[:, 10 * language: 10 * language + 10] = 0.01
        active[language, 10 * language: 10 * language + 10] = 0.9
    active[:, 40:70] = rng.uniform(0.8, 1, (4, 30))
    active[:, 70:90] = 0.001
    active[0, 70:90] = 0.1
    found = language_neurons(active, part=0.02)
    wanted = np.zeros_like(found)
    for language in range(4):
        wanted[language, 10 * language: 10 * language + 10] = True
    np.testing.assert_array_equal(found, wanted)


def test_nothing_is_called_where_nothing_is_active() -> None:
    assert not language_neurons(np.zeros((3, 100), np.float32)).any()


def test_both_ends_never_hold_what_has_no_score() -> None:
    ap = np.array([[0.2, np.nan, 0.9, 0.1], [0.5, np.nan, 0.4, 0.3]], np.float32)
    high, low = both_ends(ap, 2, 2)
    assert set(high[0]) == {2, 0} and set(low[0]) == {3, 0} and 1 not in high and 1 not in low


@pytest.mark.parametrize("options", [{"part": 0.0}, {"bar": 1.0}])
def test_shares_outside_are_named(options) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} is"):
        language_neurons(np.ones((2, 3), np.float32), **options)
