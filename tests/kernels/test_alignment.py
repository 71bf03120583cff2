"""Alignment measures against plain NumPy, SciPy and scikit-learn, their invariances, and what they are by chance."""

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from sklearn.neighbors import NearestNeighbors

from xlingjax.kernels import alignment as module
from xlingjax.kernels.alignment import alignment, local_overlap, shuffled_pairings
from xlingjax.kernels.cca import canonical_correlations, components
from xlingjax.kernels.geometry import shape_of


def parallel(layers=2, languages=3, n=60, width=8, noise=1.0, shift=2.0, seed=0):
    """The same sentences with noise, a shift and a dominant unit of each language's own."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((layers, 1, n, width))
    own = shift * rng.standard_normal((layers, languages, 1, width))
    own[..., 0] += 3 * shift
    return (base + noise * rng.standard_normal((layers, languages, n, width)) + own).astype(np.float32)


STATES = parallel()
TRUE = np.arange(60)[None]
PAIRINGS = np.concatenate([TRUE, np.random.default_rng(1).permuted(np.tile(TRUE, (2, 1)), axis=1)])


@pytest.fixture(scope="module")
def found():
    return alignment(STATES, PAIRINGS, neighbours=5)


def each():
    for layer in range(2):
        for r, pairing in enumerate(PAIRINGS):
            for g, h in ((0, 1), (1, 0), (0, 2), (2, 1)):
                # a pairing sends sentence i of the first language to pairing[i] of the second
                back = pairing if g < h else np.argsort(pairing)
                yield (layer, r, g, h), STATES[layer, g].astype(float), STATES[layer, h].astype(float)[back]


def cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def unbiased(k, other):
    """HSIC by its definition: the mean over quadruples of different sentences, expanded with matrices of ones."""
    n = len(k)
    k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
    one = np.ones(n)
    return (np.trace(k @ other) + (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ k @ other @ one)) / (n * (n - 3))


def debiased(x, y):
    k, other = x @ x.T, y @ y.T
    return unbiased(k, other) / np.sqrt(unbiased(k, k) * unbiased(other, other))


def cosine(x, y):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T


def top(similarity, k):
    """Share of rows whose diagonal is among the k largest."""
    return np.mean([np.sum(row >= row[i]) <= k for i, row in enumerate(similarity)])


def csls(x, y, k=5):
    c = cosine(x, y)
    near = lambda matrix: np.sort(matrix, 1)[:, -k:].mean(1)
    return 2 * c - near(c)[:, None] - near(c.T)[None]


def mexa(x, y):
    c = cosine(x, y)
    return np.mean([c[i, i] > max(np.delete(c[i], i).max(), np.delete(c[:, i], i).max()) for i in range(len(c))])


def mutual(x, y, k=5):
    near = [NearestNeighbors(n_neighbors=k, metric="cosine").fit(z).kneighbors(return_distance=False) for z in (x, y)]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(*near)])


REFERENCES = {
    "cka": cka, "cka_debiased": debiased,
    "anc": lambda x, y: np.mean([abs(scipy.stats.pearsonr(x[:, j], y[:, j])[0]) for j in range(x.shape[1])]),
    "mexa": mexa, "at_1": lambda x, y: top(cosine(x, y), 1), "at_5": lambda x, y: top(cosine(x, y), 5),
    "centred_at_1": lambda x, y: top(cosine(x - x.mean(0), y - y.mean(0)), 1),
    "centred_at_5": lambda x, y: top(cosine(x - x.mean(0), y - y.mean(0)), 5),
    "csls_at_1": lambda x, y: top(csls(x, y), 1), "csls_at_5": lambda x, y: top(csls(x, y), 5), "mutual": mutual}


@pytest.mark.parametrize("name", REFERENCES)
def test_against_plain_references(found, name) -> None:
    ours = np.asarray(getattr(found, name))
    assert ours.shape == (2, 3, 3, 3) and np.isnan(np.diagonal(ours, axis1=2, axis2=3)).all()
    assert set(REFERENCES) == set(found._fields)
    for where, x, y in each():
        np.testing.assert_allclose(ours[where], REFERENCES[name](x, y), atol=2e-4, err_msg=f"{name} {where}")


def test_canonical_correlations_are_the_angles_between_subspaces() -> None:
    count = 4
    found = canonical_correlations(STATES, PAIRINGS, count)
    for where, x, y in each():
        (u, s, v), (p, _, _) = (np.linalg.svd(z - z.mean(0), full_matrices=False) for z in (x, y))
        angles = scipy.linalg.subspace_angles(u[:, :count], p[:, :count])
        np.testing.assert_allclose(found.svcca[where], np.cos(angles).mean(), atol=1e-4)
        turn, rho, _ = np.linalg.svd(u[:, :count].T @ p[:, :count])
        directions = u[:, :count] @ turn
        weight = np.abs(directions.T @ (x - x.mean(0))).sum(1)
        np.testing.assert_allclose(found.pwcca[where], (weight * rho).sum() / weight.sum(), atol=1e-4)
    wide = parallel(width=90, n=60)
    narrow = canonical_correlations(wide, TRUE, components(60, 90))
    assert narrow.svcca.shape == (2, 1, 3, 3) and 0 < float(narrow.svcca[0, 0, 0, 1]) < 1


def test_local_overlap_counts_languages_among_neighbours() -> None:
    states = parallel(layers=1, languages=5, n=20, shift=0.3)
    ilo, bridge, reach = local_overlap(states, 6, 2)
    flat, labels = states[0].reshape(-1, 8), np.repeat(np.arange(5), 20)
    near = NearestNeighbors(n_neighbors=6).fit(flat).kneighbors(return_distance=False)
    for g in range(5):
        met = [set(labels[near[i]]) - {g} for i in np.flatnonzero(labels == g)]
        bridges, reached = np.mean([len(one) >= 2 for one in met]), len(set().union(*met)) / 4
        np.testing.assert_allclose([bridge[0, g], reach[0, g]], [bridges, reached], atol=1e-6)
        np.testing.assert_allclose(ilo[0, g], scipy.stats.hmean([bridges, reached]), atol=1e-6)


class TestInvariances:
    def turned(self, seed=3):
        return scipy.stats.ortho_group.rvs(8, random_state=seed).astype(np.float32)

    def test_rotation_scale_and_shift_of_one_language_leave_cka_and_cca(self) -> None:
        changed = STATES.copy()
        changed[:, 1] = 3 * changed[:, 1] @ self.turned() + 5
        a, b = alignment(STATES, TRUE, 5), alignment(changed, TRUE, 5)
        for name in ("cka", "cka_debiased"):
            np.testing.assert_allclose(getattr(a, name)[:, 0, 0, 1], getattr(b, name)[:, 0, 0, 1], atol=1e-4)
        c, d = (canonical_correlations(x, TRUE, 4) for x in (STATES, changed))
        np.testing.assert_allclose(c.svcca[:, 0, 0, 1], d.svcca[:, 0, 0, 1], atol=1e-4)
        assert np.abs(a.anc[:, 0, 0, 1] - b.anc[:, 0, 0, 1]).max() > 0.02, "ANC is of units, which a rotation mixes"
        assert np.abs(a.centred_at_1[:, 0, 0, 1] - b.centred_at_1[:, 0, 0, 1]).max() > 0.02

    def test_a_common_rotation_leaves_everything_but_anc(self) -> None:
        both = alignment(STATES, TRUE, 5), alignment(STATES @ self.turned(), TRUE, 5)
        for name in both[0]._fields:
            same = np.nanmax(np.abs(getattr(both[0], name) - getattr(both[1], name)))
            assert same > 0.01 if name == "anc" else same < 1e-3, name

    def test_the_order_of_sentences_does_not_matter(self) -> None:
        order = np.random.default_rng(2).permutation(60)
        both = alignment(STATES, TRUE, 5), alignment(STATES[:, :, order], TRUE, 5)
        for name in both[0]._fields:
            np.testing.assert_allclose(getattr(both[0], name), getattr(both[1], name), atol=1e-4)


class TestChance:
    def test_independent_gaussians_are_what_theory_says(self) -> None:
        n, k = 400, 10
        states = np.random.default_rng(5).standard_normal((1, 4, n, 16)).astype(np.float32)
        found = alignment(states, np.arange(n)[None], k)
        mean = lambda name: float(np.nanmean(getattr(found, name)))
        assert mean("anc") == pytest.approx(np.sqrt(2 / (np.pi * n)), rel=0.15)
        assert mean("mutual") == pytest.approx(k / (n - 1), rel=0.2)
        assert mean("at_1") < 4 / n and mean("centred_at_5") < 12 / n and mean("mexa") < 2 / n
        assert abs(mean("cka_debiased")) < 0.01 < mean("cka"), "the plain form is biased upwards"

    def test_length_and_position_alone_align_by_cosine_and_shuffling_shows_it(self) -> None:
        """Sentences known by their length only: the true pairing is no better than one of equal lengths."""
        length = np.random.default_rng(6).integers(5, 30, 200)
        states = np.stack([np.stack([np.sin(length / w) for w in range(3, 11)], 1)] * 2)[None].astype(np.float32)
        states += 0.01 * np.random.default_rng(7).standard_normal(states.shape).astype(np.float32)
        documents = length  # shuffling within documents keeps the length here
        pairings, moved = shuffled_pairings(documents, 5, 0)
        found = alignment(states, np.concatenate([np.arange(200)[None], pairings]), 10)
        cka = np.asarray(found.cka)[0, :, 0, 1]
        assert moved > 150 and cka[0] > 0.95 and cka[1:].min() > 0.95, "an apparent alignment that the null has too"


def test_shuffled_pairings_stay_inside_documents() -> None:
    documents = np.repeat(np.arange(10), 6)
    pairings, moved = shuffled_pairings(documents, 8, 1)
    assert moved == 60 and (documents[pairings] == documents).all()
    assert (np.sort(pairings, 1) == np.arange(60)).all() and len(np.unique(pairings, axis=0)) == 8
    again, _ = shuffled_pairings(documents, 8, 1)
    np.testing.assert_array_equal(pairings, again)
    single, moved = shuffled_pairings(np.arange(30), 2, 0)
    assert moved == 30 and (single != np.arange(30)).mean() > 0.8


def test_shape_of_a_cloud() -> None:
    rng = np.random.default_rng(2)
    flat = np.zeros((1, 3, 800, 12), np.float32)
    flat[0, 0, :, :2] = rng.random((800, 2))  # two dimensions of twelve
    flat[0, 1] = rng.standard_normal((800, 12))
    flat[0, 2] = rng.standard_normal((800, 12))
    flat[0, 2, :, 4] += 40  # one unit that makes all cosines large
    found = shape_of(flat)
    assert float(found.dimension[0, 0]) == pytest.approx(2, abs=0.3)
    assert 8 < float(found.dimension[0, 1]) < 14
    unit = flat[0, 2] / np.linalg.norm(flat[0, 2], axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(800, dtype=bool)].mean()
    assert float(found.cosine[0, 2]) == pytest.approx(pairs, abs=1e-4)
    assert float(found.rogue[0, 2]) > 0.99 and abs(float(found.cosine[0, 1])) < 0.02
    copies = np.repeat(flat[:, 1:2, :400], 2, axis=2)
    assert np.isnan(shape_of(copies).dimension[0, 0])


def test_one_program_for_all_pairings_and_each_layer_alone_is_the_same(found) -> None:
    before = module.alignment._cache_size()
    alignment(STATES + 1, PAIRINGS[:, ::-1], neighbours=5)
    assert module.alignment._cache_size() == before
    alone = alignment(STATES[1:], PAIRINGS, neighbours=5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1:], b, atol=1e-5), found, alone)
