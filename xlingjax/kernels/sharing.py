"""How much of what a language's experts are is shared with another language.

Headline overlap is experts of A from one half of the documents against experts of B from the other,
both orders averaged: on the same sentences, translations share names, numerals and length, and any
labelling shares experts. The same language against itself is the ceiling.
"""

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int


def pair_counts(sets: Int[np.ndarray, "M K"], ks: Int[np.ndarray, "k"]) -> Int[np.ndarray, "k M M"]:
    """How many neurons every two of M ranked sets share, for prefixes of several lengths.

    >>> sets = np.array([[4, 7, 9], [7, 4, -1]])
    >>> pair_counts(sets, np.array([1, 2]))
    array([[[1, 0],
            [0, 1]],
           [[2, 2],
            [2, 2]]])
    """
    neurons, place = np.unique(sets, return_inverse=True)
    rank = np.full((len(sets), len(neurons)), sets.shape[1])
    np.put_along_axis(rank, place.reshape(sets.shape), np.arange(sets.shape[1])[None], axis=1)
    rank = rank[:, neurons >= 0]
    counts = np.empty((len(ks), len(sets), len(sets)), int)
    for row, k in enumerate(ks):
        member = (rank < k).astype(np.float32)
        counts[row] = np.rint(member @ member.T)
    return counts


def half_overlaps(
    sets: Int[np.ndarray, "2 G K"], ks: Int[np.ndarray, "k"],
) -> tuple[Float[np.ndarray, "k G G"], Float[np.ndarray, "k G G"]]:
    """Overlap between languages across the document halves, and within them.

    Args:
        sets: ranked experts found in each half of the documents, of each language; -1 = none.
        ks: prefixes compared.

    Returns:
        Across: A from one half against B from the other, both orders averaged; its diagonal is the
        ceiling. Within: both from the same half, averaged over the halves, a diagnostic. Shares of
        k; NaN where a set is empty.

    >>> sets = np.array([[[0, 1], [2, 3]], [[0, 2], [2, 3]]])
    >>> across, within = half_overlaps(sets, np.array([2]))
    >>> across[0]
    array([[0.5 , 0.25],
           [0.25, 1.  ]])
    """
    _, count, width = sets.shape
    shares = pair_counts(sets.reshape(-1, width), ks) / np.asarray(ks, float)[:, None, None]
    found = (sets[..., 0] >= 0).reshape(-1)
    shares = np.where(found[:, None] & found, shares, np.nan)
    first, second = slice(0, count), slice(count, 2 * count)
    across = (shares[:, first, second] + shares[:, second, first]) / 2
    return across, (shares[:, first, first] + shares[:, second, second]) / 2


def shared_fraction(
    cross: Float[np.ndarray, "*batch G G"],
    null: Float[np.ndarray, "*batch G G"],
    sd: Float[np.ndarray, "*batch G G"],
) -> Float[np.ndarray, "*batch G G"]:
    """The part of what could be found that is shared.

    (cross - null) / (sqrt(ceiling_A ceiling_B) - null), null and ceiling as below.

    A rise of the overlap over training may be average precision becoming less noisy; this is what
    must rise for a claim about sharing.

    Args:
        cross: overlaps across document halves; the diagonal holds the ceilings.
        null: their mean under the joint permutation of labels.
        sd: their standard deviation under it.

    Returns:
        1 on the diagonal; NaN, not estimable, where a ceiling is below its own null + 2 sd.

    >>> cross = np.array([[0.8, 0.3], [0.3, 0.5]])
    >>> shared_fraction(cross, np.full((2, 2), 0.1), np.full((2, 2), 0.01)).round(3)
    array([[1.   , 0.376],
           [0.376, 1.   ]])
    """
    ceiling = np.diagonal(cross, axis1=-2, axis2=-1)
    floor = np.diagonal(null, axis1=-2, axis2=-1) + 2 * np.diagonal(sd, axis1=-2, axis2=-1)
    reached = ceiling >= floor
    top = np.sqrt(ceiling[..., :, None] * ceiling[..., None, :])
    estimable = reached[..., :, None] & reached[..., None, :] & (top > null)
    return np.where(estimable, (cross - null) / np.where(estimable, top - null, 1), np.nan)


