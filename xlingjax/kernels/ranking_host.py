"""Average precision and AUROC of arrays in host memory, with NumPy on every core.

A block of neurons that fits the cache is ranked by one vectorised integer sort: the high half of a
64-bit key is the response's bits in an order-preserving form, the low half the sentence, so that the
sorted keys give each sentence its rank. A concept with P positives then costs one gather and one
sort of P small integers a neuron, whatever the number of sentences.
"""

import concurrent.futures
import os
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Integer, Num

BLOCK_ELEMENTS = 64 * 2048  # responses a thread works on at a time: its arrays stay in the second-level cache


def average_precision(
    responses: Float[np.ndarray, "S N"],
    labels: Bool[np.ndarray, "S C"],
    where: Bool[np.ndarray, "..."] | None,
) -> Float[np.ndarray, "C N"]:
    """See `ranking.average_precision`."""
    return _scores(_average_precision_block, responses, labels, where)


def auroc(
    responses: Float[np.ndarray, "S N"],
    labels: Bool[np.ndarray, "S C"],
    where: Bool[np.ndarray, "..."] | None,
) -> Float[np.ndarray, "C N"]:
    """See `ranking.auroc`."""
    return _scores(_auroc_block, responses, labels, where)


def _scores(score: Callable, responses, labels, where) -> Float[np.ndarray, "C N"]:
    if responses.dtype != np.float64:
        responses = responses.astype(np.float32, copy=False)  # exact: every other float type is narrower
    neurons, concepts = responses.shape[1], labels.shape[1]
    out = np.full((concepts, neurons), np.nan, responses.dtype)
    for rows, columns in _shared_sentences(labels, where):
        counting = responses if rows is None else responses[rows]
        if len(counting) == 0:
            continue
        shown = labels if rows is None else labels[rows]
        found = {c: np.flatnonzero(shown[:, c]) for c in columns if shown[:, c].any()}
        size = max(1, BLOCK_ELEMENTS // len(counting))

        def work(start, counting=counting, found=found, size=size):
            block = slice(start, start + size)
            out[list(found), block] = score(counting[:, block], list(found.values()))

        with concurrent.futures.ThreadPoolExecutor(_cores()) as pool:
            list(pool.map(work, range(0, neurons, size)))
    return out


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shared_sentences(labels, where):
    """The concepts grouped by the sentences that count for them: (rows or None for all, concepts)."""
    everything = range(labels.shape[1])
    if where is None or where.all():
        return [(None, everything)]
    if where.ndim == 1:
        return [(np.flatnonzero(where), everything)]
    groups: dict[bytes, list[int]] = {}
    for concept in everything:
        groups.setdefault(where[:, concept].tobytes(), []).append(concept)
    return [(np.flatnonzero(where[:, columns[0]]), columns) for columns in groups.values()]


def _average_precision_block(block: Float[np.ndarray, "S n"], concepts) -> Float[np.ndarray, "c n"]:
    order, ends, ties, missing = _sort(block)
    ranks = _unsort(order, ends)  # for each sentence, how many are as high or higher
    scores = np.empty((len(concepts), len(ranks)))
    for score, positives in zip(scores, concepts):
        at_least = ranks[:, positives]
        at_least.sort(axis=1)
        hits = _ends(at_least) if ties else np.arange(1, len(positives) + 1)
        np.mean(hits / at_least, axis=1, out=score)
    scores[:, missing] = np.nan
    return scores


def _auroc_block(block: Float[np.ndarray, "S n"], concepts) -> Float[np.ndarray, "c n"]:
    order, ends, _, missing = _sort(block)
    firsts = np.ones_like(ends)
    firsts[:, 1:] += np.maximum.accumulate(ends[:, :-1] * (ends[:, 1:] != ends[:, :-1]), axis=1)
    twice = _unsort(order, firsts.astype(np.int64) + ends)  # of the mid-rank, the highest response being 1
    sentences = twice.shape[1]
    scores = np.full((len(concepts), len(twice)), np.nan)
    for score, positives in zip(scores, concepts):
        p, q = len(positives), sentences - len(positives)
        if q:
            below = p * (2 * sentences + 2) - twice[:, positives].sum(axis=1) - p * (p + 1)
            np.divide(below, 2 * p * q, out=score)
    scores[:, missing] = np.nan
    return scores


def _sort(block: Float[np.ndarray, "S n"]):
    """Ranks the sentences of every neuron, the highest response first.

    Returns:
        order: int64[n, S], the sentence at each place, as a flat index into [n, S].
        ends: unsigned[n, S], the last place with the same response, from 1.
        ties: whether any two responses of one neuron are equal.
        missing: bool[n], the neurons with a NaN.
    """
    keys = np.empty(block.shape[::-1], block.dtype)
    np.subtract(block.dtype.type(0), block.T, out=keys)  # ascending from the highest; makes -0.0 equal 0.0
    index = np.arange(keys.size).reshape(keys.shape)
    if block.dtype == np.float64:
        order = np.argsort(keys, axis=1)
        values = np.take_along_axis(keys, order, axis=1)
        missing = np.isnan(values[:, -1])
        order += index[:, :1]
    else:
        bits = keys.view(np.int32)
        packed = np.empty(keys.shape, np.int64)
        low, values = packed.view(np.int32)[:, ::2], packed.view(np.int32)[:, 1::2]
        np.bitwise_xor(bits, (bits >> 31) & 0x7FFFFFFF, out=values)
        low[...] = index
        packed.sort(axis=1)
        # A NaN lies beyond an infinity, at the end or at the start, as its sign bit has it.
        missing = (values[:, -1] > 0x7F800000) | (values[:, 0] < ~0x7F800000)
    ties = bool((values[:, 1:] == values[:, :-1]).any())
    if ties:
        ends = _ends(values)
    else:
        ends = np.broadcast_to(_places(keys.shape[1]), keys.shape)
    if block.dtype != np.float64:
        order = np.bitwise_and(packed, 0xFFFFFFFF, out=packed)
    return order, ends, ties, missing


def _places(count: int) -> Integer[np.ndarray, "S"]:
    return np.arange(1, count + 1, dtype=np.uint16 if count < 2**16 else np.uint32)


def _ends(values: Num[np.ndarray, "n S"]) -> Integer[np.ndarray, "n S"]:
    """The last place, from 1, of each run of equal values."""
    places = _places(values.shape[1])
    ends = np.broadcast_to(places, values.shape).copy()
    ends[:, :-1][values[:, 1:] == values[:, :-1]] = places[-1]
    np.minimum.accumulate(ends[:, ::-1], axis=1, out=ends[:, ::-1])
    return ends


def _unsort(order: Integer[np.ndarray, "n S"], placed: Integer[np.ndarray, "n S"]) -> Integer[np.ndarray, "n S"]:
    """What stands at each place, brought back to its sentence."""
    out = np.empty(placed.shape, placed.dtype)
    out.reshape(-1)[order.reshape(-1)] = placed.reshape(-1)
    return out
