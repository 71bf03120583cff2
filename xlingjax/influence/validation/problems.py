"""A trained model of any kind as influence functions see it: outputs as a function of a flat vector of weights.

    loss of an example = sum over its places of the loss of an output h [C] beside its target
    G = E over examples of sum_o J_o^T H_o J_o,    H = the loss's second derivative in the outputs
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xlingjax.influence.curvature import flatten, unflatten
from xlingjax.influence.factors import Factors
from xlingjax.precision import full_precision

LOSSES = ("squared", "softmax")


class Problem(NamedTuple):
    """n training examples and q queries of a trained model; O places of C outputs an example.

    Attributes:
        outputs: (rest, weights [P], inputs [n, ...]) -> [n, O, C]; hashable, as programs are compiled for it.
        loss: "squared", half the squared distance to targets [n, O, C], or "softmax", with classes int [n, O].
        rest: what the model has beside the weights that influence is asked of. weights: those, as trained.
        factors: fitted on the same examples; `flatten` of their matrices is the order of the weights.
    """

    outputs: Callable[[Any, Array, Array], Array]
    loss: str
    rest: Any
    weights: Float[Array, "P"]
    inputs: Array
    targets: Array
    queries: Array
    wanted: Array
    factors: Factors

    def precondition(
        self, gradients: Float[np.ndarray, "q P"], method: str, damping: float,
    ) -> Float[np.ndarray, "q P"]:
        """By a method of `Factors`."""
        chosen = self.factors.matrices
        layers = len(self.factors.alpha[chosen[0].name])
        made = self.factors.precondition(unflatten(gradients, chosen, layers), method, damping)
        return flatten(made, chosen)


def losses(kind: str, h: Float[Array, "n O C"], targets: Array) -> Float[Array, "n"]:
    """Of each example, summed over its places.

    >>> losses("squared", jnp.array([[[3.0]]]), jnp.array([[[1.0]]])).tolist()
    [2.0]
    """
    if kind == "squared":
        return 0.5 * jnp.square(h - targets).sum((1, 2))
    chosen = jnp.take_along_axis(h, targets[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(h, axis=-1) - chosen).sum(1)


def divergences(kind: str, h: Float[Array, "n O C"], at: Float[Array, "n O C"]) -> Float[Array, "n"]:
    """The Bregman divergence of the loss from outputs `at`: half the squared distance, or KL(softmax(at) | softmax(h)).

    >>> divergences("softmax", jnp.array([[[0.0, 0.0]]]), jnp.array([[[5.0, 5.0]]])).tolist()
    [0.0]
    """
    if kind == "squared":
        return 0.5 * jnp.square(h - at).sum((1, 2))
    log_p = jax.nn.log_softmax(at)
    return (jnp.exp(log_p) * (log_p - jax.nn.log_softmax(h))).sum((1, 2))


@functools.partial(jax.jit, static_argnums=(0, 1))
@full_precision
def gradients(
    outputs: Callable, loss: str, rest: Any, weights: Float[Array, "P"], inputs: Array, targets: Array,
) -> Float[Array, "n P"]:
    """Of each example's loss."""
    of_one = lambda w, x, t: losses(loss, outputs(rest, w, x[None]), t[None])[0]
    return jax.lax.map(lambda pair: jax.grad(of_one)(weights, *pair), (inputs, targets))


@functools.partial(jax.jit, static_argnums=(0, 1))
@full_precision
def gauss_newton_matrix(
    outputs: Callable, loss: str, rest: Any, weights: Float[Array, "P"], inputs: Array,
) -> Float[Array, "P P"]:
    """G written out, for some thousand weights at most."""

    def add(total: Array, x: Array) -> tuple[Array, None]:
        one = lambda w: outputs(rest, w, x[None])[0]
        slope = jax.jacrev(one)(weights)  # [O, C, P]
        bent = slope
        if loss == "softmax":
            p = jax.nn.softmax(one(weights))[..., None]
            bent = p * (slope - (p * slope).sum(1, keepdims=True))
        return total + jnp.einsum("ocp,ocq->pq", slope, bent), None

    size = len(weights)
    return jax.lax.scan(add, jnp.zeros((size, size)), inputs)[0] / len(inputs)
