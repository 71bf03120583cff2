"""The proximal Bregman response: what influence functions are said to approximate, by optimisation.

    theta(eps) = argmin 1/n sum_i D(h_i(theta), h_i(theta_s)) + lambda/2 |theta - theta_s|^2 + eps loss_m(theta)

for every training example m (Bae et al. 2022; Grosse et al. 2023, section 2.1.1). D is the divergence of the loss, so
nothing is said about models being trained to the end. To first order in eps the change of a query's loss is
-eps grad query^T (G + lambda)^-1 grad loss_m.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from xlingjax.influence.validation.problems import Problem, divergences, losses
from xlingjax.precision import full_precision

LENGTHS = np.array([1, 0.5, 0.25, 0.1, 0.03, 0.01, 0], np.float32)  # of a step, of which the best is taken


class Response(NamedTuple):
    """Attributes:
        change: of each query's loss. left: the gradient that is left, as a share of the one at the start.
    """

    change: Float[np.ndarray, "q m"]
    left: Float[np.ndarray, "m"]


def bregman_response(
    problem: Problem, g: Float[np.ndarray, "P P"], damping: float, rows: Int[np.ndarray, "m"], *, steps: int = 60,
) -> Response:
    """The response to each of some training examples, eps = 1/n: as if it stood there twice.

    Steps along G^-1 of the gradient with the matrix of the trained model, `g`, which only decides how soon they arrive.
    """
    inverse = np.linalg.inv(np.asarray(g, np.float64) + damping * np.eye(len(g)))
    inverse = (inverse + inverse.T) / 2
    after, left = _optimised(
        problem.outputs, problem.loss, problem.rest, problem.weights, problem.inputs, problem.targets,
        jnp.asarray(rows), jnp.asarray(inverse, jnp.float32), damping, steps)
    changed = _changes(problem.outputs, problem.loss, problem.rest, problem.weights, after, problem.queries,
                       problem.wanted)
    return Response(np.asarray(changed).T, np.asarray(left))


@functools.partial(jax.jit, static_argnums=(0, 1, 9))
@full_precision
def _optimised(
    outputs: Callable, loss: str, rest: Any, start: Float[Array, "P"], inputs: Array, targets: Array,
    rows: Int[Array, "m"], inverse: Float[Array, "P P"], damping: float, steps: int,
) -> tuple[Float[Array, "m P"], Float[Array, "m"]]:
    at = outputs(rest, start, inputs)
    n = len(inputs)

    def objective(moved: Float[Array, "P"], row: Int[Array, ""]) -> Float[Array, ""]:
        h = outputs(rest, start + moved, inputs)
        near = divergences(loss, h, at).mean() + damping / 2 * jnp.square(moved).sum()
        return near + losses(loss, h, targets)[row] / n

    def one(row: Int[Array, ""]) -> tuple[Array, Array]:
        slope = lambda moved: jax.grad(objective)(moved, row)

        def step(_: int, moved: Array) -> Array:
            tried = moved - LENGTHS[:, None] * (inverse @ slope(moved))
            return tried[jnp.argmin(jax.vmap(objective, (0, None))(tried, row))]

        moved = jax.lax.fori_loop(0, steps, step, jnp.zeros_like(start))
        first, last = (jnp.linalg.norm(slope(at)) for at in (jnp.zeros_like(start), moved))
        return moved, last / first

    return jax.lax.map(one, rows)


@functools.partial(jax.jit, static_argnums=(0, 1))
@full_precision
def _changes(
    outputs: Callable, loss: str, rest: Any, start: Float[Array, "P"], moved: Float[Array, "m P"], queries: Array,
    wanted: Array,
) -> Float[Array, "m q"]:
    before = losses(loss, outputs(rest, start, queries), wanted)
    return jax.lax.map(lambda one: losses(loss, outputs(rest, start + one, queries), wanted) - before, moved)


def correlations(
    measured: Float[np.ndarray, "q m"], scores: Float[np.ndarray, "q m"],
) -> Float[np.ndarray, "q"]:
    """Pearson's of each query over examples; scores say by how much the loss falls.

    >>> correlations(np.array([[1.0, 2.0, 4.0]]), np.array([[-2.0, -4.0, -8.0]])).round(6).tolist()
    [1.0]
    """
    a, b = (x - x.mean(1, keepdims=True) for x in (measured, -scores))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
