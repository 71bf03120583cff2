"""Probes reach the minimum that converged scikit-learn reaches, whatever they are batched with."""

import jax
import numpy as np
import pytest
import scipy.special
from sklearn.linear_model import LogisticRegression
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.kernels.probing import _fit, fit_probes, probe_gradients, score_probes

pytestmark = pytest.mark.promise


def world(seed=0, layers=2, samples=300, width=12, classes=4, runs=3, signal=1.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, (runs, samples))
    centres = rng.standard_normal((layers, classes, width)) * signal
    x = centres[:, y[0]] + rng.standard_normal((layers, samples, width))
    weight = (rng.random((runs, samples)) < 0.7) * rng.integers(1, 3, (runs, samples))
    return x.astype(np.float32), y, weight.astype(np.float32)


def objective(x, y, weight, w, l2):
    """In float64, of one layer and run."""
    w = np.asarray(w, np.float64)
    logits = np.asarray(x, np.float64) @ w[:-1] + w[-1]
    log_p = scipy.special.log_softmax(logits, axis=1)[np.arange(len(y)), y]
    counts = weight > 0
    return -(weight * log_p)[counts].sum() + l2 / 2 * (w[:-1] ** 2).sum()


def scikit_learn(x, y, weight, l2):
    counts = weight > 0
    fit = LogisticRegression(C=1 / l2, tol=1e-10, solver="newton-cholesky", max_iter=500).fit(
        x[counts].astype(np.float64), y[counts], weight[counts].astype(np.float64))
    return np.concatenate([fit.coef_.T, fit.intercept_[None]])


def run(*arrays, **options):
    with jax.numpy_dtype_promotion("strict"):
        return np.asarray(fit_probes(*arrays, **options))


@pytest.mark.parametrize("l2", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(
    "shape", ["plain", "no signal", "unequal scales", "more features than samples"])
def test_equals_converged_scikit_learn(l2, shape):
    if shape == "more features than samples":
        x, y, weight = world(1, samples=60, width=90)
    else:
        x, y, weight = world(1, signal=0.0 if shape == "no signal" else 1.0)
    if shape == "unequal scales":
        x = x * np.geomspace(0.03, 100, x.shape[2], dtype=np.float32) + np.float32(20)
    w = run(x, y, weight, 4, l2=l2)
    for layer in range(2):
        for r in range(3):
            theirs = scikit_learn(x[layer], y[r], weight[r], l2)
            best = objective(x[layer], y[r], weight[r], theirs, l2)
            ours = objective(x[layer], y[r], weight[r], w[layer, r], l2)
            assert ours <= best * (1 + 1e-6), (layer, r, ours, best)
            logits = [x[layer].astype(np.float64) @ m[:-1] + m[-1] for m in (w[layer, r], theirs)]
            first, second = np.sort(logits[1], axis=1).T[[-1, -2]]
            clear = first - second > 0.01  # the others lie on the border
            assert clear.mean() > 0.9 and (logits[0].argmax(1) == logits[1].argmax(1))[clear].all()
    assert float(probe_gradients(x, y, weight, w, l2).max()) < 1e-4


def test_two_classes_are_scikit_learns_with_half_the_penalty():
    x, y, weight = world(2, classes=2)
    w = run(x, y, weight, 2, l2=1.0)
    fit = scikit_learn(x[0], y[0], weight[0], 0.5)
    close(w[0, 0, :, 1] - w[0, 0, :, 0], fit[:, 0], 2e-3)


def test_runs_and_layers_do_not_touch_each_other():
    x, y, weight = world(3)
    together = run(x, y, weight, 4)
    for layer in range(2):
        for r in range(3):
            alone = run(x[layer:layer + 1], y[r:r + 1], weight[r:r + 1], 4)
            close(alone[0, 0], together[layer, r], 2e-3)


def test_samples_without_weight_do_not_count():
    x, y, weight = world(4)
    out = np.flatnonzero((weight == 0).all(axis=0))
    assert len(out)
    bad = x.copy()
    bad[:, out] = np.nan
    y[:, out] = -1
    close(run(bad, y, weight, 4), run(x, np.maximum(y, 0), weight, 4), 1e-5)
    kept = np.flatnonzero(weight[0])
    alone = run(x[:, kept], y[:1, kept], weight[:1, kept], 4)
    close(alone[:, 0], run(x, np.maximum(y, 0), weight, 4)[:, 0], 2e-3)


def test_a_class_that_does_not_occur_is_never_predicted():
    x, y, weight = world(5)
    weight[0, y[0] == 2] = 0
    w = run(x, y, weight, 4)
    assert (w[:, 0, -1, 2] == -np.inf).all() and np.isfinite(np.delete(w[:, 0], 2, axis=-1)).all()
    predicted, log_p = score_probes(x, y, w)
    assert not (np.asarray(predicted)[:, 0] == 2).any()
    without = run(x, np.where(y > 2, y - 1, y)[:1], weight[:1], 3)
    close(np.delete(w[:, 0], 2, axis=-1), without[:, 0], 2e-3)


def test_penalty_and_data_compile_nothing():
    x, y, weight = world(6)
    run(x, y, weight, 4, l2=1.0)
    before = _fit._cache_size()
    for seed in range(3):
        run(*world(seed), 4, l2=0.1 * (seed + 1))
    assert _fit._cache_size() == before


def test_scores_are_those_of_the_weights():
    x, y, weight = world(7)
    w = run(x, y, weight, 4)
    predicted, log_p = score_probes(x, y, w)
    logits = np.einsum("lsd,lrdc->lrsc", x, w[:, :, :-1]) + w[:, :, -1][:, :, None]
    assert (np.asarray(predicted) == logits.argmax(-1)).mean() > 0.999
    theirs = np.take_along_axis(scipy.special.log_softmax(logits, -1), np.broadcast_to(
        y[None, ..., None], (2, 3, 300, 1)), -1)[..., 0]
    close(log_p, theirs, 1e-4)


def test_shapes_that_do_not_fit_are_named():
    x, y, weight = world(8)
    with pytest.raises((InputError, Exception), match="do not fit|Type-check"):
        fit_probes(x, y[:, :10], weight, 4)
