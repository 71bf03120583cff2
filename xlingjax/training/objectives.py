"""Causal and masked language modelling: the loss of each row of a batch."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.taps import Edits
from xlingjax.models.transformer import forward, unembed

OBJECTIVES = ("causal", "masked")
# Floats; more logits are computed in chunks of rows, and again in the backward pass.
LOGITS_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is predicted.

    Attributes:
        kind: "causal", every next token; "masked", a share of hidden tokens.
        mask_id: id of `<mask>` (masked only).
        ordinary: first id that is no special token; special tokens are never hidden and never put
            in a hidden token's place.
        share: of the ordinary tokens of each row that are hidden.
    """

    kind: str = "causal"
    mask_id: int = -1
    ordinary: int = 0
    share: float = 0.15

    def __post_init__(self) -> None:
        if self.kind not in OBJECTIVES:
            raise InputError(
                f"unknown objective {self.kind!r}; it is one of {', '.join(OBJECTIVES)}"
            )


def row_losses(
    params: dict,
    config: TransformerConfig,
    objective: Objective,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    key: Key[Array, ""],
    edits: Edits | None = None,
    targets: Bool[Array, "B T"] | None = None,
) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
    """Summed cross-entropy in nats of each row's targets, and how many targets it has.

    Causal: the target of position t is the token at t + 1, where both are real (and in `targets`). Masked: the targets
    are the tokens that `hide_tokens` hid. The loss of a batch is sum / sum.
    """
    if objective.kind == "causal":
        hidden, _ = forward(params, config, tokens, mask, edits=edits)
        counted = mask if targets is None else mask & targets
        return label_losses(
            params, config, hidden[:, :-1], tokens[:, 1:], counted[:, 1:] & mask[:, :-1]
        )
    shown, positions, counted = hide_tokens(key, tokens, mask, objective, config.vocab_size)
    hidden, _ = forward(params, config, shown, mask, edits=edits)
    hidden = jnp.take_along_axis(hidden, positions[..., None], axis=1)
    hid = jnp.take_along_axis(tokens, positions, axis=1)
    return label_losses(params, config, hidden, hid, counted)


def hide_tokens(
    key: Key[Array, ""],
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    objective: Objective,
    vocabulary: int,
) -> tuple[Int[Array, "B T"], Int[Array, "B P"], Bool[Array, "B P"]]:
    """Hides `share` of each row's ordinary tokens (BERT's 80/10/10).

    Of the chosen tokens 80 % become `<mask>`, 10 % a random ordinary token, 10 % stay. The number
    chosen is share * ordinary tokens, rounded to the nearest, so that the head runs at P positions
    only.

    Returns:
        The tokens to show, the chosen positions, and which of the P are chosen (short rows have
        fewer).
    """
    tokens = jnp.asarray(tokens)
    key_place, key_kind, key_token = jax.random.split(key, 3)
    ordinary = mask & (tokens >= objective.ordinary)
    most = int(objective.share * tokens.shape[1] + 0.5)
    order = jnp.where(ordinary, jax.random.uniform(key_place, tokens.shape), 2.0)
    positions = jnp.argsort(order, axis=1)[:, :most]
    wanted = (objective.share * ordinary.sum(1).astype(jnp.float32) + 0.5).astype(jnp.int32)
    counted = jnp.arange(most)[None, :] < wanted[:, None]
    original = jnp.take_along_axis(tokens, positions, axis=1)
    kind = jax.random.uniform(key_kind, positions.shape)
    drawn = jax.random.randint(
        key_token, positions.shape, objective.ordinary, vocabulary, tokens.dtype
    )
    hidden = jnp.full_like(original, objective.mask_id)
    replaced = jnp.where(kind < 0.8, hidden, jnp.where(kind < 0.9, drawn, original))
    rows = jnp.arange(tokens.shape[0])[:, None]
    shown = tokens.at[rows, positions].set(jnp.where(counted, replaced, original))
    return shown, positions, counted


def label_losses(
    params: dict,
    config: TransformerConfig,
    hidden: Float[Array, "B P D"],
    targets: Int[Array, "B P"],
    counted: Bool[Array, "B P"],
) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
    """Sums -log p(target) over the counted positions of each row, a chunk of logits at a time."""
    return losses_of(lambda hidden: unembed(params, config, hidden), config.vocab_size, hidden, targets, counted)


def losses_of(
    logits_of: Callable[[Array], Array],
    vocabulary: int,
    hidden: Float[Array, "B P D"],
    targets: Int[Array, "B P"],
    counted: Bool[Array, "B P"],
) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
    """`label_losses` of any output layer over V tokens."""

    def chunk(args: tuple) -> Float[Array, " b"]:
        hidden, targets, counted = args
        logits = logits_of(hidden).astype(jnp.float32)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        nll = jax.nn.logsumexp(logits, axis=-1) - chosen
        return jnp.where(counted, nll, 0.0).sum(-1)

    rows, places = targets.shape
    pieces = next(
        n
        for n in range(1, rows + 1)
        if rows % n == 0 and (n == rows or rows // n * places * vocabulary <= LOGITS_AT_ONCE)
    )
    if pieces == 1:
        nll = chunk((hidden, targets, counted))
    else:
        parts = jax.tree.map(
            lambda x: x.reshape(pieces, rows // pieces, *x.shape[1:]), (hidden, targets, counted)
        )
        nll = jax.lax.map(jax.checkpoint(chunk), parts).reshape(rows)
    return nll, counted.sum(-1)
