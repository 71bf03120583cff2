"""Every way to an inverse that the toolkit has, on the same problem."""

import numpy as np
from jaxtyping import Float

from xlingjax.influence.curvature import conjugate_gradient, exact, lissa
from xlingjax.influence.factors import METHODS
from xlingjax.influence.validation.problems import Problem, gauss_newton_matrix, gradients

SHORT, LONG = 10, 200  # steps of LiSSA; each is two passes over the examples, for every query


def influences(
    problem: Problem, damping: float, g: Float[np.ndarray, "P P"] | None = None,
) -> dict[str, Float[np.ndarray, "q n"]]:
    """Method -> grad of each query's loss^T (G + damping)^-1 grad of each example's.

    Args:
        g: the Gauss-Newton matrix, made where it is not given.
    """
    ours = (problem.outputs, problem.loss, problem.rest, problem.weights)
    slopes = np.asarray(gradients(*ours, problem.inputs, problem.targets), np.float64)
    asked = np.asarray(gradients(*ours, problem.queries, problem.wanted), np.float64)
    dense = np.asarray(gauss_newton_matrix(*ours, problem.inputs) if g is None else g, np.float64)
    product = lambda v: dense @ v
    made = {"exact inverse": exact(product, asked, damping),
            "conjugate gradients": conjugate_gradient(product, asked, damping)}
    made |= {f"LiSSA, {steps} steps": lissa(product, asked, damping, steps=steps) for steps in (LONG, SHORT)}
    made |= {name: problem.precondition(asked, name, damping) for name in METHODS}
    return {name: one @ slopes.T for name, one in made.items()}


def mean_damping(g: Float[np.ndarray, "P P"], share: float = 0.1) -> float:
    """`share` of the mean eigenvalue.

    >>> round(mean_damping(np.diag([1.0, 3.0])), 3)
    0.2
    """
    return share * float(np.trace(g)) / len(g)
