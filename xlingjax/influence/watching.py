"""Statistics of training gradients, taken inside the backward pass: identities whose cotangents are the statistics.

With a the input of a matrix at a token (a 1 at its end for a bias) and g the gradient of the loss in its output, the
gradient of one sequence is dW = sum_t a_t g_t^T. Each function here is for `Watch`: `sums` are zeros, and what
`jax.grad` gives for them is the statistic. `rows` hold `count`, float [B, T].
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from xlingjax.kernels.kronecker import gradient_products, low_rank_products, second_moments, squared_gradients

# In `sums`, and no sum: no gradient is asked of them.
GIVEN = frozenset({"left", "right", "row", "column", "weight", "queries", "tall", "wide"})


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A `Watch` function.

    Attributes:
        kind: with `sums` of one layer, and what their gradient is,
            "covariances": `inputs` [J, J] = sum a a^T and `outputs` [O, O] = sum g g^T, over tokens that count.
            "squares": `squares` [J, O] = sum over sequences of (P^T dW R)^2, beside bases `left` P, `right` R.
            "gradients": `gradients` [B, J, O] = dW of each sequence.
            "products": `products` [Q, B] = <V_q, dW> with `queries` V [J, O, Q].
            "low-rank products": the same with V = `tall` [Q, J, r] `wide` [Q, r, O].
                Either has "self products" as a last row, where their arrays stand beside.
            "token products": `products` [Q, B, T], their parts by token.
            "components": `components` [B, m] = (P^T dW R)[i, j] of chosen i and j, beside `left`, `right`, `row`
                and `column` [m], whole numbers held as floats.
            "self products": `products` [B] = sum (P^T dW R)^2 W, beside `left`, `right` and `weight` W [J, O].
        bias: whether inputs get a 1 at their end.
    """

    kind: str
    bias: bool

    def __call__(self, h: Array, read: Array, sums: dict[str, Array], rows: dict[str, Array]) -> Array:
        return _observe(self, h, read, sums, rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _observe(what: Statistic, h: Array, read: Array, sums: dict[str, Array], rows: dict[str, Array]) -> Array:
    return h


def _forward(what: Statistic, h: Array, read: Array, sums: dict[str, Array], rows: dict[str, Array]) -> tuple:
    return h, (read, sums, rows)


def _backward(what: Statistic, kept: tuple, g: Float[Array, "B T O"]) -> tuple:
    read, sums, rows = kept
    a, slope = read.astype(jnp.float32), g.astype(jnp.float32)
    if what.bias:
        a = jnp.concatenate([a, jnp.ones((*a.shape[:-1], 1), a.dtype)], axis=-1)
    # Padding has no gradient; its input may be anything, and is taken out so that 0 * NaN is 0.
    a = jnp.where(rows["real"][..., None] > 0, a, 0)
    found = jax.tree.map(jnp.zeros_like, sums)
    match what.kind:
        case "covariances":
            found |= {"inputs": second_moments(a, rows["count"]), "outputs": second_moments(slope, rows["count"])}
        case "squares":
            found["squares"] = squared_gradients(a, slope, sums["left"], sums["right"])
        case "gradients":
            found["gradients"] = jnp.einsum("bti,bto->bio", a, slope)
        case "products":
            found["products"] = _and_own(gradient_products(a, slope, sums["queries"]), a, slope, sums)
        case "low-rank products":
            found["products"] = _and_own(low_rank_products(a, slope, sums["tall"], sums["wide"]), a, slope, sums)
        case "token products":
            of_query = lambda query: jnp.einsum("bto,bto->bt", a @ query, slope)
            found["products"] = jax.lax.map(of_query, jnp.moveaxis(sums["queries"], -1, 0))
        case "components":
            at = lambda name: sums[name].astype(jnp.int32)
            # Columns of the bases are taken first: of all J x O components only m are made.
            reads, slopes = a @ sums["left"][:, at("row")], slope @ sums["right"][:, at("column")]
            found["components"] = (reads * slopes).sum(1)
        case "self products":
            found["products"] = _own(a, slope, sums)
    return g, jnp.zeros_like(read), found, jax.tree.map(jnp.zeros_like, rows)


def _own(a: Float[Array, "B T J"], g: Float[Array, "B T O"], sums: dict[str, Array]) -> Float[Array, "B"]:
    """sum (P^T dW R)^2 W of each sequence."""
    moved = (a @ sums["left"], g @ sums["right"])
    return jax.lax.map(lambda pair: (jnp.square(pair[0].T @ pair[1]) * sums["weight"]).sum(), moved)


def _and_own(
    products: Float[Array, "Q B"], a: Float[Array, "B T J"], g: Float[Array, "B T O"], sums: dict[str, Array],
) -> Array:
    """The products, and below them `_own` where `sums` has what it takes."""
    return jnp.concatenate([products, _own(a, g, sums)[None]]) if "weight" in sums else products


_observe.defvjp(_forward, _backward)
