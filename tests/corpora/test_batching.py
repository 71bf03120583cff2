"""Batching: few shapes, every sentence once, nothing counted that is no sentence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlingjax.corpora import Tokens, bucket_lengths, counted, make_batch, plan_batches
from xlingjax.errors import InputError


def fake(lengths, ends=True):
    """Sentences of given lengths: ids count up from 10; the first and the last are special."""
    ids = tuple(np.arange(10, 10 + n, dtype=np.int32) for n in lengths)
    special = tuple(np.array([ends and i in (0, n - 1) for i in range(n)], bool) for n in lengths)
    return Tokens(ids, special)


def test_bucket_lengths():
    assert bucket_lengths(0) == (8,) and bucket_lengths(8) == (8,) and bucket_lengths(9) == (8, 16)
    assert bucket_lengths(17) == (8, 16, 24) and bucket_lengths(500)[-3:] == (256, 384, 512)


@pytest.mark.promise
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=80), st.integers(1, 4),
    st.integers(96, 400))
def test_every_sentence_once_in_few_shapes(lengths, shards, rows_tokens):
    plans = plan_batches(np.array(lengths), rows_tokens * shards, shards)
    rows = np.concatenate([plan.rows for plan in plans])
    assert sorted(rows[rows >= 0].tolist()) == list(range(len(lengths)))
    shapes = {(len(plan.rows), plan.length) for plan in plans}
    assert len(shapes) == len({plan.length for plan in plans}) <= len(bucket_lengths(max(lengths)))
    for plan in plans:
        assert len(plan.rows) % shards == 0 and len(plan.rows) * plan.length <= rows_tokens * shards
        members = plan.rows[plan.rows >= 0]
        assert len(members) and max(lengths[row] for row in members) <= plan.length
    tokens = fake(lengths)
    for plan in plans:
        batch = make_batch(tokens, plan)
        for i, row in enumerate(plan.rows):
            n = lengths[row] if row >= 0 else 0
            assert batch.mask[i].sum() == n and batch.mask[i, :n].all()
            assert batch.where[i].sum() == max(n - 2, 0)
            assert batch.tokens[i].tolist() == [*range(10, 10 + n)] + [0] * (plan.length - n)


def test_hand_worked_plan():
    plans = plan_batches(np.array([3, 20, 8, 9, 5, 0]), batch_tokens=24, multiple_of=1)
    assert [(plan.length, plan.rows.tolist()) for plan in plans] == [
        (24, [1]), (16, [3]), (8, [0, 2]), (8, [4, 5])]
    plans = plan_batches(np.array([3, 20, 8, 9, 5]), batch_tokens=64, multiple_of=2)
    assert [(plan.length, plan.rows.tolist()) for plan in plans] == [
        (24, [1, -1]), (16, [3, -1]), (8, [0, 2, 4, -1])]


def test_types_and_order_do_not_vary():
    lengths = np.random.default_rng(0).integers(1, 60, 300)
    first, second = plan_batches(lengths, 1024, 4), plan_batches(lengths.tolist(), 1024, 4)
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(first, second, strict=True))
    assert [plan.length for plan in first] == sorted((plan.length for plan in first), reverse=True)
    batch = make_batch(fake(lengths), first[0])
    assert (batch.tokens.dtype, batch.mask.dtype, batch.where.dtype) == (np.int32, bool, bool)


def test_unusable_plans_are_refused():
    with pytest.raises(InputError, match="=64 holds no batch of 4 x 24 tokens; give at least 96"):
        plan_batches(np.array([20]), 64, 4)
    with pytest.raises(InputError, match="sentence 1 has 20 tokens, more .* longest bucket 16"):
        plan_batches(np.array([3, 20]), 64, buckets=(8, 16))
    with pytest.raises(InputError, match="corpus is empty"):
        plan_batches(np.array([], int), 64)


def test_what_counts():
    tokens = Tokens(
        tuple(np.array(ids, np.int32) for ids in ([0, 5, 6, 5, 1], [0, 1], [7, 8])),
        (np.array([1, 0, 0, 0, 1], bool), np.array([1, 1], bool), np.array([0, 0], bool)))

    def bits(**options):
        return ["".join("x" if b else "." for b in w) for w in counted(tokens, **options)]

    assert bits() == [".xxx.", "..", "xx"]
    assert bits(special=True) == ["xxxxx", "xx", "xx"]
    assert bits(first=False) == ["..xx.", "..", ".x"]
    assert bits(special=True, first=False) == ["x.xxx", "xx", ".x"]
    languages = np.array(["eng", "eng", "deu"])
    assert bits(leave_out={"eng": np.array([5, 7])}, languages=languages) == ["..x..", "..", "xx"]
    with pytest.raises(InputError, match="needs languages"):
        counted(tokens, leave_out={"eng": np.array([5])})
    plan = plan_batches(tokens.lengths, 64)[0]
    assert make_batch(tokens, plan, counted(tokens, first=False)).where.sum() == 3
