"""Expert sets, and how far two of them overlap beyond chance.

The experts of a concept in a language are the k neurons with the highest average precision. Two
sets of k out of N share k^2/N neurons by chance, more where they crowd into few layers or where a
few neurons are experts of everything; each of these chances has a function here.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from xlingjax.errors import InputError

AnyArray = Array | np.ndarray


class Overlap(NamedTuple):
    """What two expert sets share; every field is a share of k."""

    overlap: Any
    chance: Any
    sd: Any
    corrected: Any


def expert_sets(
    ap: Float[AnyArray, "*batch N"], k: int, seed: int | Integer[AnyArray, ""] = 0,
) -> Int[AnyArray, "*batch k"]:
    """The k neurons with the highest average precision, best first.

    Equal values at the cut are ordered at random, anew for every leading index: ordering them by
    neuron would hand independent languages the same experts. Sets of one call are therefore
    independent at ties; sets of separate calls are so only under different seeds.

    Args:
        ap: average precision; NaN is never chosen.
        k: how many neurons.
        seed: of the order among equals; data, also while tracing.

    Returns:
        Neuron indices; -1 fills a row with fewer than k values that are not NaN.

    Raises:
        InputError: if k is below 1.

    >>> expert_sets(np.array([[0.2, 0.9, np.nan, 0.5], [0.2, np.nan, np.nan, 0.1]]), 3)
    array([[ 1,  3,  0],
           [ 0,  3, -1]], dtype=int32)
    """
    if k < 1:
        raise InputError(f"k is {k}; an expert set has at least one neuron, choose k >= 1")
    if isinstance(ap, jax.core.Tracer):
        return _compiled_sets(ap, k, seed)
    if isinstance(ap, jax.Array):
        on_host = all(device.platform == "cpu" for device in ap.devices())
        if not on_host:
            return _compiled_sets(ap, k, seed)
        return jnp.asarray(_host_sets(np.asarray(ap), k, int(seed)))
    return _host_sets(ap, k, int(seed))


@functools.partial(jax.jit, static_argnums=1)
def _compiled_sets(ap: Float[Array, "*batch N"], k: int, seed: Any) -> Int[Array, "*batch k"]:
    total = ap.shape[-1]
    flat = ap.reshape(-1, total)
    rows = jnp.arange(flat.shape[0], dtype=jnp.uint32)[:, None]
    neurons = jnp.broadcast_to(jnp.arange(total, dtype=jnp.int32), flat.shape)
    missing = jnp.isnan(flat)
    worst_first = jnp.where(missing, jnp.inf, -flat)
    ties = _tie_order(jnp.asarray(seed).astype(jnp.uint32), rows, neurons.astype(jnp.uint32))
    _, _, best = jax.lax.sort([worst_first, ties, jnp.where(missing, -1, neurons)], num_keys=2)
    best = jnp.pad(best[:, :k], ((0, 0), (0, max(k - total, 0))), constant_values=-1)
    return best.reshape(*ap.shape[:-1], k)


def _host_sets(ap: np.ndarray, k: int, seed: int) -> np.ndarray:
    total = ap.shape[-1]
    neurons = np.arange(total, dtype=np.int32)[None]
    _, best = keep_best(ap.reshape(-1, total), neurons, k, seed)
    return best.reshape(*ap.shape[:-1], k)


def keep_best(
    values: Float[np.ndarray, "R n"], neurons: Int[np.ndarray, "#R n"], k: int, seed: int = 0,
) -> tuple[Float[np.ndarray, "R k"], Int[np.ndarray, "R k"]]:
    """The k highest values of every row and their neurons, for sets gathered block by block.

    Merging the best so far with the next block of neurons, under one seed, ends at the same sets as
    `expert_sets` over all neurons at once: the order of ties depends on the row and the neuron.

    Returns:
        Values, best first (NaN fills), and neurons (-1 fills).

    >>> keep_best(np.array([[0.1, 0.7, 0.3]]), np.array([[40, 41, 42]]), 2)[1]
    array([[41, 42]], dtype=int32)
    """
    count, width = values.shape
    best_values = np.full((count, k), np.nan, values.dtype)
    best = np.full((count, k), -1, np.int32)
    if not (count and width):
        return best_values, best
    neurons = np.broadcast_to(neurons, values.shape)
    comparable = np.where(np.isnan(values) | (neurons < 0), -np.inf, values)
    cut_at = max(width - k, 0)
    cut = np.partition(comparable, cut_at, axis=1)[:, cut_at]
    rows, columns = np.nonzero((comparable >= cut[:, None]) & (comparable > -np.inf))
    chosen_values, chosen = comparable[rows, columns], neurons[rows, columns]
    ties = _tie_order(
        np.asarray([seed % 2**32], np.uint32), rows.astype(np.uint32), chosen.astype(np.uint32))
    order = np.lexsort((ties, -chosen_values, rows))
    rows = rows[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < k
    best_values[rows[kept], place[kept]] = chosen_values[order][kept]
    best[rows[kept], place[kept]] = chosen[order][kept]
    return best_values, best


def _mix(x: Any) -> Any:
    """A bijection of 32-bit integers that scatters neighbours (the finaliser of MurmurHash3)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _tie_order(seed: Any, rows: Any, neurons: Any) -> Any:
    """A random number for every (seed, row, neuron), the same on host and accelerator."""
    return _mix(neurons ^ _mix(rows + _mix(seed + np.uint32(0x9E3779B9))))


