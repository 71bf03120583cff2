"""Our functions beside trusted implementations: one table that the tests run through."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from xlingjax.kernels import ranking


class Pair(NamedTuple):
    """Two functions that should agree on whatever `inputs` draws from a random generator."""

    ours: Callable
    theirs: Callable
    inputs: Callable[[np.random.Generator], tuple]
    tolerance: float


def each_neuron(measure: Callable) -> Callable:
    """scikit-learn's measure of one ranking, as a function of (responses, labels, where)."""

    def theirs(responses, labels, where=None):
        where = np.ones(len(labels), bool) if where is None else where
        where = np.broadcast_to(where.reshape(len(where), -1), labels.shape)
        out = np.full((labels.shape[1], responses.shape[1]), np.nan)
        for concept, (label, counts) in enumerate(zip(labels.T, where.T)):
            for neuron, response in enumerate(np.asarray(responses, np.float64).T):
                chosen = label[counts]
                one_class = not chosen.any() or (measure is roc_auc_score and chosen.all())
                if not one_class and not np.isnan(response[counts]).any():
                    out[concept, neuron] = measure(chosen, response[counts])
        return out

    return theirs


average_precision = each_neuron(average_precision_score)
auroc = each_neuron(roc_auc_score)


def ranked(rng: np.random.Generator) -> tuple:
    """Responses with and without ties, labels from rare to common."""
    responses = rng.standard_normal((80, 9)).astype(np.float32)
    responses[:, 3:6] = responses[:, 3:6].round(1)
    responses[:, 6:] = np.maximum(responses[:, 6:], 0)
    return responses, rng.random((80, 5)) < np.array([0.02, 0.1, 0.3, 0.6, 0.95])


def ranked_where(rng: np.random.Generator) -> tuple:
    """The same with a mask for each concept."""
    responses, labels = ranked(rng)
    return responses, labels, rng.random(labels.shape) < 0.6


TABLE: dict[str, Pair] = {
    "average_precision": Pair(ranking.average_precision, average_precision, ranked, 2e-6),
    "average_precision, where": Pair(
        ranking.average_precision, average_precision, ranked_where, 2e-6),
    "auroc": Pair(ranking.auroc, auroc, ranked, 2e-6),
    "auroc, where": Pair(ranking.auroc, auroc, ranked_where, 2e-6),
}
