"""AUROC under weights is scikit-learn's; under equal weights it is the kernel's."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from xlingjax.kernels import auroc
from xlingjax.kernels.weighted_ranking import weighted_auroc


@pytest.mark.promise
def test_it_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((90, 4))
    scores[:, 1] = scores[:, 1].round(0)
    scores[:, 2] = np.maximum(scores[:, 2], 0)
    scores[:, 3] = 1.0
    labels = rng.random(90) < 0.3
    weight = np.concatenate([np.ones((90, 1)), rng.integers(0, 4, (90, 6)), rng.random((90, 3))], 1)
    ours = weighted_auroc(scores, labels, weight)
    theirs = np.array([[roc_auc_score(labels, column, sample_weight=w) for w in weight.T] for column in scores.T])
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    np.testing.assert_allclose(ours[:, 0], np.asarray(auroc(scores.astype(np.float32), labels[:, None]))[0], atol=2e-6)


def test_a_draw_without_positives_has_none() -> None:
    scores, labels = np.array([[1.0], [2.0], [np.nan]]), np.array([True, False, False])
    assert np.isnan(weighted_auroc(scores, labels, np.ones((3, 1)))).all()
    assert np.isnan(weighted_auroc(scores[:2], labels[:2], np.array([[0], [1]]))).all()
