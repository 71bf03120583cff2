"""The losses of the four steps, in the form that `fit` takes: (params, frozen, batch, key) -> (sum, count).

What is learned and what is frozen is the caller's partition of one tree {"body": ..., "bank": ..., "head": ...}; the
losses put the two parts together. Equal losses share their compiled programs.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from xlingjax.models.config import TransformerConfig
from xlingjax.models.transformer import forward
from xlingjax.tasks.task import Task
from xlingjax.training.objectives import Objective, hide_tokens, label_losses, row_losses
from xlingjax.transfer.banks import NEXT, combined, join_params

Parts = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class LanguageLoss:
    """Masked or causal language modelling of a body with a bank.

    Attributes:
        config: of the joined model.
        objective: what is predicted.
    """

    config: TransformerConfig
    objective: Objective

    def __call__(self, params: Parts, frozen: Parts | None, batch: Parts, key: Key[Array, ""]) -> tuple[Array, Array]:
        """`batch`: tokens int[B, T], mask bool[B, T]; `frozen` may hold `begins` bool[V] for whole words.

        With `follows` int[B] in the batch (`training.next_sentence`) the mean loss of telling from the first token
        whether the second half of a row follows the first is added to the mean loss of the hidden tokens.
        """
        parts = combined(params, frozen)
        joined = join_params(parts["body"], parts["bank"])
        begins = parts.get("begins")
        if "follows" not in batch:
            nll, count = row_losses(
                joined, self.config, self.objective, batch["tokens"], batch["mask"], key, begins=begins)
            return nll.sum(), count.sum()
        tokens, mask = jnp.asarray(batch["tokens"]), batch["mask"]
        shown, positions, counted = hide_tokens(key, tokens, mask, self.objective, self.config.vocab_size, begins)
        hidden, _ = forward(joined, self.config, shown, mask)
        picked = jnp.take_along_axis(hidden, positions[..., None], axis=1)
        nll, count = label_losses(
            joined, self.config, picked, jnp.take_along_axis(tokens, positions, axis=1), counted)
        head = parts["body"][NEXT]
        logs = jax.nn.log_softmax((hidden[:, 0] @ head["kernel"] + head["bias"]).astype(jnp.float32))
        wrong = -jnp.take_along_axis(logs, jnp.asarray(batch["follows"])[:, None], axis=1).mean()
        return nll.sum() + wrong * count.sum(), count.sum()


@dataclasses.dataclass(frozen=True)
class TaskLoss:
    """A task on a body with a bank.

    Attributes:
        config: of the joined model.
        task: whose head reads the hidden states.
        noise: standard deviation of the normal noise that is added to what the embedding gives (paper: 0.075).
    """

    config: TransformerConfig
    task: Task
    noise: float = 0.0

    def __call__(self, params: Parts, frozen: Parts | None, batch: Parts, key: Key[Array, ""]) -> tuple[Array, Array]:
        """`batch`: tokens, mask, and `targets` as the task encodes them."""
        parts = combined(params, frozen)
        joined, tokens = join_params(parts["body"], parts["bank"]), batch["tokens"]
        if self.noise:
            joined, tokens = noisy(joined, tokens, self.noise, key)
        hidden, _ = forward(joined, self.config, tokens, batch["mask"])
        return self.task.loss(parts["head"], hidden, batch["targets"])


def noisy(
    params: Parts, tokens: Int[Array, "B T"], deviation: float, key: Key[Array, ""],
) -> tuple[dict[str, Any], Int[Array, "B T"]]:
    """Parameters and tokens of the same batch with normal noise on every token's embedding, before any norm.

    Every token of the batch gets a row of its own in the embedding; the head, where it is tied, is another's then.
    """
    table = params["embed"]["tokens"]["embedding"]
    rows = jnp.take(table, tokens.reshape(-1), axis=0)
    rows = rows + deviation * jax.random.normal(key, rows.shape, rows.dtype)
    own = jnp.arange(tokens.size, dtype=jnp.int32).reshape(tokens.shape)
    return {**params, "embed": {**params["embed"], "tokens": {"embedding": rows}}}, own


@functools.lru_cache(maxsize=64)
def reader(config: TransformerConfig) -> Callable[[Any, Array, Array], Array]:
    """What `tasks.predict` calls the body: (parameters, tokens, mask) -> hidden; one object a config."""

    def read(params: Any, tokens: Array, mask: Array) -> Array:
        return forward(params, config, tokens, mask)[0]

    return read
