"""Dialogue as an objective: what each kind of model reads of a window, and which of its tokens are scored.

- "decoder" (DialoGPT, Zhang et al. 2020): turns one after another, each closed by the end token; scored are the tokens
  of the reply and its end, or all tokens.
- "pair" (Blenderbot, Roller et al. 2021) and "lstm": turns closed by the end token are read; the reply and its end are
  written after a start token, and scored.

The same reply gives the same scored tokens in every kind and whatever stands before it: a reply to nothing is one to
the end token.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from xlingjax.corpora.dialogues import Windows
from xlingjax.errors import InputError, require_least
from xlingjax.models.config import TransformerConfig
from xlingjax.models.lstm import LstmConfig, forward_lstm_pair, unembed_lstm
from xlingjax.models.pair import PairConfig, decoder_params, forward_pair
from xlingjax.models.transformer import Params
from xlingjax.precision import full_precision
from xlingjax.training.objectives import Objective, label_losses, losses_of, row_losses
from xlingjax.training.tokenizer import encode_texts

KINDS = ("decoder", "pair", "lstm")
SCORED = ("reply", "all")
Config = TransformerConfig | PairConfig | LstmConfig
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How windows become rows.

    Attributes:
        kind: one of `KINDS`.
        text: most tokens of the turns before a reply, the last ones.
        label: most tokens of a reply and its end, the first ones.
        scored: "reply", or "all" tokens of the row (decoder only).
        start: token that a reply begins with (pair and LSTM).
    """

    kind: str
    text: int = 512
    label: int = 128
    scored: str = "reply"
    start: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"kind {self.kind!r} is unknown; choose among {', '.join(KINDS)}")
        require_least(self, {"text": 1, "label": 1})
        if self.scored not in (SCORED if self.kind == "decoder" else SCORED[:1]):
            raise InputError(f"scored is {self.scored!r} for kind {self.kind!r}; choose 'reply'"
                             f"{' or all' if self.kind == 'decoder' else ', there is nothing else to score'}")


class Turns(NamedTuple):
    """Windows as tokens.

    Attributes:
        contexts: int32[t] each, every turn closed by the end token, at most `text`. replies: at most `label`.
        characters: int[n], of the reply's text that was kept.
        cut: replies whose end was cut off.
    """

    contexts: list[np.ndarray]
    replies: list[np.ndarray]
    characters: Int[np.ndarray, "n"]
    cut: int


def encode_windows(tokenizer: Any, found: Windows, text: int = 512, label: int = 128) -> Turns:
    """The windows' tokens; of a context the last are kept, of a reply the first.

    Raises:
        InputError: the tokenizer has no end token.
    """
    end = getattr(tokenizer, "eos_token_id", None)
    if end is None:
        raise InputError("the tokenizer has no end token (eos), which closes every turn; take one that has")
    known = dict.fromkeys([*(turn for context in found.contexts for turn in context), *found.replies])
    closed = {turn: np.append(ids, end).astype(np.int32)
              for turn, ids in zip(known, encode_texts(tokenizer, tuple(known)))}
    nothing = np.array([end], np.int32)
    contexts = [np.concatenate([closed[turn] for turn in context] or [nothing])[-text:] for context in found.contexts]
    replies, characters = [], []
    for reply in found.replies:
        whole = closed[reply]
        replies.append(whole[:label])
        characters.append(len(reply) if len(whole) <= label else len(tokenizer.decode(whole[:label].tolist())))
    return Turns(contexts, replies, np.array(characters), sum(len(closed[reply]) > label for reply in found.replies))