def ties_at_cut(ap: Float[np.ndarray, "*batch N"], k: int) -> Int[np.ndarray, "*batch"]:
    """How many neurons equal to the k-th best are left out of the set, that is, lost the draw.

    >>> ties_at_cut(np.array([0.9, 0.5, 0.5, 0.5, 0.1]), 2)
    array(2)
    """
    comparable = np.where(np.isnan(ap), -np.inf, ap)
    if ap.shape[-1] <= k:
        return np.zeros(ap.shape[:-1], int)
    cut = np.partition(comparable, -k, axis=-1)[..., -k, None]
    left_out = (comparable >= cut).sum(-1) - k
    return np.asarray(np.where(cut[..., 0] > -np.inf, left_out, 0))


def set_overlap(a: Any, b: Any, total: Any, k: Any = None, strata: Any = None) -> Overlap:
    """What two ranked expert sets share, beside what two random sets would.

    The chance of stratum s with N_s neurons, a_s and b_s of them chosen, is a_s b_s / N_s with the
    variance of the hypergeometric distribution; without strata there is one stratum of `total`.

    Args:
        a, b: int[..., K], best first, -1 = no neuron; leading axes broadcast.
        total: number of neurons that could have been chosen, N.
        k: compare the first k of each set; data, so that another k compiles nothing; default K.
        strata: int[N], the stratum (layer and site) of every neuron, negative = could not be
            chosen; known before tracing.

    Returns:
        overlap |A and B| / k, its chance and standard deviation under random sets, and
        corrected = (overlap - chance) / (1 - chance), each of the broadcast leading shape.

    >>> two = set_overlap(np.array([0, 1, 2, 3]), np.array([9, 1, 0, 8]), total=10)
    >>> [round(float(value), 3) for value in two]
    [0.5, 0.4, 0.2, 0.167]
    >>> float(set_overlap(np.array([0, 1, 2, 3]), np.array([9, 1, 0, 8]), total=10, k=1).overlap)
    0.0
    """
    xp: Any = jnp if isinstance(a, jax.Array) or isinstance(b, jax.Array) else np
    a, b = xp.asarray(a), xp.asarray(b)
    real = np.float64 if xp is np else jnp.float32
    size = xp.asarray(max(a.shape[-1], b.shape[-1]) if k is None else k)
    batch = np.broadcast_shapes(a.shape[:-1], b.shape[:-1], size.shape)
    a, b = _prefix(xp, a, size), _prefix(xp, b, size)
    size = size.astype(real)
    a_width, b_width = a.shape[-1], b.shape[-1]
    together = xp.concatenate(
        [xp.broadcast_to(a, (*batch, a_width)), xp.broadcast_to(b, (*batch, b_width))], axis=-1)
    ranked = xp.sort(together, axis=-1)
    shared = ((ranked[..., 1:] == ranked[..., :-1]) & (ranked[..., 1:] >= 0)).sum(-1)
    if strata is None:
        a_size = (a >= 0).sum(-1, keepdims=True).astype(real)
        b_size = (b >= 0).sum(-1, keepdims=True).astype(real)
        stratum_size = xp.asarray(total).astype(real)[..., None]
    else:
        strata = np.asarray(strata)
        counts = np.bincount(strata[strata >= 0])
        a_size = _by_stratum(xp, a, strata, len(counts)).astype(real)
        b_size = _by_stratum(xp, b, strata, len(counts)).astype(real)
        stratum_size = xp.asarray(np.maximum(counts, 1)).astype(real)
    mean, variance = hypergeometric(a_size, b_size, stratum_size)
    overlap = shared.astype(real) / size
    chance = xp.broadcast_to(mean.sum(-1) / size, batch)
    sd = xp.broadcast_to(xp.sqrt(variance.sum(-1)) / size, batch)
    return Overlap(overlap, chance, sd, (overlap - chance) / (1 - chance))


