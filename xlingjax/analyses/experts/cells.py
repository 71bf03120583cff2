"""The average precision of all neurons on some sentences, under the labels and their permutations.

What the analyses of experts share: the inputs of one checkpoint, and one pass over its neurons in
blocks that keeps sets, cuts and null counts but never the APs of the permutations.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xlingjax.kernels import calibration, experts
from xlingjax.kernels.ranking import average_precision

BLOCK_BYTES = 2**27  # APs of one block of neurons under all permutations
IN_MEMORY = 2**31  # observed APs of both halves in all languages; more lies in a temporary file


class Data(NamedTuple):
    """The inputs of one checkpoint, checked."""

    responses: Any  # float[S, N] or what is read like it
    languages: np.ndarray  # str[S]
    names: list[str]  # G
    rows: list[np.ndarray]  # of each language
    blocks: np.ndarray  # int[S], independent documents
    parallel: np.ndarray  # str[S]
    covariates: np.ndarray  # float32[S, covariates]
    strata: np.ndarray  # int[N], -1 = constant in every language
    total: int  # N
    alive: int  # neurons that vary in some language
    k: int
    ks: np.ndarray  # ascending, k among them
    permutations: int
    halvings: int
    seed: int
    level: float
    kinds: tuple[str, ...]  # C


class Cell(NamedTuple):
    """The experts of every concept on some sentences, with those under permuted labels."""

    sets: np.ndarray  # int[1 + P, C, K]; draw 0 is the observation
    values: np.ndarray  # float[1 + P, C, K]
    ties: np.ndarray  # int[C], equals of the k-th expert that lost the draw
    null: np.ndarray  # int[C, bins]
    prevalence: np.ndarray  # float[C]


def read(responses: Any, rows: np.ndarray, neurons: slice) -> np.ndarray:
    """float[len(rows), n]; reads the span of these rows, as those of a language lie together."""
    first = int(rows.min())
    return np.asarray(responses[first:int(rows.max()) + 1, neurons])[rows - first]


def slices(total: int, width: int) -> Iterator[slice]:
    """Slices of at most `width` (at least 1) that cover `total`."""
    width = max(width, 1)
    return (slice(start, min(start + width, total)) for start in range(0, total, width))


def cell_of(
    data: Data, rows: np.ndarray, labels: np.ndarray, width: int, seed: Sequence[int],
    out: np.ndarray | None = None,
) -> Cell:
    """Experts under every labelling of some sentences; neurons constant on them are left out.

    Args:
        labels: int8[1 + P, rows, C], the observation first.
        width: neurons kept for each.
        out: float[C, N] that takes the observed APs.
    """
    draws, _, concepts = labels.shape
    columns = labels.transpose(1, 0, 2).reshape(len(rows), -1)
    positive = columns == 1
    where = None if (columns >= 0).all() else columns >= 0
    empty = ~(positive.any(0) & (columns == 0).any(0))
    tie_seed = seed_of(data, *seed)
    values = np.empty((columns.shape[1], 0), np.float32)
    sets = np.empty((columns.shape[1], 0), np.int32)
    null = np.zeros((concepts, calibration.BINS), int)
    observed = np.empty((concepts, data.total), np.float32) if out is None else out
    for neurons in slices(data.total, BLOCK_BYTES // (4 * max(columns.shape))):
        block = read(data.responses, rows, neurons)
        ap = np.array(average_precision(block, positive, where), np.float32)
        ap[empty] = np.nan
        ap[:, (block == block[0]).all(0)] = np.nan
        observed[:, neurons] = ap[:concepts]
        for start in range(concepts, len(ap), concepts):
            null += calibration.ap_counts(ap[start:start + concepts])
        numbers = np.arange(neurons.start, neurons.stop, dtype=np.int32)
        values, sets = experts.keep_best(
            np.concatenate([values, ap], axis=1),
            np.concatenate([sets, np.broadcast_to(numbers, ap.shape)], axis=1), width, tie_seed)
    shape = (draws, concepts, width)
    counts = (labels[0] >= 0).sum(0)
    return Cell(
        sets.reshape(shape), values.reshape(shape), experts.ties_at_cut(observed, data.k), null,
        (labels[0] == 1).sum(0) / np.maximum(counts, 1))


def labellings(labels: np.ndarray, rows: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """int8[1 + P, rows, C]: the labels of some rows, and their permutations."""
    return np.concatenate([labels[rows][None], labels[sources[:, rows]]])


def seed_of(data: Data, *words: int) -> int:
    """A seed for one purpose, from the seed of the analysis."""
    return int(np.random.SeedSequence([data.seed, *words]).generate_state(1)[0])


def scratch(shape: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """float32 memory, or a temporary file where it is large, and the file, to be kept alive."""
    if 4 * math.prod(shape) <= IN_MEMORY:
        return np.empty(shape, np.float32), None
    file = tempfile.TemporaryFile()
    return np.memmap(file, np.float32, "w+", shape=shape), file


def mean_of(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is not NaN; NaN where nothing is."""
    counted = ~np.isnan(values)
    total = np.where(counted, values, 0).sum(axis)
    return np.where(counted.any(axis), total / np.maximum(counted.sum(axis), 1), np.nan)
