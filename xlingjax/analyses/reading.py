"""How analyses read sentences and responses: as long as a model can, and as much as memory holds."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from xlingjax import hosts
from xlingjax.corpora.batching import make_batch, plan_batches
from xlingjax.corpora.tokenising import Tokens
from xlingjax.models import Edit, Model
from xlingjax.models.taps import Splice
from xlingjax.precision import full_precision
from xlingjax.responses.responses import Responses
from xlingjax.sharding import batch_sharding, batch_shards
from xlingjax.training.objectives import Objective, row_losses

CAUSAL = Objective("causal")

DENSE_BYTES = 2**30  # responses up to this size are held in memory while they are analysed
LONGEST = 512  # tokens of a sentence where the model sets no limit


def longest(model: Model) -> int:
    """Tokens that a sentence is cut to."""
    return model.config.max_length or LONGEST


def chosen_losses(
    model: Model, tokens: Tokens, chosen: Sequence[Bool[np.ndarray, "t"]], batch_tokens: int,
    edits: Mapping[str, Edit | Splice] | None = None,
) -> tuple[Float[np.ndarray, "S"], Int[np.ndarray, "S"]]:
    """Nats of a decoder on the chosen tokens of each sentence, summed, and how many these are."""
    losses, counts = np.zeros(len(tokens)), np.zeros(len(tokens), int)
    where = batch_sharding(model.params)
    for plan in plan_batches(tokens.lengths, batch_tokens, batch_shards(model.params)):
        batch = make_batch(tokens, plan, chosen)
        made, summed = hosts.to_host(_losses(
            model.params, model.config, *hosts.to_devices((batch.tokens, batch.mask, batch.where), where),
            dict(edits or {})))
        real = batch.rows >= 0
        losses[batch.rows[real]], counts[batch.rows[real]] = made[real], summed[real]
    return losses, counts


@functools.partial(jax.jit, static_argnames=("config",))
@full_precision
def _losses(
    params: Any, config: Any, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], chosen: Bool[Array, "B T"],
    edits: dict[str, Edit | Splice],
) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
    return row_losses(params, config, CAUSAL, tokens, mask, jax.random.key(0), edits, chosen)


class Matrix:
    """Responses as `concept_experts` reads them: `matrix[rows, neurons]` of two slices -> NumPy."""

    def __init__(self, responses: Responses) -> None:
        self.shape = responses.shape
        small = 4 * self.shape[0] * self.shape[1] <= DENSE_BYTES
        self._dense = responses.matrix() if small else None
        self._responses = responses

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        if self._dense is not None:
            return self._dense[key]
        rows, neurons = key
        return self._responses.rows(np.arange(self.shape[0])[rows]).matrix(neurons)
