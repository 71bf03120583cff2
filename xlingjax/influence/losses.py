"""The loss whose gradients are asked about: negative log-probabilities of the next tokens, summed over a sequence."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from xlingjax import hosts
from xlingjax.corpora.batching import Batch, make_batch, plan_batches
from xlingjax.corpora.tokenising import Tokens
from xlingjax.influence.matrices import Matrix
from xlingjax.influence.watching import GIVEN, Statistic
from xlingjax.models import Model
from xlingjax.models.config import TransformerConfig
from xlingjax.models.taps import Watch
from xlingjax.models.transformer import forward
from xlingjax.precision import full_precision
from xlingjax.sharding import batch_sharding, batch_shards, mesh_of
from xlingjax.training.objectives import label_losses

LABELS = ("sampled", "true")
Scored = Sequence[Bool[np.ndarray, "t"]]  # of each sequence, tokens whose prediction is part of the loss


def batches_of(model: Model, tokens: Tokens, scored: Scored | None, batch_tokens: int) -> list[Batch]:
    """All sequences in batches; `where` of a batch are tokens whose prediction is part of the loss, by default all."""
    where = [np.ones(len(ids), bool) for ids in tokens.ids] if scored is None else scored
    plans = plan_batches(tokens.lengths, batch_tokens, batch_shards(model.params))
    return [make_batch(tokens, plan, where) for plan in plans]


def scored_places(scored: Bool[Array, "B T"], mask: Bool[Array, "B T"]) -> Bool[Array, "B T"]:
    """Places whose next token is real and is scored."""
    return jnp.pad(scored[:, 1:] & mask[:, 1:], ((0, 0), (0, 1))) & mask


def drawn_labels(logits: Float[Array, "... V"], uniform: Float[Array, "..."]) -> Int[Array, "..."]:
    """Labels drawn from softmax(logits), each by one number in [0, 1): where the cumulative sum passes it.

    >>> logits = jnp.log(jnp.array([[0.2, 0.5, 0.3]] * 3))
    >>> drawn_labels(logits, jnp.array([0.1, 0.3, 0.8])).tolist()
    [0, 1, 2]
    """
    sums = jnp.cumsum(jnp.exp(logits - logits.max(-1, keepdims=True)), axis=-1)
    passed = (sums <= uniform[..., None] * sums[..., -1:]).sum(-1, dtype=jnp.int32)
    return jnp.minimum(passed, logits.shape[-1] - 1)  # the product may round to the whole sum


def sequence_losses(
    params: Any, config: TransformerConfig, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"],
    labels: Int[Array, "B T"] | Float[Array, "B T"], places: Bool[Array, "B T"], edits: Any = None,
) -> Float[Array, "B"]:
    """Nats of the labels, summed over the places of each sequence.

    Args:
        labels: ids, or numbers in [0, 1) by which `drawn_labels` draws them from the model itself.
    """
    hidden, _ = forward(params, config, tokens, mask, edits=edits)
    draw = drawn_labels if jnp.issubdtype(labels.dtype, jnp.floating) else None
    return label_losses(params, config, hidden, labels, places, draw)[0]


def statistics(
    params: Any, config: TransformerConfig, watched: Mapping[Matrix, tuple[str, Mapping[str, Array]]],
    tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], labels: Int[Array, "B T"] | Float[Array, "B T"],
    places: Bool[Array, "B T"],
) -> dict[str, dict[str, Array]]:
    """Name of a matrix -> the statistic of its gradients in every layer, from one backward pass.

    Args:
        watched: matrix -> kind and sums of `Statistic`, each [L, ...].
        labels: as in `sequence_losses`.
        places: where labels are scored; covariances count these tokens.
    """
    rows = {"count": places.astype(jnp.float32), "real": mask.astype(jnp.float32)}

    parts = {matrix.name: {key: {name: one for name, one in sums.items() if (name in GIVEN) == key}
                           for key in (True, False)} for matrix, (_, sums) in watched.items()}

    def loss(sums: dict[str, dict[str, Array]]) -> Float[Array, ""]:
        edits = {matrix.site: Watch(Statistic(kind, matrix.bias), matrix.reads,
                                    parts[matrix.name][True] | sums[matrix.name], rows)
                 for matrix, (kind, _) in watched.items()}
        return sequence_losses(params, config, tokens, mask, labels, places, edits).sum()

    return jax.grad(loss)({name: one[False] for name, one in parts.items()})


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
@full_precision
def batch_statistics(
    params: Any, config: TransformerConfig, kinds: tuple[tuple[Matrix, str], ...], labels: str,
    sums: dict[str, Mapping[str, Array]], tokens: Int[Array, "B T"], mask: Bool[Array, "B T"],
    scored: Bool[Array, "B T"], number: Int[Array, ""] | int = 0, seed: Int[Array, ""] | int = 0,
) -> dict[str, dict[str, Array]]:
    """`statistics` of one batch, compiled once a shape.

    Args:
        kinds: matrices and what is asked of each. labels: one of `LABELS`; sampled ones follow from number and seed.
    """
    if labels == "sampled":  # the Fisher information needs labels of the model's own
        given = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), number), tokens.shape)
    else:
        given = jnp.roll(tokens, -1, axis=1)
    watched = {matrix: (kind, sums[matrix.name]) for matrix, kind in kinds}
    return statistics(params, config, watched, tokens, mask, given, scored_places(scored, mask))


def measured(
    model: Model, kinds: tuple[tuple[Matrix, str], ...], labels: str, sums: Any, batch: Batch, number: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Array]]:
    """`batch_statistics` of a model wherever it lies: a mesh splits the batch by rows."""
    tokens, mask, where = hosts.to_devices(
        (batch.tokens, batch.mask, batch.where), batch_sharding(model.params))
    return batch_statistics(
        model.params, model.config, kinds, labels, sums, tokens, mask, where, np.uint32(number), np.uint32(seed))


def measure(
    model: Model, kinds: tuple[tuple[Matrix, str], ...], labels: str, sums: Any, batch: Batch, number: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """`measured`, brought to the host."""
    return dict(hosts.to_host(measured(model, kinds, labels, sums, batch, number, seed)))


def over_layers(model: Model, arrays: Any) -> Any:
    """Arrays [L, ...] in float32 on the model's devices, their layers over its mesh where an axis divides them."""
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), arrays)
    where = _by_layers(model)
    return jax.tree.map(jnp.asarray, arrays) if where is None else hosts.to_devices(arrays, where)


def layer_zeros(model: Model, *shape: int) -> Float[Array, "L *shape"]:
    """Zeros of each layer, made where `over_layers` would put them: nothing is copied there."""
    return jnp.zeros((model.config.layers, *shape), jnp.float32, device=_by_layers(model))


def _by_layers(model: Model) -> NamedSharding | None:
    mesh = mesh_of(model.params)
    if mesh is None:
        return None
    layers = model.config.layers
    splits = [name for name in ("model", "fsdp") if mesh.shape.get(name, 1) > 1 and not layers % mesh.shape[name]]
    return NamedSharding(mesh, PartitionSpec(*splits[:1]))
