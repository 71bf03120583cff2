"""Generation by models that read one text and write another: encoder-decoders and LSTMs, one loop for both.

Settings of a row, noise and stopping are those of `generating`. The decoder's keys and values are kept from token to
token; those of the encoder's output are made anew at each, which costs some time and no memory.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError
from xlingjax.models.batches import check_ids
from xlingjax.models.cache import empty_cache
from xlingjax.models.generating import NO_TOKEN, Generated, check_ngram, read_values, texts_of
from xlingjax.models.lstm import LstmConfig, read_lstm, unembed_lstm, write_lstm
from xlingjax.models.pair import PairConfig, decoder_params
from xlingjax.models.sampling import Steps, Values, next_token
from xlingjax.models.transformer import Params, extend, forward, unembed

Advance = Callable[[Any, Int[Array, "B"], Bool[Array, "B"]], tuple[Float[Array, "B V"], Any]]


def _pair(
    params: Params, config: PairConfig, tokens: Array, mask: Array, slots: int,
) -> tuple[Any, Advance]:
    memory, _ = forward(params["encoder"], config.encoder, tokens, mask)
    own = decoder_params(params)

    def advance(cache: Any, ids: Array, real: Array) -> tuple[Array, Any]:
        hidden, _, cache = extend(own, config.decoder, ids[:, None], real[:, None], cache, memory=(memory, mask))
        return unembed(own, config.decoder, hidden[:, -1]), cache

    return empty_cache(config.decoder, len(tokens), slots, memory.dtype), advance


def _lstm(
    params: Params, config: LstmConfig, tokens: Array, mask: Array, slots: int,
) -> tuple[Any, Advance]:
    memory, state = read_lstm(params, config, tokens, mask)

    def advance(state: Any, ids: Array, real: Array) -> tuple[Array, Any]:
        hidden, state = write_lstm(params, config, ids[:, None], real[:, None], memory, state)
        return unembed_lstm(params, hidden[:, -1]), state

    return state, advance


READ: dict[type, Callable[..., tuple[Any, Advance]]] = {PairConfig: _pair, LstmConfig: _lstm}


class _Loop(NamedTuple):
    step: Int[Array, ""]
    tokens: Int[Array, "B S"]  # start token and reply
    mask: Bool[Array, "B S"]
    logits: Float[Array, "B V"]
    ended: Bool[Array, "B"]
    state: Any


@functools.partial(jax.jit, static_argnames=("config", "new", "steps"))
def reply_tokens(
    params: Params, config: PairConfig | LstmConfig, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"],
    start: Int[Array, ""], seeds: Int[Array, "B"], values: Values, stop: Int[Array, "n"], *, new: int, steps: Steps,
) -> tuple[Int[Array, "B new"], Int[Array, "B"]]:
    """The program: compiled once for a model, shapes and kinds of steps. Arguments as of `generating.generate_tokens`.

    Returns: new tokens and their number.
    """
    batch = len(tokens)
    state, advance = READ[type(config)](params, config, tokens, mask, new + 1)
    first = jnp.broadcast_to(start.astype(tokens.dtype), (batch,))
    logits, state = advance(state, first, jnp.ones(batch, bool))
    blank = jnp.zeros((batch, new + 1), tokens.dtype)
    loop = _Loop(jnp.int32(0), blank.at[:, 0].set(first), jnp.zeros(blank.shape, bool).at[:, 0].set(True), logits,
                 jnp.zeros(batch, bool), state)

    def more(loop: _Loop) -> Bool[Array, ""]:
        return (loop.step < new) & ~loop.ended.all()

    def step(loop: _Loop) -> _Loop:
        drawn = next_token(loop.logits, loop.tokens, loop.mask, seeds, loop.step, values, steps)
        real = ~loop.ended
        logits, state = advance(loop.state, drawn, real)
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=loop.step + 1, axis=1)
        return _Loop(loop.step + 1, put(loop.tokens, drawn[:, None]), put(loop.mask, real[:, None]), logits,
                     loop.ended | (drawn[:, None] == stop).any(1), state)

    loop = jax.lax.while_loop(more, step, loop)
    made, out = loop.mask[:, 1:], loop.tokens[:, 1:]
    lengths = made.sum(1)
    end = jnp.take_along_axis(out, jnp.maximum(lengths - 1, 0)[:, None], axis=1)
    return jnp.where(made, out, end), lengths


def reply(
    model: Any,
    tokens: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    seeds: int | Sequence[int] | np.ndarray = 0,
    max_new_tokens: int = 64,
    temperature: ArrayLike = 0.0,
    top_k: ArrayLike = 0,
    top_p: ArrayLike = 1.0,
    repetition_penalty: ArrayLike = 1.0,
    no_repeat_ngram: int = 0,
    stop: Sequence[int] | None = None,
    start: int | None = None,
) -> Generated:
    """What an `EncoderDecoder` or an `LstmPair` answers to each row of tokens.

    Args:
        model: with `start`, the token that a reply begins with.
        tokens, mask: ids [B, T] that are answered; padding anywhere.
        start: in the place of the model's own. The rest: as of `generating.generate`. Repetition is of the reply alone.

    Returns:
        `Generated`. Greedy, it is what Hugging Face's `generate` returns where no token is forced.

    Raises:
        InputError: rows without tokens, settings that do not fit.

    >>> from xlingjax.models.lstm import LstmConfig, LstmPair, init_lstm_pair
    >>> config = LstmConfig(vocab_size=11, width=8)
    >>> model = LstmPair(init_lstm_pair(config, jax.random.key(0)), config, start=0)
    >>> reply(model, [[1, 2, 3]], max_new_tokens=4).tokens.shape
    (1, 4)
    """
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens!r}; give a whole number of at least 1")
    read, real = check_read(model.config, tokens, mask)
    limit = model.config.decoder.max_length if isinstance(model.config, PairConfig) else 0
    if limit and max_new_tokens + 1 > limit:
        raise InputError(f"max_new_tokens is {max_new_tokens}, but the decoder has {limit} positions, one of them for "
                         "the start token; lower it")
    seeds = np.atleast_1d(np.asarray(seeds))
    if not np.issubdtype(seeds.dtype, np.integer) or seeds.ndim != 1 or (seeds < 0).any():
        raise InputError("seeds must be whole numbers, at least 0, one a row")
    if len(seeds) not in (1, len(read)):
        raise InputError(f"{len(seeds)} seeds for {len(read)} rows; give one, or one a row")
    values = read_values(len(read), temperature, top_k, top_p, repetition_penalty)
    steps = Steps(bool((values.temperature > 0).any()), bool((values.top_k > 0).any() or (values.top_p < 1).any()),
                  bool((values.penalty != 1).any()), check_ngram(no_repeat_ngram))
    if stop is None:
        end = getattr(model.tokenizer, "eos_token_id", None)
        stop = () if end is None else (end,)
    out, lengths = jax.device_get(reply_tokens(
        model.params, model.config, read, real, np.int32(model.start if start is None else start),
        np.broadcast_to(seeds, len(read)).astype(np.uint32), values, np.asarray(list(stop) or [NO_TOKEN], np.int32),
        new=max_new_tokens, steps=steps))
    return Generated(out, lengths, texts_of(model, out, lengths), {}, {})


def check_read(
    config: PairConfig | LstmConfig, tokens: ArrayLike, mask: ArrayLike | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask [B, T] of rows that the model can answer, none of them empty."""
    limited = config.encoder if isinstance(config, PairConfig) else config
    ids, real = check_ids(limited.vocab_size, getattr(limited, "max_length", 0), tokens, mask)
    if not real.any(1).all():
        raise InputError(f"row {int(np.argmin(real.any(1)))} has no token to answer; give one at least")
    return ids, real
