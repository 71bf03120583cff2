"""Inverses without factors: the Gauss-Newton matrix of the loss as products, and three ways to solve with it.

    G = E over sequences of sum_t J_t^T H_t J_t,    H_t = diag(p) - p p^T of the next token's distribution

which is the covariance of a sequence's gradient when its labels are drawn from the model, so what EK-FAC approximates.
For tiny models `exact` writes G out; `conjugate_gradient` and `lissa` (Agarwal et al. 2017) need products only. All are
dear: a product is two passes over the corpus, and a query needs many.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
from jaxtyping import Array, Bool, Float, Int

from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError
from xlingjax.influence.losses import Scored, batches_of, scored_places
from xlingjax.influence.matrices import Matrix
from xlingjax.models import Model
from xlingjax.models.transformer import forward, unembed
from xlingjax.precision import full_precision

Tangents = Mapping[str, Float[Array, "L J O"]]
Product = Callable[[np.ndarray], np.ndarray]  # of a flat vector


def flatten(parts: Mapping[str, Any], chosen: Sequence[Matrix]) -> Float[np.ndarray, "*q P"]:
    """All weights of one gradient or of several [q, L, J, O] in one row each."""
    lead = np.asarray(parts[chosen[0].name]).ndim - 3
    rows = [np.asarray(parts[m.name], float).reshape(*np.shape(parts[m.name])[:lead], -1) for m in chosen]
    return np.concatenate(rows, axis=-1)


def unflatten(flat: Float[np.ndarray, "*q P"], chosen: Sequence[Matrix], layers: int) -> dict[str, np.ndarray]:
    """What `flatten` joined."""
    ends = np.cumsum([layers * m.rows * m.outputs for m in chosen])
    parts = np.split(flat, ends[:-1], axis=-1)
    return {m.name: part.reshape(*flat.shape[:-1], layers, m.rows, m.outputs) for m, part in zip(chosen, parts)}


def displaced(params: Any, chosen: Sequence[Matrix], moved: Tangents) -> dict[str, Any]:
    """A model's parameters with something added to the weights of `chosen`."""
    layers = {block: dict(parts) for block, parts in params["layers"].items()}
    for matrix in chosen:
        block, name = matrix.name.split("/")
        held = dict(layers[block][name])
        held["kernel"] = held["kernel"] + moved[matrix.name][:, :matrix.inputs]
        if matrix.bias:
            held["bias"] = held["bias"] + moved[matrix.name][:, -1]
        layers[block][name] = held
    return {**params, "layers": layers}


def gauss_newton(
    model: Model, chosen: Sequence[Matrix], tokens: Tokens, scored: Scored | None = None, *, batch_tokens: int = 4096,
) -> Product:
    """The function v -> G v for flat vectors over the weights of `chosen`, over a whole corpus."""
    layers = model.config.layers

    def product(v: np.ndarray) -> np.ndarray:
        given = {name: jnp.asarray(one, jnp.float32) for name, one in unflatten(v, chosen, layers).items()}
        total = np.zeros(v.shape)
        for batch in batches_of(model, tokens, scored, batch_tokens):
            found = _product(model.params, model.config, tuple(chosen), given, batch.tokens, batch.mask, batch.where)
            total += flatten(found, chosen)
        return total / len(tokens)

    return product


@functools.partial(jax.jit, static_argnums=(1, 2))
@full_precision
def _product(
    params: Any, config: Any, chosen: tuple[Matrix, ...], v: Tangents, tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"], scored: Bool[Array, "B T"],
) -> dict[str, Array]:
    places = scored_places(scored, mask)

    def logits(moved: Tangents) -> Float[Array, "B T V"]:
        hidden, _ = forward(displaced(params, chosen, moved), config, tokens, mask)
        return unembed(params, config, hidden).astype(jnp.float32)

    at = jax.tree.map(jnp.zeros_like, dict(v))
    out, along = jax.jvp(logits, (at,), (dict(v),))
    p = jax.nn.softmax(out)
    bent = p * (along - (p * along).sum(-1, keepdims=True))
    return jax.vjp(logits, at)[1](jnp.where(places[..., None], bent, 0))[0]


def exact(product: Product, queries: Float[np.ndarray, "q P"], damping: float) -> Float[np.ndarray, "q P"]:
    """(G + damping)^-1 of each query by G written out; for up to some thousand weights.

    >>> exact(lambda v: 3 * v, np.array([[4.0, 8.0]]), 1.0).round(6).tolist()
    [[1.0, 2.0]]
    """
    size = queries.shape[-1]
    dense = np.stack([product(row) for row in np.eye(size)])
    return np.linalg.solve((dense + dense.T) / 2 + damping * np.eye(size), queries.T).T


def conjugate_gradient(
    product: Product, queries: Float[np.ndarray, "q P"], damping: float, *, steps: int = 100, tolerance: float = 1e-5,
) -> Float[np.ndarray, "q P"]:
    """(G + damping)^-1 of each query by conjugate gradients (SciPy's)."""
    size = queries.shape[-1]
    whole = scipy.sparse.linalg.LinearOperator((size, size), matvec=lambda v: product(v) + damping * v)
    return np.stack([scipy.sparse.linalg.cg(whole, query, rtol=tolerance, maxiter=steps)[0] for query in queries])


def lissa(
    product: Product, queries: Float[np.ndarray, "q P"], damping: float, *, steps: int = 200,
    scale: float | None = None,
) -> Float[np.ndarray, "q P"]:
    """(G + damping)^-1 of each query by the series r <- v + (1 - (G + damping) / scale) r, over `scale`.

    Args:
        scale: at least the largest eigenvalue of G + damping; by default 1.1 times it, by power iteration.

    Raises:
        InputError: the series diverges.
    """
    if scale is None:
        scale = 1.1 * (_largest(product, queries.shape[-1]) + damping)
    out = []
    for query in queries:
        r, bound = query.copy(), 10 * float(np.linalg.norm(query)) * scale / damping
        for _ in range(steps):
            r = query + r - (product(r) + damping * r) / scale
            if not np.linalg.norm(r) < bound:  # no solution is longer than |query| scale / damping
                raise InputError(f"LiSSA diverges with scale {scale:g}; give a larger one")
        out.append(r / scale)
    return np.stack(out)


def _largest(product: Product, size: int, turns: int = 20) -> float:
    """The largest eigenvalue, by power iteration."""
    v: np.ndarray = np.random.default_rng(0).standard_normal(size)
    for _ in range(turns):
        v = product(v / np.linalg.norm(v))
    return float(np.linalg.norm(v))
