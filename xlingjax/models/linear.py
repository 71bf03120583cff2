"""What every model's modules share: linear maps as one product of two matrices, structures without parameters."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray


def product_of_rows(
    x: Float[Array, "*rows K"], kernel: Float[Array, "K N"], dimensions: Any = None, **more: Any,
) -> Float[Array, "*rows N"]:
    """`x @ kernel` with the rows of x on one axis.

    The kernel's gradient then sums over one axis; XLA has no fast product on CPUs for a sum over two.

    Args:
        dimensions: `nnx.Linear` says here what this function does anyway. more: for `jax.lax.dot_general`.
    """
    flat = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **more)
    return flat.reshape(*x.shape[:-1], kernel.shape[1])


Linear = functools.partial(nnx.Linear, dot_general=product_of_rows)


@functools.lru_cache(maxsize=128)
def structure(make: Callable[..., nnx.Module], config: Any) -> nnx.GraphDef:
    """The module `make(config, dtype, rngs)` without its parameters, for `nnx.merge`."""
    return nnx.split(nnx.eval_shape(lambda: make(config, jnp.float32, nnx.Rngs(0))))[0]


def fresh(
    make: Callable[..., nnx.Module], config: Any, dtype: DTypeLike, key: PRNGKeyArray,
) -> dict[str, Any]:
    """Its random parameters."""
    return nnx.to_pure_dict(nnx.state(make(config, jnp.dtype(dtype), nnx.Rngs(key))))
