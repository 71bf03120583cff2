"""Linear maps, each as one product of two matrices."""

import functools
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float


def product_of_rows(x: Float[Array, "*rows K"], kernel: Float[Array, "K N"], *given: Any, **more: Any) -> Array:
    """`x @ kernel` with the rows of x on one axis; the other arguments are those of `jax.lax.dot_general`.

    The kernel's gradient then sums over one axis. XLA has no fast product on CPUs for a sum over two: with it a
    training step of an MLP takes half as long again.
    """
    flat = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **more)
    return flat.reshape(*x.shape[:-1], kernel.shape[1])


Linear = functools.partial(nnx.Linear, dot_general=product_of_rows)
