"""Average precision and AUROC of arrays in host memory, with NumPy on every core.

A block of neurons that fits the cache is ranked by one vectorised sort. A float32 response written
as float64 leaves 29 bits of the mantissa free: the sentence goes there, and the sorted keys give
each sentence its rank. A concept with P positives then costs one gather and one sort of P small
integers a neuron, whatever the number of sentences.
"""

import concurrent.futures
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, Num

BLOCK_ELEMENTS = 32 * 2048  # responses a thread works on at a time: its arrays stay in the cache
WIDE = 4  # blocks read from memory together, so that each row of responses is visited seldom
TILE = 128  # sentences transposed at a time, for the same reason
LOW = 2**29 - 1  # the bits of a float64 that a float32 does not use
FAR = 2.0**200  # stands for infinity, whose free bits are not free

Responses = Num[np.ndarray, "S N"]  # NumPy does not count bfloat16 among its floats
Labels = Bool[np.ndarray, "S C"]
Score = Callable[["Sorter", Responses, list[np.ndarray]], Float[np.ndarray, "c n"]]


def average_precision(
    responses: Responses, labels: Labels, where: Bool[np.ndarray, "..."] | None
) -> Float[np.ndarray, "C N"]:
    """See `ranking.average_precision`."""
    return _scores(_average_precision_block, responses, labels, where)


def auroc(
    responses: Responses, labels: Labels, where: Bool[np.ndarray, "..."] | None
) -> Float[np.ndarray, "C N"]:
    """See `ranking.auroc`."""
    return _scores(_auroc_block, responses, labels, where)


def _scores(
    score: Score, responses: Responses, labels: Labels, where: Bool[np.ndarray, "..."] | None
) -> Float[np.ndarray, "C N"]:
    neurons, concepts = responses.shape[1], labels.shape[1]
    dtype = np.float64 if responses.dtype == np.float64 else np.float32
    out = np.full((concepts, neurons), np.nan, dtype)
    for rows, columns in _shared_sentences(labels, where):
        found = {c: np.flatnonzero(labels[rows, c]) for c in columns if labels[rows, c].any()}
        if not found:
            continue
        size = max(1, BLOCK_ELEMENTS // len(rows))
        threads = min(_cores(), -(-neurons // (WIDE * size)))

        positives = list(found.values())

        def work(
            thread: int, rows: np.ndarray = rows, found: dict[int, np.ndarray] = found,
            positives: list[np.ndarray] = positives, size: int = size, threads: int = threads,
        ) -> None:
            sorter = Sorter(min(size, neurons), len(rows), dtype)
            for wide in range(thread * WIDE * size, neurons, threads * WIDE * size):
                block = responses[:, wide:wide + WIDE * size]
                block = np.ascontiguousarray(block) if len(rows) == len(block) else block[rows]
                for start in range(0, block.shape[1], size):
                    part = slice(wide + start, wide + start + size)
                    scores = score(sorter, block[:, start:start + size], positives)
                    out[list(found), part] = scores

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    return out


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shared_sentences(
    labels: Labels, where: Bool[np.ndarray, "..."] | None
) -> Iterator[tuple[Integer[np.ndarray, "s"], list[int]]]:
    """The concepts grouped by the sentences that count for them: (sentences, concepts)."""
    everything = list(range(labels.shape[1]))
    if where is None:
        yield np.arange(len(labels)), everything
    elif where.ndim == 1:
        yield np.flatnonzero(where), everything
    else:
        groups: dict[bytes, list[int]] = {}
        for concept in everything:
            groups.setdefault(where[:, concept].tobytes(), []).append(concept)
        for columns in groups.values():
            yield np.flatnonzero(where[:, columns[0]]), columns


def _average_precision_block(
    sorter: "Sorter", block: Responses, concepts: list[np.ndarray]
) -> Float[np.ndarray, "c n"]:
    order, ends, ties, missing = sorter(block)
    ranks = _unsort(order, ends)  # for each sentence, how many are as high or higher
    inverse = 1 / np.arange(ranks.shape[1] + 1.0).clip(1)
    scores = np.empty((len(concepts), len(ranks)))
    for score, positives in zip(scores, concepts):
        at_least = np.take(ranks, positives, axis=1)
        at_least.sort(axis=1)
        hits = _ends(at_least) if ties else np.broadcast_to(_places(len(positives)), at_least.shape)
        np.einsum("np,np->n", hits, np.take(inverse, at_least), out=score)
        score /= len(positives)
    scores[:, missing] = np.nan
    return scores


def _auroc_block(
    sorter: "Sorter", block: Responses, concepts: list[np.ndarray]
) -> Float[np.ndarray, "c n"]:
    order, ends, _, missing = sorter(block)
    firsts = np.ones(ends.shape, np.int64)
    firsts[:, 1:] += np.maximum.accumulate(ends[:, :-1] * (ends[:, 1:] != ends[:, :-1]), axis=1)
    twice = _unsort(order, firsts + ends)  # twice the mid-rank, the highest response being 1
    sentences = twice.shape[1]
    scores = np.full((len(concepts), len(twice)), np.nan)
    for score, positives in zip(scores, concepts):
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
