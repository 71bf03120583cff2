"""The curvature of a dense map `out = a @ W` by Kronecker factors: covariances, eigenbases, variances, inverse.

With inputs a [B, T, J] (a 1 at their end for a bias) and gradients g [B, T, O] of a loss in the outputs, the
gradient of one example is dW = sum_t a_t g_t^T; where there are no tokens, T is 1.

    A = E[a a^T] = P diag(alpha) P^T,    S = E[g g^T] = R diag(sigma) R^T
    Lambda = E[(P^T dW R)^2] over examples                (George et al. 2018)
    G^-1 V ~ P [(P^T V R) / (Lambda + lambda)] R^T
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from threadpoolctl import threadpool_limits

from xlingjax.errors import InputError
from xlingjax.precision import full_precision

DAMPING = 0.1  # of the mean variance of a matrix, by default
GRADIENTS_AT_ONCE = 1 << 24  # floats of whole gradients of examples that are held at a time
QUERIES_AT_ONCE = 1 << 24  # floats of whole queries, where they are given as products


def second_moments(x: Float[Array, "B T n"], count: Float[Array, "B T"]) -> Float[Array, "n n"]:
    """sum x x^T over tokens that count."""
    held = (x * count[..., None]).reshape(-1, x.shape[-1])  # one axis: XLA is slow on CPUs to sum over two
    return held.T @ held


def squared_gradients(
    a: Float[Array, "B T J"], g: Float[Array, "B T O"], left: Float[Array, "J J"], right: Float[Array, "O O"],
) -> Float[Array, "J O"]:
    """sum over examples of (P^T dW R)^2, one of them in memory."""
    add = lambda total, pair: (total + jnp.square(pair[0].T @ pair[1]), None)
    return jax.lax.scan(add, jnp.zeros((a.shape[-1], g.shape[-1])), (a @ left, g @ right))[0]


def gradient_products(
    a: Float[Array, "B T J"], g: Float[Array, "B T O"], queries: Float[Array, "J O Q"],
) -> Float[Array, "Q B"]:
    """<V_q, dW> of every example; some examples at once, so that queries are not read anew for each.

    Queries stand last: the product then reads both sides in the order in which they lie in memory.
    """
    flat = queries.reshape(-1, queries.shape[-1])
    return _in_parts(lambda pair: _whole(*pair) @ flat, (a, g), max(1, GRADIENTS_AT_ONCE // len(flat))).T


def _whole(a: Float[Array, "b T J"], g: Float[Array, "b T O"]) -> Float[Array, "b w"]:
    """dW of every example, its weights in one row."""
    return jnp.einsum("bti,bto->bio", a, g).reshape(len(a), -1)


def _in_parts(
    function: Callable[[tuple[Array, ...]], Array], arrays: tuple[Array, ...], together: int,
) -> Float[Array, "n m"]:
    """What a function makes of arrays that lead with the same axis, `together` of them at a time."""
    count, rest = divmod(len(arrays[0]), together)
    parts = []
    if count:
        split = tuple(x[:count * together].reshape(count, together, *x.shape[1:]) for x in arrays)
        made = jax.lax.map(function, split)
        parts.append(made.reshape(count * together, made.shape[-1]))
    if rest:
        parts.append(function(tuple(x[count * together:] for x in arrays)))
    return jnp.concatenate(parts)


def low_rank_products(
    a: Float[Array, "B T J"], g: Float[Array, "B T O"], tall: Float[Array, "Q J r"], wide: Float[Array, "Q r O"],
) -> Float[Array, "Q B"]:
    """`gradient_products` of queries that are given as products of two matrices.

    Token by token it takes Q B T r (J + O) multiplications; with whole queries, some at a time, Q J O (r + B) and
    B T J O each time. Few and short sequences are cheaper token by token; shapes tell which.

    >>> a, g = (jax.random.normal(jax.random.key(n), (2, 5, 3 + n)) for n in range(2))
    >>> tall, wide = jax.random.normal(jax.random.key(2), (4, 3, 1)), jax.random.normal(jax.random.key(3), (4, 1, 4))
    >>> whole = jnp.moveaxis(tall @ wide, 0, -1)
    >>> bool(jnp.allclose(low_rank_products(a, g, tall, wide), gradient_products(a, g, whole), atol=1e-5))
    True
    """
    (examples, length, rows), (queries, rank, outputs) = a.shape, wide.shape
    size, tokens = rows * outputs, examples * length
    together = max(1, min(queries, QUERIES_AT_ONCE // size))
    by_token = queries * tokens * rank * (rows + outputs)
    if by_token <= queries * size * (rank + examples) + -(-queries // together) * tokens * size:
        of_pair = lambda pair: jnp.einsum("btr,btr->b", a @ pair[0], jnp.einsum("bto,ro->btr", g, pair[1]))
        return jax.lax.map(of_pair, (tall, wide))
    at_once = max(1, GRADIENTS_AT_ONCE // size)

    def some(pair: tuple[Array, ...]) -> Float[Array, "q B"]:
        flat = (pair[0] @ pair[1]).reshape(-1, size)
        return _in_parts(lambda one: (flat @ _whole(*one).T).T, (a, g), at_once).T

    return _in_parts(some, (tall, wide), together)


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

    def one(place: tuple[int, slice]) -> None:
        layer, part = place
        block = np.asarray(covariance[layer, part, part], np.float64)
        block = (block + block.T) / 2
        try:
            found, basis = _eigh(block)
        except np.linalg.LinAlgError:  # rare, and gone once eigenvalues are a little apart
            nudge = np.trace(block) / len(block) * 1e-6
            found, basis = _eigh(block + nudge * np.diag(np.linspace(1, 2, len(block))))
        values[layer, part], vectors[layer, part, part] = np.maximum(found, 0), basis

    places = [(layer, slice(start, end)) for layer in range(layers) for start, end in zip(bounds, bounds[1:])]
    # Several, each on one core, are done sooner than one on all, and come out the same on any number of cores.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(1 if _on_gpu() else os.cpu_count()) as workers:
        list(workers.map(one, places))
    return values, vectors


def _on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def _eigh(block: Float[np.ndarray, "n n"]) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors in float64, on a GPU where there is one; `LinAlgError` where they are not found."""
    if not _on_gpu():
        return np.linalg.eigh(block)
    with jax.enable_x64(True):
        values, vectors = (np.asarray(one) for one in jnp.linalg.eigh(jnp.asarray(block)))
    if not np.isfinite(values).all():
        raise np.linalg.LinAlgError("eigenvalues are not finite")
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
    """P [(P^T V R) * weight] R^T in float32, one layer on the device at a time; without bases, V * weight.

    >>> turn = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    >>> inverse_product(np.array([[[1.0], [2.0]]]), np.array([[[10.0], [1.0]]]), turn, np.ones((1, 1, 1))).tolist()
    [[[1.0], [20.0]]]
    """
    if left is None or right is None:
        return gradient * weight
    out = np.empty(gradient.shape, np.float32)
    each, made = gradient.reshape(-1, *weight.shape), out.reshape(-1, *weight.shape)
    for layer in range(len(weight)):
        made[:, layer] = _turned(*(jnp.asarray(one, jnp.float32) for one in (
            each[:, layer], weight[layer], left[layer], right[layer])))
    return out


@jax.jit
@full_precision
def _turned(
    v: Float[Array, "q J O"], weight: Float[Array, "J O"], left: Float[Array, "J J"], right: Float[Array, "O O"],
) -> Float[Array, "q J O"]:
    rows = lambda one, basis: (one.reshape(-1, len(basis)) @ basis).reshape(one.shape)
    turned = jnp.einsum("ji,qjo->qio", left, rows(v, right)) * weight
    return rows(jnp.einsum("ij,qjo->qio", left, turned), right.T)