def _prefix(xp: Any, sets: Any, size: Any) -> Any:
    return xp.where(xp.arange(sets.shape[-1]) < size[..., None], sets, -1)


def _by_stratum(xp: Any, sets: Any, strata: np.ndarray, count: int) -> Any:
    member = xp.where(sets >= 0, xp.asarray(strata)[sets], -1)
    return (member[..., None] == xp.arange(count)).sum(-2)


def hypergeometric(a: Any, b: Any, total: Any) -> tuple[Any, Any]:
    """Mean and variance of what random sets of a and b neurons out of `total` share.

    >>> mean, variance = hypergeometric(4.0, 4.0, 10.0)
    >>> print(round(mean, 6), round(variance, 6))
    1.6 0.64
    """
    xp: Any = jnp if isinstance(total, jax.Array) else np
    mean = a * b / total
    spread = (total - a) * (total - b) / (total * xp.maximum(total - 1, 1))
    return mean, mean * spread


def marginal_chance(
    a: Int[np.ndarray, "C K"], b: Int[np.ndarray, "C K"], total: int,
) -> Float[np.ndarray, "C"]:
    """Neurons shared by chance if each kept how often it is an expert of the *other* concepts.

    sum_i p_i q_i, p_i being the share of the other concepts of which neuron i is an expert in A,
    q_i the same in B. Neurons that are experts of everything raise it. With mutually exclusive
    concepts it is biased low, so it is never the only control.

    Returns:
        Expected number of shared neurons of every concept (not a share of k); NaN for one concept.

    >>> marginal_chance(np.array([[0, 1], [0, 2], [0, 3]]), np.array([[0, 4], [0, 5], [0, 2]]), 6)
    array([1.25, 1.  , 1.  ])
    """
    count = len(a)
    if count < 2:
        return np.full(count, np.nan)
    in_a = np.bincount(a[a >= 0], minlength=total).astype(float)
    in_b = np.bincount(b[b >= 0], minlength=total).astype(float)
    from_a = np.where(a >= 0, in_b[a], 0).sum(-1)
    from_b = np.where(b >= 0, in_a[b], 0).sum(-1)
    ranked = np.sort(np.concatenate([a, b], axis=-1), axis=-1)
    own = ((ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] >= 0)).sum(-1)
    return (in_a @ in_b - from_a - from_b + own) / (count - 1) ** 2
