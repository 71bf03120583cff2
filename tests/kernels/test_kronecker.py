"""Products of gradients with queries given as two matrices: the same numbers on every way that is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import BATCHING, KERNEL, close

from xlingjax.kernels import kronecker
from xlingjax.precision import full_precision


# Short sequences of a small batch go token by token, long ones with whole queries: at once, or some at a time.
@pytest.mark.parametrize(("examples", "length", "held", "whole"), [
    (1, 2, 1 << 24, False), (6, 30, 1 << 24, True), (6, 30, 2 * 63, True)])
def test_queries_of_low_rank_are_whole_ones(monkeypatch, examples, length, held, whole) -> None:
    monkeypatch.setattr(kronecker, "QUERIES_AT_ONCE", held)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    a, g, tall, wide = draw(examples, length, 7), draw(examples, length, 9), draw(5, 7, 3), draw(5, 3, 9)
    product = full_precision(kronecker.low_rank_products)
    found = np.asarray(product(a, g, tall, wide))
    wanted = np.einsum("qjr,qro,bto,btj->qb", *(np.asarray(one, np.float64) for one in (tall, wide, g, a)))
    close(found / np.abs(wanted).max(), wanted / np.abs(wanted).max(), BATCHING)
    made = str(jax.make_jaxpr(product)(a, g, tall, wide))
    assert ("5,7,9" in made or "2,7,9" in made) == whole  # whole queries are made, or are not


def test_eigenbases_on_a_gpu_are_those_of_the_host(monkeypatch) -> None:
    """The branch that a GPU takes, on this device: float64, and nothing of it left behind."""
    x = np.random.default_rng(0).standard_normal((2, 12, 30))
    covariance = x @ np.swapaxes(x, 1, 2)
    host = kronecker.eigenbases(covariance)
    monkeypatch.setattr(kronecker, "_on_gpu", lambda: True)
    values, vectors = kronecker.eigenbases(covariance)
    close(values, host[0], KERNEL["float64"] * 100)
    close(vectors @ (values[..., None] * np.swapaxes(vectors, 1, 2)), covariance, KERNEL["float64"] * 100)
    assert vectors.dtype == np.float64 and not jax.config.jax_enable_x64
