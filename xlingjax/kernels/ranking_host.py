"""Average precision and AUROC of arrays in host memory, with NumPy on every core.

A block of neurons is ranked by one vectorised sort. A float32 response written
as float64 leaves 29 bits of the mantissa free: the sentence goes there, and the sorted keys give
each sentence its rank. A concept with P positives then costs one gather and one sort of P small
integers a neuron, whatever the number of sentences. Sentences that do not count for a concept are
sorted with its positives, so concepts that leave out few and different sentences share one ranking.
Arrays are large, concepts of like size scored together, because two threads hand Python's lock to each
other at every call of NumPy: with blocks that fit the cache, two cores were hardly faster than one.
"""

import concurrent.futures
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, Num

BLOCK_ELEMENTS = 256 * 2048  # responses ranked at a time: so many that threads seldom wait for each other
WIDE = 2  # blocks read from memory together, so that each row of responses is visited seldom
BATCH_ELEMENTS = 2**18  # ranks sorted at a time for a batch of concepts
SLACK = 1.2  # how much larger filling up may make a batch of concepts
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


class Batch(NamedTuple):
    """Concepts whose average precision is computed at once, filled up to the same sizes.

    What fills is the sentence after the last, whose rank is lowest.
    """

    slots: Integer[np.ndarray, "c"]  # which concepts of the ranking they are
    chosen: Integer[np.ndarray, "c W"]  # sentences left out, then positives
    left_out: int  # how many of W
    hits: Float[np.ndarray, "c P"]  # 1, 2, ... over a concept's positives, then 0


class Ranking(NamedTuple):
    """Sentences that are ranked together, and the concepts served by that ranking."""

    rows: Integer[np.ndarray, "s"]
    concepts: list[Concept]
    size: int  # the most neurons of a block
    batches: list[Batch]


