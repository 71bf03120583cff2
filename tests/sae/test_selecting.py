"""The k largest: exact, and at ties the first ones, as a stable sort has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlingjax.sae.selecting import largest, largest_of_all


def by_sorting(x: np.ndarray, k: int) -> np.ndarray:
    """Row by row with NumPy's stable sort."""
    kept = np.zeros_like(x)
    for row, out in zip(x, kept):
        chosen = np.argsort(-row, kind="stable")[:k]
        out[chosen] = row[chosen]
    return kept


def rows(case: str) -> np.ndarray:
    x = np.maximum(np.random.default_rng(0).standard_normal((33, 97)), 0).astype(np.float32)
    if case == "ties":
        x = x.round(1)
    if case == "few":
        x[:, 5:] = 0
    if case == "equal":
        x[:] = 0.5
    return x


@pytest.mark.parametrize("case", ["plain", "ties", "few", "equal"])
@pytest.mark.parametrize("k", [1, 7, 97])
def test_of_each_row(case, k) -> None:
    x = rows(case)
    np.testing.assert_array_equal(largest(jnp.asarray(x), k), by_sorting(x, k))
    many = jax.jit(lambda x, k: largest(x, k, 97))(x, k)
    np.testing.assert_array_equal(many, by_sorting(x, k))


@pytest.mark.parametrize("case", ["plain", "ties", "few", "equal"])
@pytest.mark.parametrize("count", [1, 130, 33 * 97])
def test_of_all(case, count) -> None:
    x = rows(case)
    wanted = by_sorting(x.reshape(1, -1), count).reshape(x.shape)
    np.testing.assert_array_equal(jax.jit(largest_of_all)(x, count), wanted)


def test_each_run_has_its_own_k() -> None:
    x = np.stack([rows("ties"), rows("plain")])
    ks = np.array([3, 11])
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(lambda x, k: largest(x, k, 16)))(x, ks), [by_sorting(a, k) for a, k in zip(x, ks)])
    np.testing.assert_array_equal(
        jax.jit(jax.vmap(lambda x, k: largest_of_all(x, 33 * k)))(x, ks),
        [by_sorting(a.reshape(1, -1), 33 * k).reshape(a.shape) for a, k in zip(x, ks)])


def test_the_gradient_passes_where_a_value_is_kept() -> None:
    x = rows("ties")
    for kept in (lambda x: largest(x, 5), lambda x: largest_of_all(x, 150)):
        slope = jax.grad(lambda x, kept=kept: (kept(x) * jnp.arange(97.0)).sum())(jnp.asarray(x))
        np.testing.assert_array_equal(slope, np.where(np.asarray(kept(x)) > 0, np.arange(97.0), slope * (x == 0)))
