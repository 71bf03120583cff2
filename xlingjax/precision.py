"""float32 is float32 on every machine.

GPUs and TPUs multiply float32 matrices in fewer bits unless told otherwise (TF32, bfloat16): enough to
reorder neurons, and to stop a line search far from the minimum.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

F = TypeVar("F", bound=Callable[..., Any])


def full_precision(function: F) -> F:
    """`function` with its matrix products in the precision of their operands; 16-bit operands stay as they are.

    Where the caller has set `jax.default_matmul_precision`, that counts.

    >>> import jax.numpy as jnp
    >>> product = full_precision(lambda x: x @ x)
    >>> "HIGHEST" in str(jax.make_jaxpr(product)(jnp.ones((2, 2))))
    True
    >>> with jax.default_matmul_precision("tensorfloat32"):
    ...     "HIGHEST" in str(jax.make_jaxpr(product)(jnp.ones((2, 2))))
    False
    """

    @functools.wraps(function)
    def precise(*args: Any, **kwargs: Any) -> Any:
        if cast(Any, jax.config).jax_default_matmul_precision is not None:
            return function(*args, **kwargs)
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return cast(F, precise)
