"""What validates influence is itself right: matrices by hand, responses by another optimiser, methods in order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from tolerances import close

from xlingjax.influence.curvature import flatten, gauss_newton
from xlingjax.influence.scoring import sequence_gradients
from xlingjax.influence.validation import methods, networks, problems, response, retraining, texts

TINY = texts.TransformerConfig(
    vocab_size=7, layers=1, width=4, heads=2, mlp_width=5, positions="learned", max_length=6)


def network(loss):
    return networks.network_problem(loss, (3, 4, 2), 30, 4, 100)


def parts(problem):
    return problem.outputs, problem.loss, problem.rest, problem.weights


def test_gauss_newton_of_a_network_is_the_sum_written_out():
    for loss in problems.LOSSES:
        problem = network(loss)
        found = problems.gauss_newton_matrix(*parts(problem), problem.inputs)
        slopes = np.asarray(jax.jacfwd(lambda w, p=problem: p.outputs((), w, p.inputs)[:, 0])(problem.weights))
        p = np.asarray(jax.nn.softmax(problem.outputs((), problem.weights, problem.inputs)[:, 0]))
        bends = [np.diag(row) - np.outer(row, row) if loss == "softmax" else np.eye(2) for row in p]
        wanted = np.mean([j.T @ h @ j for j, h in zip(slopes, bends)], 0)
        close(found, wanted, 1e-5 * np.abs(wanted).max())


def test_a_text_is_the_library_s_own_problem():
    """Gradients and products of `Text` against those by statistics inside the model's backward pass."""
    problem = texts.text_problem(TINY, 8, 2, 6, 3)
    chosen = problem.outputs.chosen
    model = texts.Model(problem.rest, TINY)
    tokens = texts.as_tokens(np.asarray(problem.inputs))
    found = problems.gradients(*parts(problem), problem.inputs, problem.targets)
    wanted = flatten(sequence_gradients(model, chosen, tokens), chosen)
    close(found, wanted, 1e-4 * np.abs(wanted).max())
    v = np.random.default_rng(0).standard_normal(wanted.shape[1])
    wanted = gauss_newton(model, chosen, tokens)(v)
    close(np.asarray(problems.gauss_newton_matrix(*parts(problem), problem.inputs)) @ v, wanted,
          1e-4 * np.abs(wanted).max())


def test_variances_of_a_network_are_the_diagonal_of_its_fisher_matrix():
    """In the basis of weights, as labels drawn many times tend to it."""
    problem = networks.network_problem("softmax", (3, 4, 2), 400, 4, 30)
    found = flatten(problem.factors.diagonal, problem.factors.matrices)
    wanted = np.diag(problems.gauss_newton_matrix(*parts(problem), problem.inputs))
    assert np.corrcoef(found, wanted)[0, 1] > 0.99 and abs(found.sum() / wanted.sum() - 1) < 0.1
    g = problem.factors
    for name, squares in g.squares.items():  # a turn changes no trace
        close(squares.sum(), g.diagonal[name].sum(), 1e-4 * squares.sum())


def test_the_response_is_the_minimum_that_scipy_finds():
    problem = network("squared")
    g = np.asarray(problems.gauss_newton_matrix(*parts(problem), problem.inputs))
    damping, rows = methods.mean_damping(g), np.array([0, 7])
    found = response.bregman_response(problem, g, damping, rows)
    assert found.left.max() < 0.02
    start = np.asarray(problem.weights)
    at = problem.outputs((), problem.weights, problem.inputs)
    before = problems.losses("squared", problem.outputs((), problem.weights, problem.queries), problem.wanted)

    @jax.jit
    def objective(w, row):
        h = problem.outputs((), w, problem.inputs)
        near = problems.divergences("squared", h, at).mean() + damping / 2 * jnp.square(w - start).sum()
        return near + problems.losses("squared", h, problem.targets)[row] / len(h)

    slope = jax.jit(jax.grad(objective))
    for place, row in enumerate(rows):
        done = scipy.optimize.minimize(lambda w, row=row: float(objective(w, row)), start, method="BFGS",
                                       jac=lambda w, row=row: np.asarray(slope(w, row), float))
        after = problems.losses("squared", problem.outputs((), jnp.asarray(done.x, jnp.float32), problem.queries),
                                problem.wanted)
        wanted = np.asarray(after - before)
        close(found.change[:, place], wanted, 0.05 * np.abs(wanted).max())


@pytest.mark.slow
def test_methods_follow_the_response_in_their_order():
    problem = networks.network_problem("squared", (8, 16, 16, 1), seed=0)
    g = np.asarray(problems.gauss_newton_matrix(*parts(problem), problem.inputs))
    damping, rows = methods.mean_damping(g), np.arange(0, 200, 8)
    found = response.bregman_response(problem, g, damping, rows)
    r = {name: response.correlations(found.change, one[:, rows]).mean()
         for name, one in methods.influences(problem, damping, g).items()}
    assert r["exact inverse"] > 0.8 and r["ekfac"] > r["dot"] + 0.1 and r["exact inverse"] > r["ekfac"]


def test_a_subset_s_score_is_the_order_of_what_training_on_it_gives():
    """A model that a subset trains by sums is foretold by sums; one whose losses are noise is not."""
    kept = retraining.halves(20, 40, 0)
    assert (kept.sum(1) == 10).all() and len({row.tobytes() for row in kept}) > 30
    scores = np.random.default_rng(1).standard_normal((3, 20))
    honest = retraining.retrained(lambda weight, seed: -scores @ weight, kept, 2, show=False)
    assert (retraining.datamodelling_scores(honest, scores) > 0.999).all()
    assert (retraining.split_half(honest) > 0.999).all()
    rng = np.random.default_rng(2)
    noise = retraining.retrained(lambda weight, seed: rng.standard_normal(3), kept, 2, show=False)
    assert np.abs(retraining.datamodelling_scores(noise, scores).mean()) < 0.3


def test_training_on_a_half_is_training_with_the_others_left_out():
    problem = network("squared")
    again = retraining.retraining_of(problem, 20)
    weight = np.repeat([1.0, 0.0], 15).astype(np.float32)
    few = problem._replace(inputs=problem.inputs[:15], targets=problem.targets[:15])
    close(again(weight, 0), retraining.retraining_of(few, 20)(np.ones(15, np.float32), 0), 1e-4)