Score = Callable[["Sorter", Responses, Ranking], Float[np.ndarray, "c n"]]


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
    for ranking in _rankings(labels, where, worth):
        columns = [concept.column for concept in ranking.concepts]
        # As many strips for every thread, but none so small that it is all overhead.
        threads = min(_cores(), 1 + neurons // ranking.size)
        strips = -(-neurons // (WIDE * ranking.size * threads)) * threads
        size = -(-neurons // (WIDE * strips))

        def work(
            thread: int, ranking: Ranking = ranking, columns: list[int] = columns, size: int = size,
            threads: int = threads,
        ) -> None:
            sorter = Sorter(size, ranking, dtype)
            for wide in range(thread * WIDE * size, neurons, threads * WIDE * size):
                block = responses[:, wide:wide + WIDE * size]
                block = block if len(ranking.rows) == len(block) else block[ranking.rows]
                # The highest come first when sorted; and 0 - -0.0 is 0.0.
                block = np.subtract(block.dtype.type(0), block, order="C")
                for start in range(0, block.shape[1], size):
                    part = slice(wide + start, wide + start + size)
                    out[columns, part] = score(sorter, block[:, start:start + size], ranking)

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    return out


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rankings(
    labels: Labels, where: Bool[np.ndarray, "..."] | None, worth: float
) -> Iterator[Ranking]:
    """The rankings that serve all concepts.

    Concepts without a positive are left out. Those that leave out at most `worth` times as many
    sentences as they count are served by one ranking of the sentences that count for any.
    """
    where = np.ones((len(labels), 1), bool) if where is None else where.reshape(len(labels), -1)
    where = np.broadcast_to(where, labels.shape)
    columns = np.flatnonzero((labels & where).any(axis=0))
    groups: dict[bytes, list[int]] = {}
    for column in columns.tolist():
        groups.setdefault(where[:, column].tobytes(), []).append(column)
    every = np.asarray(where[:, columns].any(axis=1))
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
) -> Ranking:
    rows = np.flatnonzero(ranked)
    labels, where = labels[rows], where[rows]
    concepts = [
        Concept(column, np.flatnonzero(labels[:, column] & where[:, column]),
                np.flatnonzero(~where[:, column])) for column in columns]
    size = max(1, BLOCK_ELEMENTS // len(rows))
    return Ranking(rows, concepts, size, _batches(concepts, len(rows), BATCH_ELEMENTS // size))


def _average_precision_block(
    sorter: "Sorter", block: Responses, ranking: Ranking
) -> Float[np.ndarray, "c n"]:
    order, ends, tied, missing = sorter(block)
    ranks = sorter.unsort(order, ends)  # for each sentence, how many are as high or higher
    scores = np.empty((len(ranking.concepts), len(ranks)))
    for slots, chosen, left_out, hits in ranking.batches:
        keys = sorter.buffer("keys", (len(ranks), *chosen.shape), ranks.dtype)
        np.take(ranks, chosen, axis=1, out=keys, mode="clip")  # to raise it would copy
        if left_out:
            at_least, counted = _counted(keys, left_out)
        else:
            keys.sort(axis=-1)
            at_least = counted = keys
        shares = sorter.buffer("shares", counted.shape, np.float64)
        np.take(sorter.inverse, counted, out=shares, mode="clip")
        found = np.einsum("ncp,cp->nc", shares, hits)
        if len(tied):
            found += _of_ties(at_least, shares, hits > 0)
        scores[slots] = (found / hits.max(axis=1)).T
    _forget(scores, block, missing, ranking.concepts)
    return scores


def _of_ties(
    at_least: Integer[np.ndarray, "n c P"], shares: Float[np.ndarray, "n c P"], real: Bool[np.ndarray, "c P"],
) -> Float[np.ndarray, "n c"]:
    """What equal positives add to a sum that counted the hits before each of them and itself.

    Each of m equals has as many hits as the last of them, together 1 + ... + (m - 1) more than were counted.
    Only pairs of neighbours that are equal are looked at, which are few.
    """
    n, c, width = at_least.shape
    equal = np.zeros(at_least.shape, bool)  # to the next one; the last of a row to none
    np.equal(at_least[..., 1:], at_least[..., :-1], out=equal[..., :-1])
    equal[..., :-1] &= real[:, 1:]
    at = np.flatnonzero(equal)
    index = np.arange(1, len(at) + 1)
    fresh = np.ones(len(at), bool)  # the first pair of a run of equals
    np.not_equal(at[1:] - at[:-1], 1, out=fresh[1:])
    more = index - np.maximum.accumulate(np.where(fresh, index, 0)) + 1
    added = np.bincount(at // width, more * shares.reshape(-1)[at], minlength=n * c)
    return added.astype(np.float64, copy=False).reshape(n, c)  # int64 where there is nothing to add


def _batches(concepts: list[Concept], sentences: int, width: int) -> list[Batch]:
    """Batches of at most `width` places, of concepts of like size."""
    order = sorted(range(len(concepts)), key=lambda i: tuple(map(len, concepts[i][1:]))[::-1])
    groups: list[list[int]] = []
    most, full = [0, 0], 0  # positives and sentences left out of the last group; what they sum to
    for i in order:
        _, positives, left_out = concepts[i]
        here = [len(positives), len(left_out)]
        wider = [max(a, b) for a, b in zip(most, here)]
        size = sum(wider) * (len(groups[-1]) + 1) if groups else 0
        fits = size <= min(width, SLACK * (full + sum(here)))
        if groups and fits and (most[1] > 0) == (here[1] > 0):
            groups[-1].append(i)
            most, full = wider, full + sum(here)
        else:
            groups.append([i])
            most, full = here, sum(here)
    return [_batch([concepts[i] for i in members], members, sentences) for members in groups]


def _batch(concepts: list[Concept], slots: list[int], sentences: int) -> Batch:
    left_out = max(len(concept.left_out) for concept in concepts)
    width = max(len(concept.positives) for concept in concepts)
    chosen = np.full((len(concepts), left_out + width), sentences)
    hits = np.zeros((len(concepts), width))
    for row, (_, positives, without) in enumerate(concepts):
        chosen[row, :len(without)] = without
        chosen[row, left_out:left_out + len(positives)] = positives
        hits[row, :len(positives)] = np.arange(1, len(positives) + 1)
    return Batch(np.array(slots), chosen, left_out, hits)


def _counted(
    ranks: Integer[np.ndarray, "n c W"], left_out: int
) -> tuple[Integer[np.ndarray, "n c P"], Integer[np.ndarray, "n c P"]]:
    """The ranks of the positives, the highest first, and how many that count are as high or higher.

    One sort brings positives and sentences left out, which stand first in `ranks`, into order; equals
    that are left out come first, so what stands before the i-th positive, but for i positives, is
    left out and as high.
    """
    wide = ranks.dtype == np.uint16 and ranks.max() >= 2**15
    keys = ranks.astype(np.uint32) if wide else ranks
    keys <<= 1
    keys[..., left_out:] |= 1
    keys.sort(axis=-1)
    n, c, width = keys.shape
    place = np.flatnonzero((keys & 1).astype(bool)).reshape(n * c, -1)
    at_least = keys.reshape(-1)[place] >> 1
    counted = np.add.outer(np.arange(0, keys.size, width), np.arange(width - left_out))
    counted -= place  # less those left out that stand before
    counted += at_least
    return at_least.reshape(n, c, -1), counted.reshape(n, c, -1)


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
    sorter: "Sorter", block: Responses, ranking: Ranking
) -> Float[np.ndarray, "c n"]:
    order, ends, _, missing = sorter(block)
    firsts = np.ones(ends.shape, np.int64)
    firsts[:, 1:] += np.maximum.accumulate(ends[:, :-1] * (ends[:, 1:] != ends[:, :-1]), axis=1)
    twice = sorter.unsort(order, firsts + ends)[:, :-1]  # twice the mid-rank, the highest response being 1
    sentences = twice.shape[1]
    scores = np.full((len(ranking.concepts), len(twice)), np.nan)
    for score, (_, positives, _) in zip(scores, ranking.concepts):
        p, q = len(positives), sentences - len(positives)
        if q:
            below = p * (2 * sentences + 1 - p) - np.take(twice, positives, axis=1).sum(axis=1)
            np.divide(below, 2 * p * q, out=score)
    scores[:, missing] = np.nan
    return scores


class Sorter:
    """Ranks the sentences of a block of neurons; holds a thread's arrays between blocks."""

    def __init__(self, neurons: int, ranking: Ranking, dtype: Any) -> None:
        sentences = len(ranking.rows)
        self.double = dtype == np.float64
        self.keys = np.empty((neurons, sentences))
        self.buffers: dict[str, np.ndarray] = {}
        self.spare = np.empty(neurons * sentences, np.uint64)
        # One more column than sentences, see `unsort`.
        self.index = np.arange(neurons * (sentences + 1)).reshape(neurons, -1)[:, :-1]
        self.inverse = 1 / np.arange(sentences + 2.0).clip(1)
        self.places = np.broadcast_to(_places(sentences), self.keys.shape).copy()

    def __call__(
        self, block: Num[np.ndarray, "S n"]
    ) -> tuple[
        Integer[np.ndarray, "n S"], Integer[np.ndarray, "n S"], Integer[np.ndarray, "t"],
        Bool[np.ndarray, "n"],
    ]:
        """Sorts the responses of every neuron.

        Args:
            block: what sorts first is the highest response.

        Returns:
            order: the sentence at each place, as `unsort` reads it.
            ends: the last place with the same response, from 1.
            tied: the neurons with two responses that are equal.
            missing: the neurons with a NaN.
        """
        count, sentences = block.shape[1], block.shape[0]
        keys, index, ends = self.keys[:count], self.index[:count], self.places[:count]
        if self.double:
            keys = np.ascontiguousarray(block.T)
            order = np.argsort(keys, axis=1)
            runs: np.ndarray = np.take_along_axis(keys, order, axis=1)
            missing: np.ndarray = np.isnan(runs[:, -1])  # sorting puts NaN last
            order += index[:, :1]
            equal = runs.reshape(-1)[1:] == runs.reshape(-1)[:-1]
        else:
            np.copyto(keys, block.T)
            order = keys.view(np.int64)
            order |= index
            keys.sort(axis=1)
            missing = np.isnan(keys[:, -1])
            if missing.any():
                np.copyto(keys, block.T)
                nan: np.ndarray = np.isnan(keys)
                missing = np.asarray(nan.any(axis=1))
                np.clip(keys, -FAR, FAR, out=keys)
                np.copyto(keys, FAR, where=nan)  # sorting does not keep the free bits of a NaN
                order |= index
                keys.sort(axis=1)
            runs, bits = order, order.reshape(-1).view(np.uint64)
            equal = np.bitwise_xor(bits[1:], bits[:-1], out=self.spare[:bits.size - 1]) <= LOW
        tied = np.unique(np.flatnonzero(equal) // sentences)  # or where two neurons meet: harmless
        if len(tied):
            ends = ends.copy()
            ends[tied] = _ends(runs[tied] if self.double else runs[tied] & ~LOW)
        if not self.double:
            order &= LOW
        return order, ends, tied, missing

    def buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Memory that is used again: fresh pages cost as much as what is done with them."""
        size = math.prod(shape)
        if name not in self.buffers or self.buffers[name].size < size:
            self.buffers[name] = np.empty(size, dtype)
        return self.buffers[name][:size].reshape(shape)

    @staticmethod
    def unsort(
        order: Integer[np.ndarray, "n S"], placed: Integer[np.ndarray, "n S"]
    ) -> Integer[np.ndarray, "n S+1"]:
        """What stands at each place, brought back to its sentence; in a further column, S + 1."""
        out = np.empty((len(placed), placed.shape[1] + 1), placed.dtype)
        out[:, -1] = placed.shape[1] + 1
        out.reshape(-1)[order.reshape(-1)] = placed.reshape(-1)
        return out


def _places(count: int) -> Integer[np.ndarray, "S"]:
    return np.arange(1, count + 1, dtype=np.uint16 if count < 2**16 - 1 else np.uint32)


def _ends(values: Num[np.ndarray, "*batch S"]) -> Integer[np.ndarray, "*batch S"]:
    """The last place, from 1, of each run of equal values."""
    places = _places(values.shape[-1])
    ends = np.broadcast_to(places, values.shape).copy()
    np.copyto(ends[..., :-1], places[-1], where=values[..., 1:] == values[..., :-1])
    np.minimum.accumulate(ends[..., ::-1], axis=-1, out=ends[..., ::-1])
    return ends
