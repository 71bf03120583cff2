"""The curvature of a dense map `out = a @ W` by Kronecker factors: covariances, eigenbases, variances, inverse.

With inputs a [B, T, J] (a 1 at their end for a bias) and gradients g [B, T, O] of a loss in the outputs, the gradient of
one example is dW = sum_t a_t g_t^T; where there are no tokens, T is 1.

    A = E[a a^T] = P diag(alpha) P^T,    S = E[g g^T] = R diag(sigma) R^T
    Lambda = E[(P^T dW R)^2] over examples                (George et al. 2018)
    G^-1 V ~ P [(P^T V R) / (Lambda + lambda)] R^T
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from xlingjax.errors import InputError

DAMPING = 0.1  # of the mean variance of a matrix, by default


def second_moments(x: Float[Array, "B T n"], count: Float[Array, "B T"]) -> Float[Array, "n n"]:
    """sum x x^T over tokens that count."""
    held = x * count[..., None]
    return jnp.einsum("bti,btj->ij", held, held)


def squared_gradients(
    a: Float[Array, "B T J"], g: Float[Array, "B T O"], left: Float[Array, "J J"], right: Float[Array, "O O"],
) -> Float[Array, "J O"]:
    """sum over examples of (P^T dW R)^2, one of them in memory."""
    add = lambda total, pair: (total + jnp.square(pair[0].T @ pair[1]), None)
    return jax.lax.scan(add, jnp.zeros((a.shape[-1], g.shape[-1])), (a @ left, g @ right))[0]


def gradient_products(
    a: Float[Array, "B T J"], g: Float[Array, "B T O"], queries: Float[Array, "Q J O"],
) -> Float[Array, "Q B"]:
    """<V_q, dW> of every example."""
    return jax.lax.map(lambda pair: jnp.einsum("qio,io->q", queries, pair[0].T @ pair[1]), (a, g)).T


def eigenbases(
    covariance: Float[np.ndarray, "L n n"], blocks: int = 1, what: str = "covariance",
) -> tuple[Float[np.ndarray, "L n"], Float[np.ndarray, "L n n"]]:
    """Eigenvalues, none below 0, and eigenvectors as columns, in float64; of diagonal blocks where there are several.

    Raises:
        InputError: it is not finite.

    >>> values, vectors = eigenbases(np.array([[[2.0, 1.0], [1.0, 2.0]]]))
    >>> values.round(6).tolist(), np.allclose(vectors[0] @ np.diag(values[0]) @ vectors[0].T, [[2, 1], [1, 2]])
    ([[1.0, 3.0]], True)
    """
    layers, n, _ = covariance.shape
    values, vectors = np.zeros((layers, n)), np.zeros((layers, n, n))
    bounds = np.linspace(0, n, min(blocks, n) + 1).astype(int)
    for layer, matrix in enumerate(covariance):
        if not np.isfinite(matrix).all():
            raise InputError(f"the covariance of the {what} in layer {layer} has values that are not finite; load the "
                             "model with dtype=\"float32\", or leave out what makes its loss overflow")
        for start, end in zip(bounds, bounds[1:]):
            block = np.asarray(matrix[start:end, start:end], np.float64)
            block = (block + block.T) / 2
            try:
                found, basis = np.linalg.eigh(block)
            except np.linalg.LinAlgError:  # rare, and gone once eigenvalues are a little apart
                nudge = np.trace(block) / len(block) * 1e-6
                found, basis = np.linalg.eigh(block + nudge * np.diag(np.linspace(1, 2, len(block))))
            values[layer, start:end], vectors[layer, start:end, start:end] = np.maximum(found, 0), basis
    return values, vectors


def inverse_weight(variance: Float[np.ndarray, "L J O"], damping: float | None = None) -> Float[np.ndarray, "L J O"]:
    """1 / (variance + lambda), lambda by default `DAMPING` times the mean variance of each layer.

    >>> inverse_weight(np.array([[[1.0, 3.0]]]), 1.0).tolist()
    [[[0.5, 0.25]]]
    """
    mean = variance.mean((1, 2), keepdims=True)
    return 1 / (variance + (DAMPING * mean if damping is None else damping))


def inverse_product(
    gradient: Float[np.ndarray, "*q L J O"], weight: Float[np.ndarray, "L J O"],
    left: Float[np.ndarray, "L J J"] | None = None, right: Float[np.ndarray, "L O O"] | None = None,
) -> Float[np.ndarray, "*q L J O"]:
    """P [(P^T V R) * weight] R^T; without bases, V * weight.

    >>> turn = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    >>> inverse_product(np.array([[[1.0], [2.0]]]), np.array([[[10.0], [1.0]]]), turn, np.ones((1, 1, 1))).tolist()
    [[[1.0], [20.0]]]
    """
    if left is None or right is None:
        return gradient * weight
    turned = np.swapaxes(left, -1, -2) @ gradient @ right
    return left @ (turned * weight) @ np.swapaxes(right, -1, -2)
