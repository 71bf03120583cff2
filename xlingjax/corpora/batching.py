"""Sentences in batches of few, fixed shapes: one compilation per bucket of lengths.

Sentences of similar length share a bucket; every batch of a bucket has the same shape, the last one
filled up with rows that count nothing. Order and shapes follow from the lengths alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError


class BatchPlan(NamedTuple):
    """Which sentences make one batch, and its shape before any token is touched."""

    length: int  # T
    rows: np.ndarray  # int64[B]: sentence of each row, -1 = filler


class Batch(NamedTuple):
    """What the model reads."""

    tokens: np.ndarray  # int32[B, T], 0 under the mask
    mask: np.ndarray  # bool[B, T], True = a token of the sentence, special ones included
    where: np.ndarray  # bool[B, T], True = a token that reductions count
    rows: np.ndarray  # int64[B], sentence of each row, -1 = filler


def bucket_lengths(longest: int) -> tuple[int, ...]:
    """Powers of two from 8 on and the points half-way between, until one holds `longest`.

    >>> bucket_lengths(100)
    (8, 16, 24, 32, 48, 64, 96, 128)
    """
    lengths = [8]
    power = 16
    while lengths[-1] < longest:
        lengths.append(power)
        if lengths[-1] < longest:
            lengths.append(power + power // 2)
        power *= 2
    return tuple(lengths)


def plan_batches(
    lengths: np.ndarray, batch_tokens: int, multiple_of: int = 1,
    buckets: Sequence[int] | None = None,
) -> tuple[BatchPlan, ...]:
    """Batches over sentences of given lengths: longest bucket first, a bucket's sentences in order.

    Longest first, so that a batch too large for the device fails at once and not after an hour.

    Args:
        lengths: int[S], tokens of each sentence, special ones included; 0 is allowed.
        batch_tokens: the most tokens of a batch, padding included.
        multiple_of: every batch has a multiple of this many rows (the data shards of the mesh).
        buckets: lengths T to pad to; default `bucket_lengths` of the longest sentence.

    Raises:
        InputError: `batch_tokens` holds no row of the longest bucket on every shard; a sentence is
            longer than the longest bucket.
    """
    lengths = np.asarray(lengths)
    if len(lengths) == 0:
        raise InputError("no sentences to batch; the corpus is empty")
    ladder = np.array(sorted(set(buckets or bucket_lengths(int(lengths.max())))), np.int64)
    if ladder[0] < 1:
        raise InputError(f"bucket length {ladder[0]} is not positive")
    if lengths.max() > ladder[-1]:
        raise InputError(
            f"sentence {int(lengths.argmax())} has {lengths.max()} tokens, more than the longest "
            f"bucket {ladder[-1]}; add a longer bucket or tokenise with max_length={ladder[-1]}")
    bucket = np.searchsorted(ladder, lengths)
    plans = []
    for i in sorted(set(bucket.tolist()), reverse=True):
        length, members = int(ladder[i]), np.flatnonzero(bucket == i)
        most = batch_tokens // length // multiple_of * multiple_of
        if most == 0:
            raise InputError(
                f"batch_tokens={batch_tokens} holds no batch of {multiple_of} x {length} tokens; "
                f"give at least {multiple_of * length}, or tokenise with a smaller max_length")
        batches = -(-len(members) // most)
        rows = -(-len(members) // (batches * multiple_of)) * multiple_of
        filled = np.full(batches * rows, -1, np.int64)
        filled[:len(members)] = members
        plans += [BatchPlan(length, part) for part in filled.reshape(batches, rows)]
    return tuple(plans)


def counted(
    tokens: Tokens, *, special: bool = False, first: bool = True,
    leave_out: dict[str, np.ndarray] | None = None, languages: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Which tokens reductions count, S arrays bool[t]; a sentence may be left with none.

    Args:
        tokens: the sentences.
        special: count special tokens too.
        first: False leaves out the first real token of each sentence (the attention sink).
        leave_out: language -> token ids that do not count in its sentences (anchors left in the
            context but out of the pooling); languages not named lose nothing.
        languages: str[S], needed with `leave_out`.
    """
    if leave_out is not None and (languages is None or len(languages) != len(tokens)):
        raise InputError(f"leave_out needs languages, one for each of the {len(tokens)} sentences")
    result = []
    for row, (ids, is_special) in enumerate(zip(tokens.ids, tokens.special, strict=True)):
        where = np.ones(len(ids), bool) if special else ~is_special
        if not first:
            where = where & (np.arange(len(ids)) != np.argmin(np.append(is_special, False)))
        if leave_out is not None and languages is not None and languages[row] in leave_out:
            where = where & ~np.isin(ids, leave_out[languages[row]])
        result.append(where)
    return tuple(result)


def make_batch(
    tokens: Tokens, plan: BatchPlan, where: Sequence[np.ndarray] | None = None,
) -> Batch:
    """Arrays of one planned batch, padded on the right; `where` defaults to `counted(tokens)`."""
    shape = (len(plan.rows), plan.length)
    ids, mask, counts = np.zeros(shape, np.int32), np.zeros(shape, bool), np.zeros(shape, bool)
    for i, row in enumerate(plan.rows):
        if row >= 0:
            length = len(tokens.ids[row])
            ids[i, :length] = tokens.ids[row]
            mask[i, :length] = True
            counts[i, :length] = ~tokens.special[row] if where is None else where[row]
    return Batch(ids, mask, counts, plan.rows)
