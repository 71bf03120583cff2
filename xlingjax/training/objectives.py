"""Causal and masked language modelling: the loss of each row of a batch."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.taps import Edits
from xlingjax.models.transformer import forward, unembed

OBJECTIVES = ("causal", "masked")
UNITS = ("token", "word", "span")
# Floats, 128 MiB; more logits are computed in chunks of rows, and again in the backward pass.
LOGITS_AT_ONCE = 1 << 25


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is predicted.

    Attributes:
        kind: "causal", every next token; "masked", a share of hidden tokens.
        mask_id: id of `<mask>` (masked only).
        ordinary: first id that is no special token; special tokens are never hidden and never put
            in a hidden token's place.
        share: of the ordinary tokens of each row that are hidden.
        unit: what is hidden at once: a "token", a whole "word", or a "span" of geometric length (SpanBERT: Joshi et
            al. 2020, without its longest length).
        span: mean tokens of a span.
    """

    kind: str = "causal"
    mask_id: int = -1
    ordinary: int = 0
    share: float = 0.15
    unit: str = "token"
    span: float = 3.8

    def __post_init__(self) -> None:
        if self.kind not in OBJECTIVES:
            raise InputError(
                f"unknown objective {self.kind!r}; it is one of {', '.join(OBJECTIVES)}"
            )
        if self.unit not in UNITS:
            raise InputError(f"unknown unit {self.unit!r} to hide; it is one of {', '.join(UNITS)}")
        if not 0 < self.share < 1 or not self.span >= 1:
            raise InputError(f"share {self.share} must lie between 0 and 1, and span {self.span} be 1 or more")


def row_losses(
    params: dict,
    config: TransformerConfig,
    objective: Objective,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    key: Key[Array, ""],
    edits: Edits | None = None,
    targets: Bool[Array, "B T"] | None = None,
    begins: Bool[Array, " V"] | None = None,
) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
    """Summed cross-entropy in nats of each row's targets, and how many targets it has.

    Causal: the target of position t is the token at t + 1, where both are real (and in `targets`). Masked: the targets
    are the tokens that `hide_tokens` hid (`begins` as there). The loss of a batch is sum / sum.
    """
    if objective.kind == "causal":
        hidden, _ = forward(params, config, tokens, mask, edits=edits)
        counted = mask if targets is None else mask & targets
        return label_losses(
            params, config, hidden[:, :-1], tokens[:, 1:], counted[:, 1:] & mask[:, :-1]
        )
    shown, positions, counted = hide_tokens(key, tokens, mask, objective, config.vocab_size, begins)
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
    begins: Bool[Array, " V"] | None = None,
) -> tuple[Int[Array, "B T"], Int[Array, "B P"], Bool[Array, "B P"]]:
    """Hides `share` of each row's ordinary tokens (BERT's 80/10/10).

    Of the chosen tokens 80 % become `<mask>`, 10 % a random ordinary token, 10 % stay. The number
    chosen is share * ordinary tokens, rounded to the nearest, so that the head runs at P positions
    only. Words and spans are hidden whole, one after the other while they still fit into that number; the first one
    that does not is cut where nothing else is hidden, so that every row has a target.

    Args:
        key: what is hidden, and by what.
        begins: ids that begin a word, where `objective.unit` is "word" (`word_begins`).

    Returns:
        The tokens to show, the chosen positions, and which of the P are chosen (short rows have
        fewer).
    """
    tokens = jnp.asarray(tokens)
    key_place, key_kind, key_token = jax.random.split(key, 3)
    ordinary = mask & (tokens >= objective.ordinary)
    most = int(objective.share * tokens.shape[1] + 0.5)
    drawn = jax.random.uniform(key_place, tokens.shape)
    wanted = (objective.share * ordinary.sum(1).astype(jnp.float32) + 0.5).astype(jnp.int32)
    if objective.unit == "token":
        positions = jnp.argsort(jnp.where(ordinary, drawn, 2.0), axis=1)[:, :most]
        counted = jnp.arange(most)[None, :] < wanted[:, None]
    else:
        group = _groups(key_kind, tokens, ordinary, objective, begins)
        drawn = jnp.take_along_axis(drawn, group, axis=1)  # one draw a group
        order = jnp.argsort(jnp.where(ordinary, drawn, 2.0), axis=1)
        group = jnp.take_along_axis(jnp.where(ordinary, group, -1), order, axis=1)
        # Whether the next place is of the same group, and so where the last place of each group is.
        ends = jnp.concatenate([group[:, 1:] != group[:, :-1], jnp.ones((len(group), 1), bool)], axis=1)
        places = jnp.arange(tokens.shape[1])[None, :]
        last = jax.lax.cummin(jnp.where(ends, places, tokens.shape[1]), axis=1, reverse=True)
        whole = (last < wanted[:, None]) | (group == group[:, :1])
        counted = (whole & (places < wanted[:, None]))[:, :most]
        positions = order[:, :most]
    original = jnp.take_along_axis(tokens, positions, axis=1)
    kind = jax.random.uniform(key_kind, positions.shape)
    random = jax.random.randint(
        key_token, positions.shape, objective.ordinary, vocabulary, tokens.dtype
    )
    hidden = jnp.full_like(original, objective.mask_id)
    replaced = jnp.where(kind < 0.8, hidden, jnp.where(kind < 0.9, random, original))
    rows = jnp.arange(tokens.shape[0])[:, None]
    shown = tokens.at[rows, positions].set(jnp.where(counted, replaced, original))
    return shown, positions, counted


def _groups(
    key: Key[Array, ""], tokens: Int[Array, "B T"], ordinary: Bool[Array, "B T"], objective: Objective,
    begins: Bool[Array, " V"] | None,
) -> Int[Array, "B T"]:
    """The word or span of each token, as numbers that rise along the row; special tokens part them."""
    if objective.unit == "word":
        if begins is None:
            raise InputError("whole words are to be hidden, but nothing says which tokens begin one; give begins=")
        starts = begins[tokens]
    else:
        starts = jax.random.uniform(jax.random.fold_in(key, 1), tokens.shape) < 1 / objective.span
    after_special = jnp.concatenate([jnp.zeros((len(tokens), 1), bool), ~ordinary[:, :-1]], axis=1)
    starts = (starts | ~ordinary | after_special).at[:, 0].set(False)
    return jnp.cumsum(starts, axis=1, dtype=jnp.int32)


def label_losses(
    params: dict,
    config: TransformerConfig,
    hidden: Float[Array, "B P D"],
    targets: Shaped[Array, "B P"],
    counted: Bool[Array, "B P"],
    label: Callable[[Array, Array], Array] | None = None,
) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
    """Sums -log p(target) over the counted positions of each row, a chunk of logits at a time.

    Args:
        label: what makes targets of logits `[b, P, V]` and of what stands in `targets`; by default they are ids.
    """
    return losses_of(lambda hidden: unembed(params, config, hidden), config.vocab_size, hidden, targets, counted, label)


def losses_of(
    logits_of: Callable[[Array], Array],
    vocabulary: int,
    hidden: Float[Array, "B P D"],
    targets: Shaped[Array, "B P"],
    counted: Bool[Array, "B P"],
    label: Callable[[Array, Array], Array] | None = None,
) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
    """`label_losses` of any output layer over V tokens."""

    def chunk(args: tuple) -> Float[Array, " b"]:
        hidden, targets, counted = args
        logits = logits_of(hidden).astype(jnp.float32)
        if label is not None:
            targets = label(jax.lax.stop_gradient(logits), targets)
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