def sizes(layout: Layout) -> tuple[int, int]:
    """The two lengths of rows that programs are compiled for; a batch has the shorter one where all its rows fit.

    >>> sizes(Layout("decoder", text=96, label=32)), sizes(Layout("pair", text=96, label=32))
    ((64, 128), (48, 96))
    """
    longest = layout.text + (layout.label if layout.kind == "decoder" else 0)
    return -(-longest // 2), longest


def lengths(layout: Layout, turns: Turns) -> Int[np.ndarray, "n"]:
    """Tokens of each row as `sizes` counts them."""
    decoder = layout.kind == "decoder"
    return np.array([len(c) + decoder * len(r) for c, r in zip(turns.contexts, turns.replies)], int)


def make_rows(layout: Layout, turns: Turns, chosen: Sequence[int], rows: int, length: int) -> Batch:
    """A batch of `rows` rows of the windows `chosen`; rows that are left over have nothing to score.

    Decoder: tokens, mask, counted [B, T]. Pair and LSTM: tokens, mask [B, T] are read; targets (start token first),
    labels, counted [B, U].
    """
    tokens, mask = np.zeros((rows, length), np.int32), np.zeros((rows, length), bool)
    if layout.kind == "decoder":
        counted = np.zeros_like(mask)
        for row, i in enumerate(chosen):
            context, reply = turns.contexts[i], turns.replies[i]
            stop = len(context) + len(reply)
            tokens[row, :stop], mask[row, :stop] = np.concatenate([context, reply]), True
            counted[row, (1 if layout.scored == "all" else len(context)):stop] = True
        return {"tokens": tokens, "mask": mask, "counted": counted}
    targets, labels = (np.zeros((rows, layout.label), np.int32) for _ in range(2))
    counted = np.zeros(labels.shape, bool)
    mask[len(chosen):, 0] = True  # an encoder reads at least one token
    for row, i in enumerate(chosen):
        context, reply = turns.contexts[i], turns.replies[i]
        tokens[row, :len(context)], mask[row, :len(context)] = context, True
        targets[row, 0], targets[row, 1:len(reply)] = layout.start, reply[:-1]
        labels[row, :len(reply)], counted[row, :len(reply)] = reply, True
    return {"tokens": tokens, "mask": mask, "targets": targets, "labels": labels, "counted": counted}


def plan_epoch(
    layout: Layout, turns: Turns, rows: int, generator: np.random.Generator | None = None,
) -> list[tuple[list[int], int]]:
    """Batches (windows, length) in which every window occurs once; shuffled with a generator.

    Short rows share batches of the shorter length; what fills no batch of it joins the longer ones.
    """
    short, long = sizes(layout)
    order = np.arange(len(turns.replies)) if generator is None else generator.permutation(len(turns.replies))
    fits = lengths(layout, turns)[order] <= short
    small, large = order[fits].tolist(), order[~fits].tolist()
    spare = len(small) % rows if large else 0
    large += small[len(small) - spare:] if spare else []
    small = small[:len(small) - spare]
    out = [(part[i:i + rows], length) for part, length in ((small, short), (large, long))
           for i in range(0, len(part), rows)]
    return out if generator is None else [out[i] for i in generator.permutation(len(out))]


class Epochs:
    """Training batches: step (1, 2, ...) -> batch, epoch after epoch, each in an order of its own."""

    def __init__(self, layout: Layout, turns: Turns, rows: int, seed: int) -> None:
        self.layout, self.turns, self.rows, self.seed = layout, turns, rows, seed
        self.steps = len(plan_epoch(layout, turns, rows))  # of an epoch
        self._order = functools.lru_cache(maxsize=2)(lambda epoch: plan_epoch(
            layout, turns, rows, np.random.default_rng([seed, 83, epoch])))

    def __call__(self, step: int) -> Batch:
        epoch, place = divmod(step - 1, self.steps)
        return make_rows(self.layout, self.turns, *self._args(epoch, place))

    def _args(self, epoch: int, place: int) -> tuple[list[int], int, int]:
        chosen, length = self._order(epoch)[place]
        return chosen, self.rows, length


def reply_losses(
    params: Params, config: Config, batch: dict[str, Array],
) -> tuple[Float[Array, "B"], Int[Array, "B"]]:
    """Cross-entropy of each row's scored tokens in nats, summed, and their number."""
    if isinstance(config, TransformerConfig):
        return row_losses(dict(params), config, Objective("causal"), batch["tokens"], batch["mask"], jax.random.key(0),
                          targets=batch["counted"])
    read = (batch["tokens"], batch["mask"], batch["targets"], batch["counted"])
    if isinstance(config, PairConfig):
        hidden, _ = forward_pair(params, config, *read)
        return label_losses(decoder_params(params), config.decoder, hidden, batch["labels"], batch["counted"])
    hidden = forward_lstm_pair(params, config, *read)
    return losses_of(lambda h: unembed_lstm(params, h), config.vocab_size, hidden, batch["labels"], batch["counted"])


@dataclasses.dataclass(frozen=True)
class ReplyLoss:
    """What `training.fitting.fit` minimises: the mean over all scored tokens of a batch."""

    config: Config

    def __call__(self, params: Params, frozen: Any, batch: dict[str, Array], key: Array) -> tuple[Array, Array]:
        nats, count = reply_losses(params, self.config, batch)
        return nats.sum(), count.sum()


@functools.partial(jax.jit, static_argnames="config")
@full_precision
def _scores(params: Params, config: Config, batch: dict[str, Array]) -> tuple[Array, Array]:
    return reply_losses(params, config, batch)


class Scores(NamedTuple):
    """Of each window: nats of its scored tokens, and their number."""

    nats: Float[np.ndarray, "n"]
    tokens: Int[np.ndarray, "n"]


def score_windows(
    params: Params, config: Config, layout: Layout, turns: Turns, rows: int = 16,
    advance: Callable[[int], None] = lambda count: None,
) -> Scores:
    """Every window's loss; padding counts nowhere.

    Perplexity is exp(sum of nats / sum of tokens): what Hugging Face's mean loss over all targets of a data set gives.
    """
    nats, tokens = np.zeros(len(turns.replies)), np.zeros(len(turns.replies), int)
    for chosen, length in plan_epoch(layout, turns, rows):
        found, count = jax.device_get(_scores(params, config, make_rows(layout, turns, chosen, rows, length)))
        nats[chosen], tokens[chosen] = found[:len(chosen)], count[:len(chosen)]
        advance(len(chosen))
    return Scores(nats, tokens)


def padded_perplexity(
    params: Params, config: TransformerConfig, turns: Turns, rows: int = 2, padding: int = 0,
) -> float:
    """The perplexity that AfriWOZ's DialoGPT figures are: padding is read and scored as if it were text.

    All tokens of a row but the first are targets; rows are padded on the right to the longest of their batch, in the
    order of the windows; the exponent is the mean over batches of each batch's mean loss. Padding is easily learned, so
    this lies far below the masked figure, and it depends on the size of a batch.

    Args:
        rows: of a batch. padding: the token it is made of; id 0 in the original.
    """
    means = []
    for start in range(0, len(turns.replies), rows):
        of = range(start, min(start + rows, len(turns.replies)))
        texts = [np.concatenate([turns.contexts[i], turns.replies[i]]) for i in of]
        longest = max(map(len, texts))
        tokens = np.stack([np.pad(text, (0, longest - len(text)), constant_values=padding) for text in texts])
        # More padding behind does not change what stands before it, and keeps the number of programs small.
        room = np.zeros((rows, -(-longest // 32) * 32), np.int32)
        room[:len(tokens), :longest] = tokens
        counted = np.zeros(room.shape, bool)
        counted[:len(tokens), 1:longest] = True
        nats, count = jax.device_get(_scores(
            params, config, {"tokens": room, "mask": np.ones(room.shape, bool), "counted": counted}))
        means.append(float(nats.sum()) / int(count.sum()))
    return math.exp(math.fsum(means) / len(means))


def check_layout(config: Config, layout: Layout) -> None:
    """`InputError` where rows of this layout are longer than the model's positions."""
    if isinstance(config, TransformerConfig):
        limits = [("text and label", layout.text + layout.label, config.max_length)]
    elif isinstance(config, PairConfig):
        limits = [("text", layout.text, config.encoder.max_length), ("label", layout.label, config.decoder.max_length)]
    else:
        limits = []
    for name, wanted, most in limits:
        if most and wanted > most:
            raise InputError(f"{name} may have {wanted} tokens, but the model has {most} positions; lower them")
