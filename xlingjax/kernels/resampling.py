"""Splits, bootstraps and permutations that never tear a document apart.

Sentences of one document share topic and style, and translations of one sentence share names,
numerals and length. Both would pass for evidence if the two were treated as independent, so
everything here moves *blocks*: documents joined across languages by their parallel sentences.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from jaxtyping import Int, Int8, Shaped

from xlingjax.errors import InputError

Strings = Shaped[np.ndarray, "S"]


def independent_blocks(documents: Strings, parallel: Strings) -> Int[np.ndarray, "S"]:
    """The block of every sentence: documents that a parallel sentence ties are one block.

    Args:
        documents: document ids.
        parallel: parallel ids, "" = no translation.

    Returns:
        Numbers from 0, in order of first appearance.

    >>> independent_blocks(np.array(["a", "a", "b", "c"]), np.array(["1", "2", "2", ""]))
    array([0, 0, 0, 1])
    """
    _, document = np.unique(documents, return_inverse=True)
    tied = np.flatnonzero(parallel != "")
    _, item = np.unique(parallel[tied], return_inverse=True)
    count = document.max(initial=-1) + 1
    size = count + item.max(initial=-1) + 1
    edges = scipy.sparse.coo_matrix(
        (np.ones(len(tied)), (document[tied], count + item)), shape=(size, size))
    _, component = scipy.sparse.csgraph.connected_components(edges, directed=False)
    _, first, block = np.unique(component[document], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[block]


def document_halves(
    blocks: Int[np.ndarray, "S"], languages: Strings, seed: int,
) -> Int[np.ndarray, "S"]:
    """A random half, 0 or 1, for every sentence; a block lies in one half in all its languages.

    >>> document_halves(np.array([0, 0, 1, 1]), np.array(["x", "x", "x", "x"]), seed=0)
    array([1, 1, 0, 0])
    """
    return document_parts(blocks, languages, (1, 1), seed)


def document_parts(
    blocks: Int[np.ndarray, "S"], languages: Strings, shares: Sequence[int], seed: int,
) -> Int[np.ndarray, "S"]:
    """A random part for every sentence, parts in the ratio of `shares`; a block lies in one part.

    Blocks that occur in the same languages are dealt out evenly, so every language with as many blocks
    as `shares` has has sentences in every part.

    Raises:
        InputError: where there are fewer blocks than parts.

    >>> np.bincount(document_parts(np.arange(8), np.array(["x"] * 8), (2, 1, 1), seed=0)).tolist()
    [4, 2, 2]
    """
    count = int(blocks.max(initial=-1)) + 1
    if count < len(shares):
        raise InputError(
            f"the sentences come from {count} independent document(s); {len(shares)} parts need as many, so give "
            "sentences of more documents or finer document ids")
    slots = np.repeat(np.arange(len(shares)), shares)
    rng = np.random.default_rng(seed)
    signature = _signatures(blocks, languages, count)
    order = np.lexsort((rng.random(count), signature))
    place = np.arange(count) - np.searchsorted(signature[order], signature[order])
    start = rng.integers(0, len(slots), count)[signature[order]]
    part = np.empty(count, int)
    part[order] = slots[(place + start) % len(slots)]
    for empty in np.setdiff1d(slots, part):  # few blocks, each in other languages
        most = np.bincount(part).argmax()
        part[order[np.flatnonzero(part[order] == most)[0]]] = empty
    return part[blocks]


def document_bootstrap(blocks: Int[np.ndarray, "S"], seed: int) -> Int[np.ndarray, "S"]:
    """How often each sentence occurs when as many blocks as there are are drawn with replacement.

    >>> document_bootstrap(np.array([0, 0, 1, 1, 2]), seed=1)
    array([0, 0, 2, 2, 1])
    """
    count = int(blocks.max(initial=-1)) + 1
    drawn = np.random.default_rng(seed).integers(0, count, count)
    return np.bincount(drawn, minlength=count)[blocks]


def joint_permutations(
    blocks: Int[np.ndarray, "S"],
    parallel: Strings,
    languages: Strings,
    draws: int,
    seed: int,
    within: Int[np.ndarray, "S"] | None = None,
) -> Int[np.ndarray, "draws S"]:
    """Permutations of labels over sentences, identical in all languages, whole documents together.

    Blocks are shuffled among those of the same languages, and their sentences are laid out over the
    places in order, so label sequences keep their runs and every language its counts. A parallel
    sentence takes the labels of one and the same other sentence in all languages. Sentences without
    a parallel id are laid out language by language: with none at all, documents are permuted within
    each language.

    Args:
        within: group (such as the half) of every sentence, constant in a block; blocks stay in it.

    Returns:
        The row whose labels each row takes: `labels[source[draw]]`.

    >>> joint_permutations(np.array([0, 0, 1, 1]), np.array(["1", "2", "3", "4"]),
    ...                    np.array(["x"] * 4), draws=3, seed=1)
    array([[0, 1, 2, 3],
           [0, 1, 2, 3],
           [2, 3, 0, 1]])
    """
    count = int(blocks.max(initial=-1)) + 1
    _, language = np.unique(languages, return_inverse=True)
    width = language.max(initial=-1) + 1
    item, items = _items(parallel, language)
    row_of = np.full((items, width), -1)
    row_of[item, language] = np.arange(len(blocks))
    first_row = np.zeros(items, int)
    first_row[item[::-1]] = np.arange(len(blocks))[::-1]
    block = blocks[first_row]
    group = np.zeros(items, int) if within is None else within[first_row]
    classes = np.stack([
        _signatures(blocks, languages, count)[block], group, _signatures(item, languages, items)])
    _, kind = np.unique(classes, axis=1, return_inverse=True)
    kind = kind.reshape(-1)
    target = np.lexsort((first_row, block, kind))
    rng = np.random.default_rng(seed)
    sources = np.empty((draws, len(blocks)), int)
    for draw in range(draws):
        key = rng.permutation(count)
        taken = np.empty(items, int)
        taken[target] = np.lexsort((first_row, key[block], kind))
        sources[draw] = row_of[taken[item], language]
    return sources


def name_permutations(kinds: Sequence[str], draws: int, seed: int) -> Int[np.ndarray, "draws C"]:
    """Random orders of the concept names of one language against another's, within each kind.

    What concepts of one kind have in common, their place in a sentence and its grammar, survives.

    >>> name_permutations(["noun", "verb", "noun", "noun"], 2, seed=0)
    array([[3, 1, 0, 2],
           [3, 1, 2, 0]])
    """
    rng = np.random.default_rng(seed)
    names = np.asarray(kinds)
    out = np.tile(np.arange(len(names)), (draws, 1))
    for kind in dict.fromkeys(names.tolist()):
        members = np.flatnonzero(names == kind)
        for row in out:
            row[members] = rng.permutation(members)
    return out


def random_like(
    chosen: Int[np.ndarray, "n"], strata: Int[np.ndarray, "N"], barred: Int[np.ndarray, "m"], seed: int,
) -> Int[np.ndarray, "r"]:
    """Random neurons, as many in every layer and site as `chosen` has, none of them barred.

    Where a layer and site has too few left, all that are left.

    >>> random_like(np.array([0, 5]), np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 1, 5]), seed=0).tolist()
    [3, 6]
    """
    rng = np.random.default_rng([seed, 13])
    free = np.ones(len(strata), bool)
    free[barred] = False
    out = []
    for stratum, count in zip(*np.unique(strata[chosen], return_counts=True)):
        left = np.flatnonzero(free & (strata == stratum))
        out.append(rng.choice(left, min(count, len(left)), replace=False))
    return np.sort(np.concatenate(out)) if out else np.empty(0, int)


def equal_counts(
    labels: Int8[np.ndarray, "S C"],
    languages: Strings,
    blocks: Int[np.ndarray, "S"],
    parallel: Strings,
    seed: int,
) -> Int8[np.ndarray, "S C"]:
    """Labels with as many positives and negatives of a concept in every language that has it.

    Average precision follows prevalence, so languages are compared at equal counts. What is too
    much is set to -1, by one random order of documents common to all languages, the last first.
    Languages without a positive or without a negative keep their labels and do not lower the rest.

    >>> both = np.array([[1], [1], [0], [1], [0]], np.int8)
    >>> languages, blocks = np.array(["x", "x", "x", "y", "y"]), np.arange(5)
    >>> equal_counts(both, languages, blocks, np.array([""] * 5), seed=0).T
    array([[-1,  1,  0,  1,  0]], dtype=int8)
    """
    rng = np.random.default_rng(seed)
    _, language = np.unique(languages, return_inverse=True)
    item, items = _items(parallel, language)
    place = rng.permutation(items)[item]
    order = np.lexsort((place, rng.permutation(blocks.max(initial=-1) + 1)[blocks]))
    counts = np.array([
        [np.count_nonzero(labels[language == group] == value, axis=0) for value in (0, 1)]
        for group in range(language.max(initial=-1) + 1)])
    present = np.all(counts > 0, axis=1, keepdims=True)
    fewest = np.where(present, counts, np.iinfo(int).max).min(0)
    equal = labels.copy()
    for group, value, concept in zip(*np.nonzero((counts > fewest) & present)):
        rows = order[np.equal(labels[order, concept], value) & np.equal(language[order], group)]
        equal[rows[fewest[value, concept]:], concept] = -1
    return equal


def _items(parallel: np.ndarray, language: np.ndarray) -> tuple[np.ndarray, int]:
    """A number for every parallel sentence; sentences without translation have one of their own."""
    rows = len(parallel)
    _, name = np.unique(parallel, return_inverse=True)
    pair = name * (language.max(initial=0) + 1) + language
    order = np.argsort(pair, kind="stable")
    occurrence = np.empty(rows, int)
    occurrence[order] = np.arange(rows) - np.searchsorted(pair[order], pair[order])
    key = np.where(parallel == "", -1 - np.arange(rows), name * rows + occurrence)
    _, item = np.unique(key, return_inverse=True)
    return item, int(item.max(initial=-1)) + 1


def _signatures(member: np.ndarray, languages: np.ndarray, count: int) -> np.ndarray:
    """A number for the set of languages in which each of `count` members occurs."""
    _, language = np.unique(languages, return_inverse=True)
    occurs = np.zeros((count, language.max(initial=0) + 1), bool)
    occurs[member, language] = True
    _, signature = np.unique(occurs, axis=0, return_inverse=True)
    return signature.reshape(-1)