def reliability(
    ap: Float[np.ndarray, "2 G N"],
    prevalence: Float[np.ndarray, "2 G"],
    sets: Int[np.ndarray, "2 G K"],
) -> Float[np.ndarray, "G G"]:
    """How well the experts found in A detect the concept in B, on other documents.

    The mean of (AP - prevalence) / (1 - prevalence) in language B, half 2, of the experts of A,
    half 1, both orders averaged; 0 is guessing, 1 is perfect. The diagonal is the language itself.

    >>> ap = np.array([[[0.9, 0.5], [0.5, 0.9]], [[0.8, 0.5], [0.5, 0.6]]])
    >>> reliability(ap, np.full((2, 2), 0.5), np.array([[[0], [1]], [[0], [1]]]))
    array([[0.7, 0. ],
           [0. , 0.5]])
    """
    excess = (ap - prevalence[..., None]) / (1 - prevalence[..., None])
    out = []
    for half in (0, 1):
        chosen = excess[1 - half][:, np.maximum(sets[half], 0)]  # [G of B, G of A, K]
        counts = (sets[half] >= 0) & ~np.isnan(chosen)
        total = counts.sum(-1)
        mean = np.where(counts, chosen, 0).sum(-1) / np.maximum(total, 1)
        out.append(np.where(total > 0, mean, np.nan).T)
    return (out[0] + out[1]) / 2


def breadth(sets: Int[np.ndarray, "G K"]) -> Int[np.ndarray, "G"]:
    """How many neurons are experts in exactly 1, 2, ..., G languages.

    >>> breadth(np.array([[1, 2], [2, 3], [2, -1]]))
    array([2, 0, 1])
    """
    _, languages = np.unique(sets[sets >= 0], return_counts=True)
    return np.bincount(languages - 1, minlength=len(sets))


def breadth_chance(sizes: Int[np.ndarray, "G"], total: int) -> Float[np.ndarray, "G"]:
    """Expected `breadth` of random sets of these sizes out of `total` neurons.

    >>> breadth_chance(np.array([2, 2]), 4)
    array([2., 1.])
    """
    chance = np.ones(1)
    for size in sizes:
        chance = np.convolve(chance, [1 - size / total, size / total])
    return chance[1:] * total


def name_overlaps(
    a: Int[np.ndarray, "C K"], b: Int[np.ndarray, "C K"], total: int,
) -> Int[np.ndarray, "C C"]:
    """How many experts of concept c in A are experts of concept d in B, for the concept-name null.

    >>> name_overlaps(np.array([[0, 1], [2, 3]]), np.array([[0, 2], [2, 3]]), 4)
    array([[1, 0],
           [1, 2]])
    """
    return (_incidence(a, total) @ _incidence(b, total).T).toarray()


def _incidence(sets: np.ndarray, total: int) -> scipy.sparse.csr_matrix:
    row, place = np.nonzero(sets >= 0)
    return scipy.sparse.csr_matrix(
        (np.ones(len(row), np.int64), (row, sets[row, place])), shape=(len(sets), total))


def stratum_counts(
    sets: Int[np.ndarray, "*batch K"], strata: Int[np.ndarray, "N"],
) -> Int[np.ndarray, "*batch strata"]:
    """How many neurons of each set lie in each stratum (layer and site).

    >>> stratum_counts(np.array([0, 2, -1]), np.array([0, 0, 1]))
    array([1, 1])
    """
    count = int(strata.max(initial=-1)) + 1
    flat = sets.reshape(-1, sets.shape[-1])
    row, place = np.nonzero(flat >= 0)
    cell = row * count + strata[flat[row, place]]
    return np.bincount(cell, minlength=len(flat) * count).reshape(*sets.shape[:-1], count)


def stratum_overlaps(
    a: Int[np.ndarray, "G K"], b: Int[np.ndarray, "G K"], strata: Int[np.ndarray, "N"],
) -> Float[np.ndarray, "G G strata"]:
    """How many neurons of each stratum every set of a shares with every set of b.

    >>> stratum_overlaps(np.array([[0, 1, 2]]), np.array([[2, 0, 5]]), np.array([0, 0, 1, 1, 1, 1]))
    array([[[1., 1.]]])
    """
    count = int(strata.max(initial=-1)) + 1
    common = np.intersect1d(a[a >= 0], b[b >= 0])
    in_a, in_b = _members(a, common), _members(b, common)
    which = strata[common]
    out = np.zeros((len(a), len(b), count))
    for stratum in np.unique(which):
        inside = which == stratum
        out[..., stratum] = in_a[:, inside] @ in_b[:, inside].T
    return out


def _members(sets: np.ndarray, neurons: np.ndarray) -> np.ndarray:
    """float[G, len(neurons)]: 1 where the neuron, of a sorted list, is in the set."""
    member = np.zeros((len(sets), len(neurons)))
    if len(neurons):
        place = np.minimum(np.searchsorted(neurons, sets), len(neurons) - 1)
        row, column = np.nonzero(neurons[place] == sets)
        member[row, place[row, column]] = 1
    return member
