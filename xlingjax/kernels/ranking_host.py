"""Average precision and AUROC of arrays in host memory, with NumPy on every core.

A block of neurons that fits the cache is ranked by one vectorised sort. A float32 response written
as float64 leaves 29 bits of the mantissa free: the sentence goes there, and the sorted keys give
each sentence its rank. A concept with P positives then costs one gather and one sort of P small
integers a neuron, whatever the number of sentences. Sentences that do not count for a concept are
sorted with its positives, so concepts that leave out few and different sentences share one ranking.
"""

import concurrent.futures
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, Num

BLOCK_ELEMENTS = 32 * 2048  # responses a thread works on at a time: its arrays stay in the cache
WIDE = 4  # blocks read from memory together, so that each row of responses is visited seldom
TILE = 128  # sentences transposed at a time, for the same reason
LOW = 2**29 - 1  # the bits of a float64 that a float32 does not use
WORTH = 2.0  # see `_rankings`; beyond it a sort of the counting sentences alone is faster
FAR = 2.0**200  # stands for infinity, whose free bits are not free

Responses = Num[np.ndarray, "S N"]  # NumPy does not count bfloat16 among its floats
Labels = Bool[np.ndarray, "S C"]


class Concept(NamedTuple):
    """What a concept needs of the sentences that are ranked for it."""

    column: int
    positives: Integer[np.ndarray, "P"]  # which of them are positive
    left_out: Integer[np.ndarray, "E"]  # which of them do not count


Score = Callable[["Sorter", Responses, list[Concept]], Float[np.ndarray, "c n"]]


def average_precision(
    responses: Responses, labels: Labels, where: Bool[np.ndarray, "..."] | None
) -> Float[np.ndarray, "C N"]:
    """See `ranking.average_precision`."""
    return _scores(_average_precision_block, responses, labels, where, WORTH)


def auroc(
    responses: Responses, labels: Labels, where: Bool[np.ndarray, "..."] | None
) -> Float[np.ndarray, "C N"]:
    """See `ranking.auroc`."""
    return _scores(_auroc_block, responses, labels, where, 0.0)


