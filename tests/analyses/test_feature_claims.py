"""The rule for claims: it needs every control, most languages, and keeps its level where nothing is there."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from xlingjax.analyses.features.causal import CONTROLS
from xlingjax.analyses.features.claims import NOT_SHOWN, NOT_TESTED, SHOWN, claims


def made(excess, se=0.02, documents=30):
    """excess [V, G, 3 controls]."""
    excess = np.asarray(excess, float)
    shape = excess.shape[:2]
    return xr.Dataset(
        {"excess": (("value", "language", "control"), excess),
         "excess_se": (("value", "language", "control"), np.where(np.isnan(excess), np.nan, se)),
         "documents": (("value", "language"), np.full(shape, float(documents)))},
        coords={"value": [f"v{i}" for i in range(shape[0])], "language": [f"g{i}" for i in range(shape[1])],
                "control": list(CONTROLS)})


@pytest.mark.promise
def test_each_control_has_to_be_exceeded() -> None:
    clear = np.full((1, 3, 3), 0.3)
    assert claims(made(clear))["verdict"].item() == SHOWN
    for control in range(3):
        excess = clear.copy()
        excess[..., control] = 0.01
        found = claims(made(excess))
        assert found["verdict"].item() == NOT_SHOWN and set(found["nearest"].values.ravel()) == {CONTROLS[control]}


@pytest.mark.promise
def test_most_languages_have_to_count_and_one_is_not_enough() -> None:
    excess = np.full((1, 4, 3), 0.3)
    excess[0, 2:] = 0
    assert claims(made(excess))["verdict"].item() == NOT_SHOWN, "two of four"
    excess[0, 2] = 0.3
    assert claims(made(excess))["verdict"].item() == SHOWN
    excess[0, 1:] = np.nan
    assert claims(made(excess))["verdict"].item() == NOT_SHOWN, "one tested language is no majority"
    excess[:] = np.nan
    found = claims(made(excess))
    assert found["verdict"].item() == NOT_TESTED and np.isnan(found["p"]).all()


def test_p_is_students_largest_adjusted_by_holm() -> None:
    excess = np.array([[[0.06, 0.05, 0.07], [0.2, 0.2, 0.2]]])
    found = claims(made(excess))
    raw = scipy.stats.t.sf(np.array([0.05, 0.2]) / 0.02, 29)
    np.testing.assert_allclose(found["raw_p"].values[0], raw)
    np.testing.assert_allclose(found["p"].values[0], [raw[0], 2 * raw[1]])


def test_nothing_varies() -> None:
    found = claims(made(np.array([[[0.3] * 3, [0.0] * 3]]), se=0.0))
    assert found["p"].values[0].tolist() == [0, 1]


@pytest.mark.promise
def test_the_level_is_kept_where_nothing_is_there() -> None:
    """Worst case for the rule: two controls are always exceeded, the third has no difference in 8 values x 5 cells."""
    rng = np.random.default_rng(0)
    said, cells = 0, 0
    for _ in range(400):
        excess = np.full((8, 5, 3), 0.5)
        excess[..., 1] = rng.normal(0, 0.02, (8, 5))
        found = claims(made(excess, documents=200))
        said += int((found["verdict"] == SHOWN).any())
        cells += int(found["counts"].any())
    assert cells <= scipy.stats.binom.ppf(0.999, 400, 0.05) and said <= 2
