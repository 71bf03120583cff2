"""An LSTM that reads one text and writes another, with attention: the baseline of dialogue models.

The encoder's last state starts the decoder. Attention is the "general" score of Luong, Pham and Manning (2015, arXiv
1508.04025, equations 5 to 8), without input feeding, so that a whole reply is read in one scan. One embedding serves
both sides and the output.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from xlingjax.errors import InputError
from xlingjax.precision import full_precision

Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class LstmConfig:
    """The shape of an LSTM encoder-decoder.

    Args:
        vocab_size: V. width: D, units of embeddings, states and output. layers: L, of each half.
    """

    vocab_size: int
    width: int
    layers: int = 1

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; give a whole number of at least 1")


class LstmState(NamedTuple):
    """What the layers of one half remember."""

    hidden: Float[Array, "L B D"]
    cell: Float[Array, "L B D"]


class Memory(NamedTuple):
    """What was read, for the decoder's attention."""

    outputs: Float[Array, "B T D"]  # of the encoder's last layer
    keys: Float[Array, "B T D"]  # the same by the matrix of the score
    mask: Bool[Array, "B T"]


@functools.partial(jax.jit, static_argnums=(0, 2))
def init_lstm_pair(config: LstmConfig, key: PRNGKeyArray, dtype: str = "float32") -> dict[str, Any]:
    """Random parameters, uniform within 1 / sqrt(D) as torch has them, biases 0 but those of forgetting, which are 1.

    Gates stand in the order input, forget, new, output.

    >>> params = init_lstm_pair(LstmConfig(vocab_size=11, width=4, layers=2), jax.random.key(0))
    >>> params["encoder"]["read"]["kernel"].shape
    (2, 4, 16)
    """
    width = config.width
    keys = iter(jax.random.split(key, 8))
    draw = lambda *shape: jax.random.uniform(next(keys), shape, jnp.dtype(dtype), -width**-0.5, width**-0.5)

    def half() -> dict[str, Any]:
        remember = jnp.zeros((config.layers, 4 * width), dtype).at[:, width : 2 * width].set(1)
        return {"read": {"kernel": draw(config.layers, width, 4 * width), "bias": remember},
                "state": {"kernel": draw(config.layers, width, 4 * width)}}

    return {"embed": {"tokens": {"embedding": draw(config.vocab_size, width)}}, "encoder": half(), "decoder": half(),
            "attention": {"score": {"kernel": draw(width, width)},
                          "mix": {"kernel": draw(2 * width, width), "bias": jnp.zeros(width, dtype)}}}


def run_layers(
    params: Params, x: Float[Array, "B T D"], mask: Bool[Array, "B T"], state: LstmState,
) -> tuple[Float[Array, "B T D"], LstmState]:
    """The layers of one half over T tokens (Hochreiter and Schmidhuber 1997, with forget gates).

    A token under a False mask leaves the state as it is, so that padding on either side changes nothing.
    """

    def layer(x: Array, given: tuple) -> tuple[Array, LstmState]:
        own, start = given
        gates = x @ own["read"]["kernel"] + own["read"]["bias"]

        def step(state: LstmState, at: tuple) -> tuple[LstmState, Array]:
            read, real = at
            i, f, g, o = jnp.split(read + state.hidden @ own["state"]["kernel"], 4, axis=-1)
            cell = jax.nn.sigmoid(f) * state.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            kept = LstmState(jnp.where(real, hidden, state.hidden), jnp.where(real, cell, state.cell))
            return kept, kept.hidden

        end, out = jax.lax.scan(step, start, (jnp.moveaxis(gates, 1, 0), mask.T[..., None]))
        return jnp.moveaxis(out, 0, 1), end

    return jax.lax.scan(layer, x, (params, state))


def _embed(params: Params, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
    return jnp.where(mask[..., None], params["embed"]["tokens"]["embedding"][jnp.where(mask, tokens, 0)], 0)


@full_precision
def read_lstm(
    params: Params, config: LstmConfig, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"],
) -> tuple[Memory, LstmState]:
    """The text that is answered: what attention sees of it, and the state that the decoder starts from."""
    x = _embed(params, tokens, mask)
    blank = jnp.zeros((config.layers, len(tokens), config.width), x.dtype)
    outputs, state = run_layers(params["encoder"], x, mask, LstmState(blank, blank))
    return Memory(outputs, outputs @ params["attention"]["score"]["kernel"].T, mask), state


@full_precision
def write_lstm(
    params: Params, targets: Int[Array, "B U"], mask: Bool[Array, "B U"], memory: Memory, state: LstmState,
) -> tuple[Float[Array, "B U D"], LstmState]:
    """The decoder over the tokens written so far: what the output reads, and its state after them."""
    queries, state = run_layers(params["decoder"], _embed(params, targets, mask), mask, state)
    scores = jnp.einsum("bud,btd->but", queries, memory.keys)
    scores = jnp.where(memory.mask[:, None], scores, jnp.finfo(scores.dtype).min)
    seen = jnp.einsum("but,btd->bud", jax.nn.softmax(scores, axis=-1), memory.outputs)
    mix = params["attention"]["mix"]
    return jnp.tanh(jnp.concatenate([seen, queries], axis=-1) @ mix["kernel"] + mix["bias"]), state


def forward_lstm_pair(
    params: Params, config: LstmConfig, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"],
    targets: Int[Array, "B U"], target_mask: Bool[Array, "B U"],
) -> Float[Array, "B U D"]:
    """From the tokens of both sides to what the output reads; for use inside `jit` and `grad`.

    Args:
        tokens, mask: what is answered. targets, target_mask: what is written so far, its start token first.

    >>> config = LstmConfig(vocab_size=11, width=8)
    >>> params = init_lstm_pair(config, jax.random.key(0))
    >>> ones, real = jnp.ones((3, 5), int), jnp.ones((3, 5), bool)
    >>> hidden = forward_lstm_pair(params, config, ones, real, ones[:, :2], real[:, :2])
    >>> unembed_lstm(params, hidden).shape
    (3, 2, 11)
    """
    memory, state = read_lstm(params, config, tokens, mask)
    return write_lstm(params, targets, target_mask, memory, state)[0]


@full_precision
def unembed_lstm(params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Logits over the vocabulary: the output's matrix is the embedding."""
    return hidden @ params["embed"]["tokens"]["embedding"].T


@dataclasses.dataclass(frozen=True)
class LstmPair:
    """Parameters, config and tokenizer.

    Args:
        params, config: as of `init_lstm_pair`. start: token that a reply begins with.
        tokenizer, name: as of `Model`.
    """

    params: Params = dataclasses.field(repr=False)
    config: LstmConfig
    start: int
    tokenizer: Any = dataclasses.field(default=None, repr=False)
    name: str = ""