def _scores(
    score: Score, responses: Responses, labels: Labels, where: Bool[np.ndarray, "..."] | None,
    worth: float,
) -> Float[np.ndarray, "C N"]:
    neurons, concepts = responses.shape[1], labels.shape[1]
    dtype = np.float64 if responses.dtype == np.float64 else np.float32
    out = np.full((concepts, neurons), np.nan, dtype)
    for rows, ranked in _rankings(labels, where, worth):
        columns = [concept.column for concept in ranked]
        size = max(1, BLOCK_ELEMENTS // len(rows))
        threads = min(_cores(), -(-neurons // (WIDE * size)))

        def work(
            thread: int, rows: np.ndarray = rows, columns: list[int] = columns,
            ranked: list[Concept] = ranked, size: int = size, threads: int = threads,
        ) -> None:
            sorter = Sorter(min(size, neurons), len(rows), dtype)
            for wide in range(thread * WIDE * size, neurons, threads * WIDE * size):
                block = responses[:, wide:wide + WIDE * size]
                block = np.ascontiguousarray(block) if len(rows) == len(block) else block[rows]
                for start in range(0, block.shape[1], size):
                    part = slice(wide + start, wide + start + size)
                    out[columns, part] = score(sorter, block[:, start:start + size], ranked)

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    return out


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rankings(
    labels: Labels, where: Bool[np.ndarray, "..."] | None, worth: float
) -> Iterator[tuple[Integer[np.ndarray, "s"], list[Concept]]]:
    """The sentences that are ranked together, and the concepts served by that ranking.

    Concepts without a positive are left out. Those that leave out at most `worth` times as many
    sentences as they count are served by one ranking of the sentences that count for any.
    """
    where = np.ones((len(labels), 1), bool) if where is None else where.reshape(len(labels), -1)
    where = np.broadcast_to(where, labels.shape)
    columns = np.flatnonzero((labels & where).any(axis=0))
    groups: dict[bytes, list[int]] = {}
    for column in columns.tolist():
        groups.setdefault(where[:, column].tobytes(), []).append(column)
    every: np.ndarray = where[:, columns].any(axis=1)
    together: list[int] = []
    for members in groups.values():
        counts = where[:, members[0]]
        own = np.count_nonzero(counts)
        if (np.count_nonzero(every) - own) * len(members) <= worth * own:
            together += members
        else:
            yield _ranking(counts, labels, where, members)
    if together:
        yield _ranking(every, labels, where, together)


def _ranking(
    ranked: Bool[np.ndarray, "S"], labels: Labels, where: Labels, columns: list[int]
) -> tuple[Integer[np.ndarray, "s"], list[Concept]]:
    rows = np.flatnonzero(ranked)
    labels, where = labels[rows], where[rows]
    return rows, [
        Concept(column, np.flatnonzero(labels[:, column] & where[:, column]),
                np.flatnonzero(~where[:, column])) for column in columns]


def _average_precision_block(
    sorter: "Sorter", block: Responses, concepts: list[Concept]
) -> Float[np.ndarray, "c n"]:
    order, ends, ties, missing = sorter(block)
    ranks = _unsort(order, ends)  # for each sentence, how many are as high or higher
    inverse = 1 / np.arange(ranks.shape[1] + 1.0).clip(1)
    scores = np.empty((len(concepts), len(ranks)))
    for score, (_, positives, left_out) in zip(scores, concepts):
        if len(left_out):
            at_least, counted = _counted(ranks, positives, left_out)
        else:
            at_least = counted = np.take(ranks, positives, axis=1)
            at_least.sort(axis=1)
        hits = _ends(at_least) if ties else np.broadcast_to(_places(len(positives)), at_least.shape)
        np.einsum("np,np->n", hits, np.take(inverse, counted), out=score)
        score /= len(positives)
    _forget(scores, block, missing, concepts)
    return scores


def _counted(
    ranks: Integer[np.ndarray, "n S"],
    positives: Integer[np.ndarray, "P"],
    left_out: Integer[np.ndarray, "E"],
) -> tuple[Integer[np.ndarray, "n P"], Integer[np.ndarray, "n P"]]:
    """The ranks of the positives, the highest first, and how many that count are as high or higher.

    One sort brings positives and sentences left out into order; equals that are left out come
    first, so what stands before the i-th positive, but for i positives, is left out and as high.
    """
    keys = np.take(ranks, np.concatenate([left_out, positives]), axis=1)
    if ranks.shape[1] >= 2**15:
        keys = keys.astype(np.uint32)
    keys <<= 1
    keys[:, len(left_out):] |= 1
    keys.sort(axis=1)
    place = np.flatnonzero((keys & 1).astype(bool)).reshape(len(keys), -1)
    at_least = keys.reshape(-1)[place] >> 1
    counted = np.add.outer(np.arange(0, keys.size, keys.shape[1]), np.arange(len(positives)))
    counted -= place  # less those left out that stand before
    counted += at_least
    return at_least, counted


def _forget(
    scores: Float[np.ndarray, "c n"],
    block: Responses,
    missing: Bool[np.ndarray, "n"],
    concepts: list[Concept],
) -> None:
    """NaN to the concepts for which a NaN response counts."""
    if not missing.any():
        return
    nan = np.isnan(block[:, missing])
    for score, (_, _, left_out) in zip(scores, concepts):
        counts = np.ones(len(block), bool)
        counts[left_out] = False
        score[missing] = np.where(nan[counts].any(axis=0), np.nan, score[missing])


def _auroc_block(
    sorter: "Sorter", block: Responses, concepts: list[Concept]
) -> Float[np.ndarray, "c n"]:
    order, ends, _, missing = sorter(block)
    firsts = np.ones(ends.shape, np.int64)
    firsts[:, 1:] += np.maximum.accumulate(ends[:, :-1] * (ends[:, 1:] != ends[:, :-1]), axis=1)
    twice = _unsort(order, firsts + ends)  # twice the mid-rank, the highest response being 1
    sentences = twice.shape[1]
    scores = np.full((len(concepts), len(twice)), np.nan)
    for score, (_, positives, _) in zip(scores, concepts):
        p, q = len(positives), sentences - len(positives)
        if q:
            below = p * (2 * sentences + 1 - p) - np.take(twice, positives, axis=1).sum(axis=1)
            np.divide(below, 2 * p * q, out=score)
    scores[:, missing] = np.nan
    return scores


class Sorter:
    """Ranks the sentences of a block of neurons; holds a thread's arrays between blocks."""

    def __init__(self, neurons: int, sentences: int, dtype: Any) -> None:
        self.double = dtype == np.float64
        self.keys = np.empty((neurons, sentences))
        self.values = np.empty((neurons, sentences), np.int64)
        self.index = np.arange(neurons * sentences).reshape(neurons, sentences)
        self.places = np.broadcast_to(_places(sentences), self.keys.shape).copy()

    def __call__(
        self, block: Num[np.ndarray, "S n"]
    ) -> tuple[Integer[np.ndarray, "n S"], Integer[np.ndarray, "n S"], bool, Bool[np.ndarray, "n"]]:
        """Sorts the responses of every neuron, the highest first.

        Returns:
            order: the sentence at each place, as a flat index into [n, S].
            ends: the last place with the same response, from 1.
            ties: False where no two responses of one neuron are equal.
            missing: the neurons with a NaN.
        """
        count = block.shape[1]
        keys, values, index = self.keys[:count], self.values[:count], self.index[:count]
        self._fill(keys, block)
        if self.double:
            values = np.argsort(keys, axis=1)
            keys = np.take_along_axis(keys, values, axis=1)
            missing: np.ndarray = np.isnan(keys[:, -1])  # sorting puts NaN last
            order = values + index[:, :1]
            runs: np.ndarray = keys
        else:
            order = keys.view(np.int64)
            order |= index
            keys.sort(axis=1)
            missing = np.isnan(keys[:, -1])
            if missing.any():
                self._fill(keys, block)
                nan: np.ndarray = np.isnan(keys)
                missing = np.asarray(nan.any(axis=1))
                np.clip(keys, -FAR, FAR, out=keys)
                np.copyto(keys, FAR, where=nan)  # sorting does not keep the free bits of a NaN
                order |= index
                keys.sort(axis=1)
            np.bitwise_and(order, ~LOW, out=values)
            np.bitwise_and(order, LOW, out=order)
            runs = values
        flat = runs.reshape(-1)
        ties = bool(np.any(flat[1:] == flat[:-1]))
        return order, _ends(runs) if ties else self.places[:count], ties, missing

    @staticmethod
    def _fill(keys: Float[np.ndarray, "n S"], block: Num[np.ndarray, "S n"]) -> None:
        for start in range(0, len(block), TILE):
            np.copyto(keys[:, start:start + TILE], block[start:start + TILE].T)
        np.subtract(0.0, keys, out=keys)  # ascending from the highest; makes -0.0 equal 0.0


def _places(count: int) -> Integer[np.ndarray, "S"]:
    return np.arange(1, count + 1, dtype=np.uint16 if count < 2**16 else np.uint32)


def _ends(values: Num[np.ndarray, "n S"]) -> Integer[np.ndarray, "n S"]:
    """The last place, from 1, of each run of equal values."""
    places = _places(values.shape[1])
    ends = np.broadcast_to(places, values.shape).copy()
    np.copyto(ends[:, :-1], places[-1], where=values[:, 1:] == values[:, :-1])
    np.minimum.accumulate(ends[:, ::-1], axis=1, out=ends[:, ::-1])
    return ends


def _unsort(
    order: Integer[np.ndarray, "n S"], placed: Integer[np.ndarray, "n S"]
) -> Integer[np.ndarray, "n S"]:
    """What stands at each place, brought back to its sentence."""
    out = np.empty(placed.shape, placed.dtype)
    out.reshape(-1)[order.reshape(-1)] = placed.reshape(-1)
    return out
