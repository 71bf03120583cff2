"""LEACE against its formula in float64, and against what it promises: no linear probe is left."""

import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from xlingjax.errors import InputError
from xlingjax.kernels.erasure import erase, fit_eraser


def sample(classes: int, size: int = 400, width: int = 12, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, size)
    mix = rng.standard_normal((width, width))
    x = rng.standard_normal((size, width)) @ mix + 3 * rng.standard_normal((classes, width))[y]
    return x, y


@pytest.mark.promise
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_it_is_the_formula(classes) -> None:
    """x - W^+ P W (x - mean) with SciPy's matrix root and NumPy's pseudo-inverse."""
    x, y = sample(classes)
    z = np.eye(classes)[y]
    centre = x.mean(0)
    sigma = (x - centre).T @ (x - centre) / len(x)
    cross = (x - centre).T @ (z - z.mean(0)) / len(x)
    whiten = np.linalg.pinv(np.real(scipy.linalg.sqrtm(sigma)))
    project = (whiten @ cross) @ np.linalg.pinv(whiten @ cross, rcond=1e-9)
    wanted = x - (x - centre) @ (np.linalg.pinv(whiten) @ project @ whiten).T
    eraser = fit_eraser(x, y)
    assert eraser.rank == classes - 1
    np.testing.assert_allclose(erase(x, eraser), wanted, atol=1e-9)


@pytest.mark.promise
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_no_linear_probe_is_left(shrinkage) -> None:
    """Also with weights that balance classes, and more features than samples."""
    for classes, size, width in ((2, 400, 12), (3, 300, 8), (2, 60, 90)):
        x, y = sample(classes, size, width)
        weight = (len(y) / classes / np.bincount(y, minlength=classes))[y]
        clean = erase(x, fit_eraser(x, y, weight, shrinkage))
        means = np.stack([clean[y == c].mean(0) for c in range(classes)])
        assert np.abs(means - means[0]).max() < 1e-7
        assert LogisticRegression(C=1.0, max_iter=500).fit(x, y).score(x, y) > 0.8
        probe = LogisticRegression(C=1e3, max_iter=2000, tol=1e-9, class_weight="balanced").fit(clean, y)
        np.testing.assert_allclose(probe.predict_proba(clean), 1 / classes, atol=1e-4)


def test_no_smaller_change_erases() -> None:
    """Among matrices that leave no covariance with a binary label, SciPy finds none that moves the sample less."""
    x, y = sample(2, 200, 3)
    centred = x - x.mean(0)
    cross = centred.T @ (y - y.mean()) / len(x)
    moved = lambda flat: np.square(centred @ flat.reshape(3, 3).T).sum() / len(x)  # of M x with r(x) = x - M x
    best = minimize(moved, np.eye(3).reshape(-1), method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
                    constraints={"type": "eq", "fun": lambda flat: flat.reshape(3, 3) @ cross - cross})  # fmt: skip
    ours = np.square(x - erase(x, fit_eraser(x, y))).sum() / len(x)
    assert ours == pytest.approx(best.fun, rel=1e-5)


def test_what_cannot_be_erased() -> None:
    x, y = sample(2)
    for given, said in (((x, np.zeros(400, int)), "1 class has samples"), ((x, y, None, 2.0), "shrinkage is 2.0")):
        with pytest.raises(InputError, match=said):
            fit_eraser(*given)
