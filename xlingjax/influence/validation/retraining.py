"""The linear datamodelling score: does the influence of a subset foretell what training on it gives?

For random halves of the training examples, the sum of influences of those in it is ranked beside the loss that a query
has after training on them alone, mean over seeds (Park et al. 2023). 0 is chance; noise of training keeps it below 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Bool, Float

from xlingjax.errors import InputError
from xlingjax.influence.validation import networks, texts
from xlingjax.influence.validation.problems import Problem, losses
from xlingjax.models.transformer import init_params
from xlingjax.progress import progress

Retrain = Callable[[np.ndarray, int], np.ndarray]  # weights [n] of examples and a seed -> losses of queries [q]


class Retrained(NamedTuple):
    """What training on subsets gave.

    Attributes:
        kept: which examples each subset has. losses: of each query, for every seed.
    """

    kept: Bool[np.ndarray, "s n"]
    losses: Float[np.ndarray, "s r q"]


def halves(count: int, subsets: int, seed: int) -> Bool[np.ndarray, "s n"]:
    """Random halves of `count` examples.

    >>> halves(6, 3, 0).sum(1).tolist()
    [3, 3, 3]
    """
    rng = np.random.default_rng([seed, 31])
    return np.stack([rng.permutation(count) < count // 2 for _ in range(subsets)])


def retrained(retrain: Retrain, kept: Bool[np.ndarray, "s n"], seeds: int, show: bool | None = None) -> Retrained:
    """Trains on every subset with every seed."""
    found = [[retrain(row.astype(np.float32), seed) for seed in range(seeds)]
             for row in progress(kept, label="retrain", unit="subsets", show=show)]
    return Retrained(kept, np.asarray(found))


def datamodelling_scores(done: Retrained, scores: Float[np.ndarray, "q n"]) -> Float[np.ndarray, "q"]:
    """Spearman's correlation of each query over subsets, of summed influence with minus the mean loss.

    >>> kept = np.array([[True, False], [False, True]])
    >>> datamodelling_scores(Retrained(kept, np.array([[[1.0]], [[2.0]]])), np.array([[5.0, 3.0]])).round(6).tolist()
    [1.0]
    """
    foretold, after = done.kept @ scores.T, -done.losses.mean(1)
    return np.array([scipy.stats.spearmanr(foretold[:, q], after[:, q]).statistic for q in range(len(scores))])


def split_half(done: Retrained) -> Float[np.ndarray, "q"]:
    """Spearman's correlation of each query's loss between the first and the second half of the seeds: how much of the
    difference between subsets is no noise of training."""
    half = done.losses.shape[1] // 2
    parts = done.losses[:, :half].mean(1), done.losses[:, half:].mean(1)
    return np.array([scipy.stats.spearmanr(parts[0][:, q], parts[1][:, q]).statistic for q in range(parts[0].shape[1])])


def retraining_of(problem: Problem, steps: int | None = None) -> Retrain:
    """Training a `network_problem` or a `text_problem` anew, with all its parameters.

    Args:
        steps: by default, those of the problem.
    """
    if isinstance(problem.outputs, networks.Network):
        return _of_network(problem, problem.outputs, steps or networks.STEPS)
    if isinstance(problem.outputs, texts.Text):
        return _of_text(problem, problem.outputs, steps or texts.STEPS)
    raise InputError(f"nothing is known about training {problem.outputs!r}; give a network's or a text's problem")


def _of_network(problem: Problem, network: networks.Network, steps: int) -> Retrain:
    def retrain(weight: np.ndarray, seed: int) -> np.ndarray:
        start = network.init(jax.random.key(500 + seed))
        after = networks.train(
            network, problem.loss, start, problem.inputs, problem.targets, jnp.asarray(weight), steps)
        return np.asarray(losses(problem.loss, network((), after, problem.queries), problem.wanted))

    return retrain


def _of_text(problem: Problem, text: texts.Text, steps: int) -> Retrain:
    logits = jax.jit(lambda params: text(params, problem.weights, problem.queries))

    def retrain(weight: np.ndarray, seed: int) -> np.ndarray:
        start = init_params(text.config, jax.random.key(500 + seed))
        after = texts.train(text.config, start, problem.inputs, jnp.asarray(weight), steps)
        return np.asarray(losses("softmax", logits(after), problem.wanted))

    return retrain
