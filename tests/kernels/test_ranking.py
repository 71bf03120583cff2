"""P13: average precision and AUROC are exact, on the host and compiled alike."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import references
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tolerances import KERNEL, TWO_PROGRAMS, close

from xlingjax.errors import InputError
from xlingjax.kernels import ranking, ranking_host

pytestmark = pytest.mark.promise
MEASURES = ["average_precision", "auroc"]


def both(measure, responses, labels, where=None):
    """The host's result, after checking that the compiled one agrees."""
    host = np.asarray(getattr(ranking, measure)(responses, labels, where))
    other = compiled(measure, responses, labels, where)
    close(other, host, KERNEL["float32"], "compiled against host")
    return host


def compiled(measure, responses, labels, where=None):
    with jax.numpy_dtype_promotion("strict"):
        return jax.jit(getattr(ranking, measure))(responses, labels, where)


def world(seed=0, sentences=60, neurons=7, concepts=4):
    rng = np.random.default_rng(seed)
    responses = rng.standard_normal((sentences, neurons)).astype(np.float32)
    return responses, rng.random((sentences, concepts)) < 0.3


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("ties", ["none", "rounded", "relu", "constant", "signed zeros"])
@pytest.mark.parametrize("mask", ["all", "shared", "per concept"])
def test_equals_scikit_learn(measure, dtype, ties, mask):
    responses, labels = world(1)
    labels[:, -1] = True
    rng = np.random.default_rng(2)
    if ties == "rounded":
        responses = responses.round(0)
    elif ties == "relu":
        responses = np.maximum(responses, 0)
    elif ties == "constant":
        responses[:, ::2] = -1.5
    elif ties == "signed zeros":
        responses = np.where(responses > 0.5, responses, np.copysign(np.float32(0), responses))
    responses = responses.astype(dtype)
    shape = {"all": None, "shared": 60, "per concept": (60, 4)}[mask]
    where = None if shape is None else rng.random(shape) < 0.7
    theirs = getattr(references, measure)(responses, labels, where)
    close(both(measure, responses, labels, where), theirs, KERNEL["float32"])


@pytest.mark.parametrize("measure", MEASURES)
def test_every_float64_digit_ranks(measure):
    responses, labels = world(3)
    nearly = 1 + responses.astype(np.float64) * 1e-12  # equal once rounded to float32
    theirs = getattr(references, measure)(nearly, labels)
    close(getattr(ranking, measure)(nearly, labels), theirs, KERNEL["float32"])
    with jax.enable_x64(True):
        ours = getattr(ranking, measure)(nearly, labels)
        assert ours.dtype == jnp.float64
        close(ours, theirs, KERNEL["float64"])
        close(compiled(measure, nearly, labels), theirs, KERNEL["float64"])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("nan", [np.nan, -np.nan])
def test_nan_counts_only_where_it_counts(measure, nan):
    responses, labels = world(4)
    responses[5, 2] = np.copysign(np.nan, nan)
    responses[6, 3] = np.inf
    where = np.ones(labels.shape, bool)
    where[5, 0] = False
    result = both(measure, responses, labels, where)
    assert np.isnan(result[1:, 2]).all() and np.isfinite(np.delete(result, 2, axis=1)).all()
    largest = np.where(responses == np.inf, 1e9, responses)
    close(result[:1], getattr(references, measure)(
        np.delete(largest, 5, 0), np.delete(labels[:, :1], 5, 0)), KERNEL["float32"])


def test_without_positives_or_sentences_there_is_no_score():
    responses, labels = world(5)
    labels[:, 1] = False
    labels[:, 2] = True
    where = np.ones(labels.shape, bool)
    where[:, 3] = False
    assert np.isnan(both("average_precision", responses, labels, where)).all(axis=1).tolist() == [
        False, True, False, True]
    assert np.isnan(both("auroc", responses, labels, where)).all(axis=1).tolist() == [
        False, True, True, True]
    assert np.isnan(both("average_precision", responses, labels, np.zeros(60, bool))).all()


def test_worked_by_hand():
    """Two positives at ranks 1 and 3 without ties; in the second neuron the last three tie."""
    responses = np.array([[4, 4], [3, 1], [2, 1], [1, 1]], np.float32)
    labels = np.array([[True], [False], [True], [False]])
    close(both("average_precision", responses, labels), [[(1 + 2 / 3) / 2, (1 + 2 / 4) / 2]], 1e-7)
    close(both("auroc", responses, labels), [[3 / 4, (1 + 1 + 0.5 + 0.5) / 4]], 1e-7)


finite = st.floats(-8, 8, width=16)


