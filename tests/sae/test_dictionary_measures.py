"""Measures of dictionaries against dictionary_learning's and sparsify's formulas, by hand, and in any batches."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from tolerances import close

from xlingjax.errors import InputError
from xlingjax.sae.coder import init_dictionary
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.dictionary import Dictionary
from xlingjax.sae.measures import ALL, EDGES, as_dataset, measure_dictionary, merged, sum_batches

D, M = 6, 20
RNG = np.random.default_rng(3)
# A mean far from 0 and one unit far larger than the others, as residual streams have them.
X = (RNG.standard_normal((500, D)) * [1, 1, 1, 1, 1, 20] + [0, 3, 0, 0, 0, 200]).astype(np.float32)
LANGUAGE = RNG.integers(0, 3, 500)
NAMES = ["eng", "swh", "zho"]


def dictionary(kind: str = "topk", **options) -> Dictionary:
    options = ({"k": 4} if kind == "topk" else {}) | options
    config = DictionaryConfig(kind, D, M, **options)
    params = init_dictionary(config, jax.random.key(0))
    shift = jax.tree.map(lambda x: 0.2 * RNG.standard_normal(x.shape).astype(np.float32), params)
    params = jax.tree.map(lambda x, y: np.asarray(x + y), params, shift)
    params["decoder"]["bias"] = params["decoder"]["bias"] + np.float32([0, 3, 0, 0, 0, 200])[:config.out]
    return Dictionary(params, config)


def by_torch(x: np.ndarray, x_hat: np.ndarray, f: np.ndarray) -> dict[str, float]:
    """The formulas of dictionary_learning's `evaluate` and of sparsify's forward pass, in float64."""
    x, x_hat, f = (torch.tensor(np.asarray(values, np.float64)) for values in (x, x_hat, f))
    norm = lambda values: torch.linalg.norm(values, dim=-1)
    return {
        "l2": norm(x - x_hat).mean(), "l1": f.norm(p=1, dim=-1).mean(), "l0": (f != 0).double().sum(-1).mean(),
        "cosine": (x / norm(x)[:, None] * x_hat / norm(x_hat)[:, None]).sum(-1).mean(),
        "l2_ratio": (norm(x_hat) / norm(x)).mean(),
        "variance_unexplained": torch.var(x - x_hat, dim=0).sum() / torch.var(x, dim=0).sum(),
        "reconstruction_bias": (norm(x_hat) ** 2).mean() / (x * x_hat).sum(-1).mean(),
        "dead_share": 1 - (f.sum(0) != 0).double().mean(),
        "fvu": (x - x_hat).pow(2).sum() / (x - x.mean(0)).pow(2).sum(),
        "relative_error": ((x - x_hat).pow(2).sum(-1) / x.pow(2).sum(-1)).mean(),
    }


@pytest.mark.parametrize("kind", ["relu", "topk", "gated", "jumprelu"])
def test_measures_are_the_libraries_formulas(kind) -> None:
    one = dictionary(kind)
    found = measure_dictionary(one, [(X, LANGUAGE)], NAMES)
    f, x_hat = np.asarray(one.encode(X)), np.asarray(one(X))
    for number, name in enumerate([*NAMES, ALL]):
        rows = LANGUAGE == number if name != ALL else np.ones(len(X), bool)
        for measure, value in by_torch(X[rows], x_hat[rows], f[rows]).items():
            np.testing.assert_allclose(found[measure].sel(language=name), float(value), rtol=2e-4, err_msg=measure)
        close(found.density.sel(language=name), (f[rows] > 0).mean(0), 1e-7)
        close(found.maximum.sel(language=name), f[rows].max(0), 1e-6)
        with np.errstate(invalid="ignore"):
            mean = f[rows].sum(0) / (f[rows] > 0).sum(0)
        np.testing.assert_allclose(found.activation.sel(language=name), mean, rtol=1e-5)
        logs = np.log10((f[rows] > 0).mean(0)[(f[rows] > 0).any(0)])
        np.testing.assert_array_equal(found.density_histogram.sel(language=name), np.histogram(logs, EDGES)[0])
    assert (found.fvu != found.variance_unexplained).all() and found.tokens.sel(language=ALL) == 500


@pytest.mark.promise
@pytest.mark.parametrize("sizes, rows", [((500,), 64), ((1, 499), 500), ((77,) * 6 + (38,), 100), ((250, 250), 7)])
def test_batches_of_any_size_give_the_same(sizes, rows) -> None:
    one = dictionary("relu")
    whole = measure_dictionary(one, [(X, LANGUAGE)], NAMES, rows=500)
    cuts = np.cumsum((0, *sizes))
    parts = [(X[a:b], LANGUAGE[a:b]) for a, b in zip(cuts, cuts[1:])]
    found = measure_dictionary(one, iter(parts), NAMES, rows=rows)
    for name, values in whole.data_vars.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    for order in (parts, parts[::-1]):
        sums = [sum_batches(one, [part], 3, rows=rows) for part in order]  # each about a centre of its own
        together = sums[0]
        for other in sums[1:]:
            together = merged(together, other)
        found = as_dataset(together, NAMES)
        for name, values in whole.data_vars.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def identity() -> Dictionary:
    """Two latents a unit, one for each sign."""
    eye = np.eye(D, dtype=np.float32)
    config = DictionaryConfig("relu", D, 2 * D)
    params = {"encoder": {"kernel": np.hstack([eye, -eye]), "bias": np.zeros(2 * D, np.float32)},
              "decoder": {"kernel": np.vstack([eye, -eye]), "bias": np.zeros(D, np.float32)}}
    return Dictionary(params, config)


def scaled(one: Dictionary, by: float) -> Dictionary:
    decoder = {**one.params["decoder"], "kernel": one.params["decoder"]["kernel"] * np.float32(by)}
    return dataclasses.replace(one, params={**one.params, "decoder": decoder})


def test_worked_by_hand() -> None:
    found = measure_dictionary(identity(), [(X, LANGUAGE)], NAMES).sel(language=ALL)
    assert float(found.fvu) == 0 and float(found.l2) == 0 and abs(float(found.cosine) - 1) < 1e-6
    assert float(found.l0) == D and float(found.l2_ratio) == 1 and float(found.reconstruction_bias) == 1
    half = measure_dictionary(scaled(identity(), 0.5), [(X, LANGUAGE)], NAMES).sel(language=ALL)
    assert abs(float(half.reconstruction_bias) - 0.5) < 1e-6 and abs(float(half.relative_error) - 0.25) < 1e-6
    assert abs(float(half.variance_unexplained) - 0.25) < 2e-5
    assert float(half.fvu) > 10, "half of a large mean is lacking, which only this variant counts"
    nothing = measure_dictionary(scaled(identity(), 0), [(X - X.mean(0), LANGUAGE)], NAMES).sel(language=ALL)
    assert abs(float(nothing.fvu) - 1) < 1e-5 and float(nothing.cosine) == 0 and np.isnan(nothing.reconstruction_bias)
    two = np.array([[3, 0, 0, 0, 0, 0], [0, -4, 0, 0, 0, 0]], np.float32)
    found = measure_dictionary(identity(), [(two, np.array([0, 1]))], NAMES[:2])
    assert found.l0.values.tolist() == [1, 1, 1] and found.l1.values.tolist() == [3, 4, 3.5]
    assert found.density.sel(language=ALL).values.tolist() == [0.5, 0, 0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0]
    assert found.activation.sel(language="swh").values[7] == 4 and np.isnan(found.activation.values[0, 7])
    assert found.dead_share.values.tolist() == [11 / 12, 11 / 12, 10 / 12]
    assert np.isnan(found.fvu.values[:2]).all() and found.fvu.values[2] == 0, "one token has no variance"


def test_a_language_without_tokens_and_tokens_of_zero() -> None:
    x = np.vstack([X[:10], np.zeros((2, D), np.float32)])
    found = measure_dictionary(identity(), [(x, np.zeros(12, int)), (X[:0], LANGUAGE[:0])], NAMES)
    assert found.tokens.values.tolist() == [12, 0, 0, 12] and np.isnan(found.l0.values[1])
    assert np.isnan(found.dead_share.values[1:3]).all()
    assert abs(float(found.cosine[0]) - 1) < 1e-6, "where there is no direction there is no cosine"


@pytest.mark.promise
@pytest.mark.parametrize("kind", ["relu", "jumprelu"])  # a comparison with NaN is false: no latent fires
def test_what_is_not_finite_is_counted_and_left_out(kind) -> None:
    broken = X.copy()
    broken[3, 2], broken[7, 0], broken[8] = np.nan, np.inf, 3e38  # the last one overflows on its way
    keep = np.setdiff1d(np.arange(500), [3, 7, 8])
    one = dictionary(kind)
    found = measure_dictionary(one, [(broken, LANGUAGE)], NAMES)
    clean = measure_dictionary(one, [(X[keep], LANGUAGE[keep])], NAMES)
    assert found.broken.sel(language=ALL) == 3 and clean.broken.sel(language=ALL) == 0
    np.testing.assert_array_equal(found.broken.values[:3], np.bincount(LANGUAGE[[3, 7, 8]], minlength=3))
    for name in clean.data_vars:
        if name != "broken":
            np.testing.assert_allclose(found[name], clean[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_transcoder_is_measured_on_what_it_should_write() -> None:
    one = dictionary("relu", centred=False, outputs=4, skip=True)
    target = RNG.standard_normal((500, 4)).astype(np.float32)
    found = measure_dictionary(one, [(X, LANGUAGE, target)], NAMES).sel(language=ALL)
    for measure, value in by_torch(target, np.asarray(one(X)), np.asarray(one.encode(X))).items():
        np.testing.assert_allclose(found[measure], float(value), rtol=2e-4, err_msg=measure)
    with pytest.raises(InputError, match=r"takes \[500, 4\], so give what it should write as third part"):
        measure_dictionary(one, [(X, LANGUAGE)], NAMES)


@pytest.mark.parametrize("batch, said", [
    ((X[:, :5], LANGUAGE), r"x of a batch is of shape \[500, 5\]; this dictionary takes \[500, 6\]"),
    ((X, LANGUAGE[:5]), "for each of 500 tokens"), ((X, LANGUAGE + 1), "give a number from 0 to 2"),
    ((X, LANGUAGE.astype(float)), "language of a batch is float64"), ((X,), "a batch has 1 parts"),
])
def test_what_does_not_fit_is_named(batch, said) -> None:
    with pytest.raises(InputError, match=said):
        measure_dictionary(dictionary(), [batch], NAMES)
    with pytest.raises(InputError, match="no activation"):
        measure_dictionary(dictionary(), [], NAMES)


def test_one_program_serves_every_batch_and_dictionary_of_a_kind() -> None:
    from xlingjax.sae import measures

    measure_dictionary(dictionary(), [(X, LANGUAGE)], NAMES, rows=50)
    before = measures._token_sums._cache_size()
    measure_dictionary(dictionary(), [(X[:33], LANGUAGE[:33]), (X[:77], LANGUAGE[:77])], NAMES, rows=50)
    assert measures._token_sums._cache_size() == before
