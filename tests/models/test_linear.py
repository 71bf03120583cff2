"""Linear maps: the product, and a gradient that sums over one axis."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tolerances import BATCHING, close

from xlingjax.models.linear import Linear


def test_a_kernels_gradient_is_a_product_that_sums_over_one_axis() -> None:
    linear = Linear(5, 7, rngs=nnx.Rngs(0))
    graph, params = nnx.split(linear)
    x = jax.random.normal(jax.random.key(1), (2, 3, 5))
    close(np.asarray(linear(x)), np.asarray(x) @ np.asarray(linear.kernel[...]), BATCHING)
    program = jax.make_jaxpr(jax.grad(lambda params, x: jnp.square(nnx.merge(graph, params)(x)).sum()))(params, x)
    products = [one for one in program.jaxpr.eqns if one.primitive.name == "dot_general"]
    assert len(products) == 2  # forward, and the kernel's gradient
    for product in products:
        (left, right), _ = product.params["dimension_numbers"]
        assert len(left) == len(right) == 1