@settings(max_examples=60, deadline=None)
@given(responses=hnp.arrays(np.float32, (12, 3), elements=finite),
       labels=hnp.arrays(bool, (12, 2)), where=hnp.arrays(bool, (12,)),
       order=st.permutations(range(12)))
@pytest.mark.parametrize("measure", MEASURES)
def test_invariant_to_order_and_monotone_maps(measure, responses, labels, where, order):
    score = functools.partial(getattr(ranking, measure))
    result = np.asarray(score(responses, labels, where))
    order = np.array(order)
    np.testing.assert_array_equal(result, score(responses[order], labels[order], where[order]))
    mapped = np.arctan(responses.astype(np.float64))
    np.testing.assert_array_equal(result, score(mapped, labels, where))
    close(result, getattr(references, measure)(responses, labels, where), KERNEL["float32"])
    close(compiled(measure, responses, labels, where), result, KERNEL["float32"])


@pytest.mark.parametrize("measure", MEASURES)
def test_concepts_and_blocks_do_not_touch_each_other(measure, monkeypatch):
    responses, labels = world(6, sentences=50, neurons=23, concepts=40)
    responses[:, ::3] = responses[:, ::3].round(0)
    together = np.asarray(getattr(ranking, measure)(responses, labels))
    for concept in range(40):
        alone = getattr(ranking, measure)(responses, labels[:, concept:concept + 1])
        np.testing.assert_array_equal(together[concept:concept + 1], alone)
    monkeypatch.setattr(ranking_host, "BLOCK_ELEMENTS", 100)
    np.testing.assert_array_equal(together, getattr(ranking, measure)(responses, labels))


@pytest.mark.parametrize("sentences", [50, 33_000])  # twice a rank needs more than sixteen bits
@pytest.mark.parametrize("measure", MEASURES)
def test_concepts_that_leave_out_different_sentences_share_a_ranking(measure, sentences):
    responses, labels = world(11, sentences, neurons=5, concepts=12)
    responses[:, ::2] = responses[:, ::2].round(0)
    responses[3, 4] = np.nan
    rng = np.random.default_rng(12)
    where = rng.random(labels.shape) < np.linspace(0.2, 1, 12)
    where[3, :6], where[3, 6:] = False, True
    together = np.asarray(getattr(ranking, measure)(responses, labels, where))
    assert np.isnan(together[6:, 4]).all() and np.isfinite(together[:6]).all()
    for concept in range(12):
        one = slice(concept, concept + 1)
        counts = where[:, concept]
        alone = getattr(ranking, measure)(responses[counts], labels[counts, one])
        np.testing.assert_array_equal(together[one], alone)


def test_large_inputs_are_ranked_in_blocks_when_compiled(monkeypatch):
    responses, labels = world(7, sentences=40, neurons=21)
    whole = compiled("average_precision", responses, labels)
    monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", 40 * 4)
    jax.clear_caches()
    np.testing.assert_array_equal(whole, compiled("average_precision", responses, labels))
    jax.clear_caches()


def test_more_sentences_than_sixteen_bits_hold():
    rng = np.random.default_rng(8)
    responses = rng.standard_normal((70_000, 2)).astype(np.float32)
    responses[:, 1] = responses[:, 1].round(1)
    labels = rng.random((70_000, 1)) < 0.01
    for measure in MEASURES:
        theirs = getattr(references, measure)(responses, labels)
        close(both(measure, responses, labels), theirs, 2e-6)


def test_another_concept_compiles_nothing():
    responses, labels = world(9)
    traced = []

    @jax.jit
    def score(*arrays):
        traced.append(1)
        return ranking.average_precision(*arrays)

    for column in range(4):
        score(responses, labels[:, column:column + 1], np.roll(np.arange(60) < 50, column))
    assert len(traced) == 1


def test_jax_arrays_take_either_path():
    responses, labels = world(10)
    host = ranking.average_precision(jnp.asarray(responses), jnp.asarray(labels))
    close(host, ranking.average_precision(responses, labels), min(TWO_PROGRAMS, KERNEL["float32"]))


@pytest.mark.parametrize("change", [
    {"labels": np.ones((59, 2), bool)}, {"labels": np.ones(60, bool)}, {"where": np.ones(59, bool)},
    {"where": np.ones((60, 3), bool)}, {"labels": np.ones((60, 2), int)},
    {"responses": np.ones((60, 2), int)}])
def test_unusable_arrays_are_named(change):
    arrays = {"responses": np.ones((60, 7), np.float32), "labels": np.ones((60, 2), bool)}
    unchecked = ranking.average_precision.__wrapped__  # before the tests' type checks
    with pytest.raises(InputError, match=next(iter(change))):
        unchecked(**arrays | change)
