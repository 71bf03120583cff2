"""Expert sets and their chance overlap, against hand-worked cases and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.kernels import experts


def test_best_first_without_nan():
    ap = np.array([[0.1, np.nan, 0.9, 0.5], [np.nan] * 4, [0.3, 0.2, np.nan, np.nan]])
    np.testing.assert_array_equal(
        experts.expert_sets(ap, 3), [[2, 3, 0], [-1, -1, -1], [0, 1, -1]])
    np.testing.assert_array_equal(experts.expert_sets(ap[0], 6), [2, 3, 0, -1, -1, -1])


def test_host_and_compiled_agree_even_at_ties():
    rng = np.random.default_rng(0)
    ap = rng.integers(0, 6, (3, 4, 200)).astype(np.float32) / 5
    ap[rng.random(ap.shape) < 0.1] = np.nan
    host = experts.expert_sets(ap, 50, seed=7)
    compiled = jax.jit(lambda x: experts.expert_sets(x, 50, seed=7))(jnp.asarray(ap))
    np.testing.assert_array_equal(host, compiled)
    on_device = experts.expert_sets(jnp.asarray(ap), 50, seed=7)
    assert isinstance(on_device, jax.Array)
    np.testing.assert_array_equal(host, on_device)


@pytest.mark.promise
def test_ties_share_only_by_chance():
    """30 % saturated neurons: ordering by index would make independent languages overlap 0.27."""
    rng = np.random.default_rng(1)
    ap = np.where(rng.random((40, 1000)) < 0.3, 1.0, rng.random((40, 1000)) * 0.5)
    sets = experts.expert_sets(ap, 50)
    by_index = np.argsort(-ap, axis=1, kind="stable")[:, :50]
    found = experts.set_overlap(sets[:-1], sets[1:], 1000)
    index = experts.set_overlap(by_index[:-1], by_index[1:], 1000)
    assert index.overlap.mean() > 0.2
    assert abs(found.overlap.mean() - 0.05) < 4 * found.sd.mean() / np.sqrt(39)
    same = experts.expert_sets(np.ones((200, 40)), 10)
    overlap = experts.set_overlap(same[:-1], same[1:], 40)
    assert abs(overlap.overlap.mean() - 0.25) < 0.04  # fully tied rows are drawn anew
    first, second = (experts.expert_sets(np.ones(40), 10, seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_every_tied_neuron_is_equally_likely():
    sets = experts.expert_sets(np.ones((20_000, 8)), 2)
    counts = np.bincount(sets.reshape(-1), minlength=8)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_merging_blocks_equals_all_at_once():
    rng = np.random.default_rng(2)
    ap = rng.integers(0, 9, (5, 300)).astype(np.float32)
    values, sets = None, None
    for start in range(0, 300, 70):
        block = ap[:, start:start + 70]
        numbers = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        if sets is not None:
            block, numbers = np.concatenate([values, block], 1), np.concatenate([sets, numbers], 1)
        values, sets = experts.keep_best(block, numbers, 40, seed=3)
    np.testing.assert_array_equal(sets, experts.expert_sets(ap, 40, seed=3))


def test_k_below_one_is_refused():
    with pytest.raises(InputError, match="k is 0"):
        experts.expert_sets(np.ones(3), 0)


def test_ties_at_cut_counts_the_losers():
    ap = np.array([[0.9, 0.5, 0.5, 0.5, np.nan], [0.9, 0.8, 0.1, 0.1, 0.1], [np.nan] * 5])
    np.testing.assert_array_equal(experts.ties_at_cut(ap, 2), [2, 0, 0])


def test_overlap_against_scipy_and_published_chance():
    """BLOOM-560m: 1.13 +- 1.06 neurons of 500; 61 if all experts sit in one mlp.up."""
    a, b = np.arange(500), np.arange(400, 900)
    got = experts.set_overlap(a, b, total=221_184)
    expected = scipy.stats.hypergeom(221_184, 500, 500)
    close(got.chance * 500, expected.mean(), 1e-9)
    close(got.sd * 500, expected.std(), 1e-9)
    assert round(got.chance * 500, 2) == 1.13 and round(got.sd * 500, 2) == 1.06
    assert got.overlap == 0.2
    strata = np.arange(221_184) // 4096
    crowded = experts.set_overlap(a, b, total=221_184, strata=strata)
    assert round(float(crowded.chance) * 500) == 61
    close(crowded.sd * 500, scipy.stats.hypergeom(4096, 500, 500).std(), 1e-9)


def test_strata_add_up_and_leave_out_dead_neurons():
    strata = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, -1, -1])
    a, b = np.array([0, 1, 4]), np.array([0, 4, 5])
    got = experts.set_overlap(a, b, 12, strata=strata)
    close(got.chance * 3, 2 * 1 / 4 + 1 * 2 / 6, 1e-12)
    close(got.overlap, 2 / 3, 1e-12)
    close(got.corrected, (got.overlap - got.chance) / (1 - got.chance), 1e-12)


def test_wrong_k_hides_full_sharing():
    """60 true experts of 10,368, all shared: k = 500 "corrected" 0.12, k = 60 1.0 (METHOD)."""
    rng = np.random.default_rng(0)
    rest = np.arange(60, 10_368)
    a, b = (np.concatenate([np.arange(60), rng.choice(rest, 440, replace=False)]) for _ in "ab")
    assert abs(experts.set_overlap(a, b, 10_368).corrected - 0.12) < 0.02
    assert experts.set_overlap(a, b, 10_368, k=60).corrected == 1


def test_k_is_data_and_compiles_once():
    rng = np.random.default_rng(3)
    a, b = (np.stack([rng.permutation(100)[:20] for _ in range(6)]) for _ in "ab")
    b[0, 15:] = -1
    strata = np.arange(100) // 30
    traces = []

    @jax.jit
    def overlap(a, b, k):
        traces.append(1)
        return (experts.set_overlap(a, b, 100, k=k),
                experts.set_overlap(a, b, 100, k=k, strata=strata))

    with jax.numpy_dtype_promotion("strict"):
        for k in (1, 7, 20):
            plain, stratified = overlap(jnp.asarray(a), jnp.asarray(b), k)
            for ours, theirs in zip(plain, experts.set_overlap(a, b, 100, k=k)):
                close(ours, theirs, 2e-6)
            for ours, theirs in zip(stratified, experts.set_overlap(a, b, 100, k=k, strata=strata)):
                close(ours, theirs, 2e-6)
            direct = [
                len(set(x[:k]) & set(y[:k]) - {-1}) / k for x, y in zip(a.tolist(), b.tolist())]
            close(plain.overlap, direct, 1e-6)
    assert len(traces) == 1


def test_k_broadcasts_to_a_curve():
    sets = np.array([[3, 1, 2], [1, 2, 9]])
    curve = experts.set_overlap(sets[0], sets[1], 10, k=np.array([1, 2, 3]))
    close(curve.overlap, [0, 0.5, 2 / 3], 1e-12)
    close(curve.chance, [0.1, 0.2, 0.3], 1e-12)


def test_marginal_chance_against_its_definition():
    rng = np.random.default_rng(4)
    a, b = (np.stack([rng.permutation(30)[:8] for _ in range(5)]) for _ in "ab")
    expected = []
    for concept in range(5):
        other = [c for c in range(5) if c != concept]
        p, q = (np.isin(np.arange(30)[:, None], sets[other].T).sum(1) * 0.0 for sets in (a, b))
        for c in other:
            p += np.isin(np.arange(30), a[c]) / 4
            q += np.isin(np.arange(30), b[c]) / 4
        expected.append(p @ q)
    close(experts.marginal_chance(a, b, 30), expected, 1e-12)
    assert np.isnan(experts.marginal_chance(a[:1], b[:1], 30)).all()
