"""How well each neuron ranks the sentences that show a concept: average precision and AUROC.

Both are exact, with scikit-learn's treatment of ties. The neurons are ranked once; every concept,
half or permutation of labels that follows needs the ranks of its positive sentences only.
Traced and accelerator arrays take the compiled path below, arrays on the CPU the faster one of
`ranking_host`; the two agree to 2e-6. Arrays on a mesh are dealt out anew, neurons over all devices,
because a neuron's sentences must be ranked in one place.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Integer

from xlingjax.errors import InputError
from xlingjax.kernels import ranking_host
from xlingjax.sharding import mesh_of

AnyArray = Array | np.ndarray
BLOCK_ELEMENTS = 2**26  # responses ranked at a time on an accelerator, about 2 GB of memory; more are no faster


def average_precision(
    responses: Float[AnyArray, "S N"],
    labels: Bool[AnyArray, "S C"],
    where: Bool[AnyArray, "S"] | Bool[AnyArray, "S C"] | None = None,
) -> Float[Array, "C N"]:
    """The average precision of every neuron as a detector of every concept.

    AP = sum_n (R_n - R_{n-1}) P_n over the distinct responses from the highest down, P and R being
    precision and recall of "response at least this high" (scikit-learn's `average_precision_score`;
    Suau et al. 2020 call it expertise). Equal responses enter together; -0.0 equals 0.0.

    Args:
        responses: one number for each sentence and neuron, of any float type.
        labels: whether the sentence shows the concept.
        where: the sentences that count, for all concepts or one column a concept; all by default.

    Returns:
        AP in [0, 1]; NaN where no counting sentence is positive or a counting response is NaN.
        float64 where JAX would keep the responses in float64, else float32.

    Raises:
        InputError: where shapes or types do not fit.

    >>> responses = np.array([[0.9, 0.1], [0.8, 0.1], [0.3, 0.1], [0.2, 0.1]])
    >>> labels = np.array([[True], [False], [True], [False]])
    >>> print(np.asarray(average_precision(responses, labels)).round(3))
    [[0.833 0.5  ]]
    """
    return _score("average_precision", responses, labels, where)


def auroc(
    responses: Float[AnyArray, "S N"],
    labels: Bool[AnyArray, "S C"],
    where: Bool[AnyArray, "S"] | Bool[AnyArray, "S C"] | None = None,
) -> Float[Array, "C N"]:
    """The area under the ROC curve of every neuron as a detector of every concept.

    The probability that a positive sentence's response exceeds a negative one's, ties counting one
    half (Mann-Whitney U / (P Q), scikit-learn's `roc_auc_score`). Arguments as `average_precision`.

    Returns:
        AUROC in [0, 1]; NaN where the counting sentences lack positives or negatives, or a counting
        response is NaN.

    >>> responses = np.array([[0.9, 0.1], [0.8, 0.1], [0.3, 0.1], [0.2, 0.1]])
    >>> labels = np.array([[True], [False], [True], [False]])
    >>> print(np.asarray(auroc(responses, labels)).round(3))
    [[0.75 0.5 ]]
    """
    return _score("auroc", responses, labels, where)


def _score(measure: str, responses: Any, labels: Any, where: Any) -> Array:
    _check(responses, labels, where)
    if all(map(_on_host, (responses, labels, where))):
        host = getattr(ranking_host, measure)
        shared = None if where is None else np.asarray(where)
        scores = host(np.asarray(responses), np.asarray(labels), shared)
        return jnp.asarray(scores, jax.dtypes.canonicalize_dtype(scores.dtype))
    placed = isinstance(responses, jax.Array) and not isinstance(responses, jax.core.Tracer)
    mesh = mesh_of(responses) if placed else None
    if mesh is None or mesh.size == 1:
        return _compiled(measure, jnp.asarray(responses), jnp.asarray(labels),
                         None if where is None else jnp.asarray(where))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return _sharded(measure, mesh, responses, *jax.device_put((labels, where), everywhere))


def _check(responses: Any, labels: Any, where: Any) -> None:
    if np.ndim(responses) != 2 or np.ndim(labels) != 2 or len(responses) != len(labels):
        raise InputError(
            f"responses {np.shape(responses)} and labels {np.shape(labels)} must be [sentence, "
            "neuron] and [sentence, concept] over the same sentences")
    if where is not None and np.shape(where) not in (np.shape(labels)[:1], np.shape(labels)):
        raise InputError(
            f"where has shape {np.shape(where)}; give one mask for all concepts, "
            f"{np.shape(labels)[:1]}, or one for each, {np.shape(labels)}")
    if not jnp.issubdtype(responses.dtype, jnp.floating):
        raise InputError(f"responses are {responses.dtype}; give floating-point numbers")
    for name, array in (("labels", labels), ("where", where)):
        if array is not None and array.dtype != bool:
            raise InputError(f"{name} are {array.dtype}; give booleans, for example {name} == 1")


def _on_host(array: Any) -> bool:
    """Whether the numbers lie in this process' memory: NumPy, or one CPU device of JAX."""
    if isinstance(array, jax.core.Tracer):
        return False
    if isinstance(array, jax.Array):
        devices = array.devices()
        return len(devices) == 1 and next(iter(devices)).platform == "cpu"
    return True


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sharded(
    measure: str,
    mesh: Mesh,
    responses: Float[Array, "S N"],
    labels: Bool[Array, "S C"],
    where: Bool[Array, "..."] | None,
) -> Float[Array, "C N"]:
    neurons = responses.shape[1]
    split = PartitionSpec(None, mesh.axis_names)
    padded = jnp.pad(responses, ((0, 0), (0, -neurons % mesh.size)))
    padded = jax.lax.with_sharding_constraint(padded, NamedSharding(mesh, split))
    score = jax.shard_map(
        functools.partial(_compiled, measure), mesh=mesh,
        in_specs=(split, PartitionSpec(), PartitionSpec()), out_specs=split)
    return score(padded, labels, where)[:, :neurons]


@functools.partial(jax.jit, static_argnums=0)
def _compiled(
    measure: str,
    responses: Float[Array, "S N"],
    labels: Bool[Array, "S C"],
    where: Bool[Array, "..."] | None,
) -> Float[Array, "C N"]:
    # Without a mask all sentences count: that saves a sum along the order for every concept.
    counting = None if where is None else jnp.broadcast_to(where.reshape(len(where), -1), labels.shape).T
    score = {"average_precision": _average_precision, "auroc": _auroc}[measure]

    def neuron(response: Float[Array, "S"]) -> Float[Array, "C"]:
        if response.dtype != jnp.float64:
            response = response.astype(jnp.float32)  # exact: every other float type is narrower
        order, last = _rank(response)
        missing = jnp.isnan(response)

        def concept(pair: tuple[Array, Array | None]) -> Float[Array, ""]:
            label, counts = pair
            among = None if counts is None else counts[order]
            scores = score(label[order], among, last, response.dtype)
            return jnp.where(jnp.any(missing if counts is None else missing & counts), jnp.nan, scores)

        return jax.lax.map(concept, (labels.T, counting))

    if responses.size <= BLOCK_ELEMENTS:
        return jax.vmap(neuron, in_axes=1, out_axes=1)(responses)
    block = max(1, BLOCK_ELEMENTS // len(responses))
    return jax.lax.map(neuron, responses.T, batch_size=block).T


def _rank(response: Float[Array, "S"]) -> tuple[Integer[Array, "S"], Int[Array, "S"]]:
    """The order of the sentences from the highest response down, and at each place of that order
    the last place with the same response."""
    # Unsigned keys sort several times faster than floats on XLA:CPU; `where` makes -0.0 equal 0.0.
    unsigned = jnp.uint64 if response.dtype == jnp.float64 else jnp.uint32
    bits = jax.lax.bitcast_convert_type(jnp.where(response == 0, 0, -response), unsigned)
    sign = jnp.array(1 << (bits.dtype.itemsize * 8 - 1), unsigned)
    keys = jnp.where(bits >= sign, ~bits, bits | sign)
    # The order among equal responses plays no part, so the sort need not be stable, and the places travel
    # with the keys in as few bytes as hold them: both speed up a GPU.
    places = jnp.arange(len(response), dtype=jnp.uint16 if len(response) <= 2**16 else jnp.int32)
    keys, order = jax.lax.sort((keys, places), num_keys=1, is_stable=False)
    ends = jnp.append(keys[1:] != keys[:-1], True)
    at = jnp.arange(len(response))
    last = jax.lax.cummin(jnp.where(ends, at, len(at) - 1), reverse=True)
    return order, last


def _average_precision(
    label: Bool[Array, "S"], counts: Bool[Array, "S"] | None, last: Int[Array, "S"], dtype: np.dtype
) -> Float[Array, ""]:
    if counts is not None:
        label = label & counts
    hits = jnp.cumsum(label).astype(dtype)
    seen = last + 1 if counts is None else jnp.maximum(jnp.cumsum(counts), 1)[last]
    precision = hits[last] / seen.astype(dtype)
    return jnp.sum(jnp.where(label, precision, 0)) / hits[-1]  # 0 / 0 = NaN without positives


def _auroc(
    label: Bool[Array, "S"], counts: Bool[Array, "S"] | None, last: Int[Array, "S"], dtype: np.dtype
) -> Float[Array, ""]:
    label, other = (label, ~label) if counts is None else (label & counts, ~label & counts)
    above = jnp.cumsum(other)  # negatives at this place or higher
    first = jnp.append(True, last[1:] != last[:-1])
    higher = above - other.astype(above.dtype)
    strictly = jax.lax.cummax(jnp.where(first, higher, 0))  # higher than all its ties
    negatives = above[-1].astype(dtype)
    beaten = negatives - (above[last] + strictly).astype(dtype) / 2
    return jnp.sum(jnp.where(label, beaten / negatives, 0)) / jnp.sum(label).astype(dtype)
