"""The sparse way of top-k: sums over chosen latents against full products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from xlingjax.sae import sparse
from xlingjax.sae.sparse import _sorted, _sums, decode_chosen


def chosen(tokens: int, k: int, m: int, seed: int = 0):
    """Values and distinct places a token; latent 0 is chosen by every token, the last one by none."""
    draw = np.random.default_rng(seed)
    places = np.stack([np.concatenate([[0], 1 + draw.permutation(m - 2)[:k - 1]]) for _ in range(tokens)])
    return draw.standard_normal((tokens, k)).astype(np.float32), places.astype(np.int32)


def full(values: np.ndarray, places: np.ndarray, m: int) -> np.ndarray:
    f = np.zeros((len(values), m), np.float64)
    np.put_along_axis(f, places, values, axis=1)
    return f


@pytest.mark.parametrize(("tokens", "k", "m"), [(5, 3, 20), (40, 7, 30), (700, 4, 50), (300, 12, 17)])
def test_sums_and_decoding(tokens, k, m) -> None:
    values, places = chosen(tokens, k, m)
    draw = np.random.default_rng(1)
    rows, kernel = (jnp.asarray(draw.standard_normal((n, 6)), jnp.float32) for n in (tokens, m))
    f = full(values, places, m)
    close(jax.jit(_sums, static_argnums=3)(values, places, rows, m), f.T @ rows, 2e-5)
    close(decode_chosen(values, places, kernel), f @ kernel, 1e-5)
    slopes = jax.jit(jax.grad(lambda v, w: (decode_chosen(v, places, w) * rows).sum(), (0, 1)))(values, kernel)
    close(slopes[0], np.take_along_axis(rows @ kernel.T, places, axis=1), 1e-5)
    close(slopes[1], f.T @ rows, 2e-5)


def test_runs_are_summed_apart() -> None:
    pairs = [chosen(40, 5, 30, seed) for seed in range(3)]
    values, places = (np.stack(part) for part in zip(*pairs))
    rows = np.random.default_rng(1).standard_normal((3, 40, 6)).astype(np.float32)
    both = jax.vmap(lambda v, p, r: _sums(v, p, r, 30))(values, places, rows)
    for ours, (v, p), r in zip(both, pairs, rows):
        close(ours, full(v, p, 30).T @ r, 1e-5)


@pytest.mark.parametrize("m", [11, 2**31 - 1])
def test_sorting_in_one_word_and_in_two(m) -> None:
    places = jnp.asarray(np.random.default_rng(0).integers(0, 11, 200), jnp.int32)
    ordered, before = _sorted(places, m)
    np.testing.assert_array_equal(before, np.argsort(places, kind="stable"))
    np.testing.assert_array_equal(ordered, np.sort(places))
    assert (m * 200 > 2**32) == (m > 11) and sparse.GROUP > 1
