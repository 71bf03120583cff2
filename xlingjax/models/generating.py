"""Generation: one compiled program that reads the prompts and draws tokens, each row with its seed and its edit."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from xlingjax.errors import InputError
from xlingjax.models import taps
from xlingjax.models.batches import check_batch
from xlingjax.models.cache import Cache, empty_cache
from xlingjax.models.config import TransformerConfig
from xlingjax.models.sampling import Steps, Values, next_token
from xlingjax.models.transformer import Params, extend, unembed

NO_TOKEN = -1  # fills rows of stop tokens
FIELDS = ("scale", "add", "mask", "value", "where")  # of an Edit


@dataclasses.dataclass(frozen=True)
class Generated:
    """What was generated.

    Attributes:
        tokens: int32, the new tokens; after a stop token the row is padded with it.
        lengths: int, new tokens of each row, its stop token among them.
        texts: of each row, without special tokens; None without a tokenizer.
        captured: site -> [L, B, new, F] at the new tokens; NaN after the end of a row.
        edited: site -> positions of each row that its edit reached, prompt and new tokens.
    """

    tokens: Int[np.ndarray, "B new"]
    lengths: Int[np.ndarray, "B"]
    texts: tuple[str, ...] | None
    captured: dict[str, np.ndarray]
    edited: dict[str, Int[np.ndarray, "B"]]


def positions(which: str, prompt: int, new: int) -> Bool[np.ndarray, "1 T"]:
    """The slots of an edit during generation, for `Edit.where`.

    Args:
        which: "every" position, the "prompt", the "generated" tokens, or from the "last" prompt token on.
        prompt: T, slots of the prompts. new: of the generated tokens.

    >>> positions("generated", 2, 3).tolist()
    [[False, False, True, True, True]]
    """
    slots = np.arange(prompt + new)
    chosen = {"every": slots >= 0, "prompt": slots < prompt, "generated": slots >= prompt, "last": slots >= prompt - 1}
    if which not in chosen:
        raise InputError(f"positions {which!r} are unknown; choose among {', '.join(chosen)}")
    return chosen[which][None]


def left_padded(tokens: np.ndarray, mask: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with their real tokens at the end of `length` slots, in order.

    >>> left_padded(np.array([[7, 8, 0]]), np.array([[True, True, False]]), 4)[0].tolist()
    [[0, 0, 7, 8]]
    """
    out, real = np.zeros((len(tokens), length), np.int32), np.zeros((len(tokens), length), bool)
    for row, (ids, own) in enumerate(zip(tokens, mask)):
        count = int(own.sum())
        out[row, length - count:], real[row, length - count:] = ids[own], True
    return out, real


class State(NamedTuple):
    """Of the loop over new tokens."""

    step: Int[Array, ""]
    tokens: Int[Array, "B S"]  # prompt and new
    mask: Bool[Array, "B S"]
    logits: Float[Array, "B V"]
    ended: Bool[Array, "B"]
    cache: Cache
    captured: dict[str, Array]  # site -> [L, B, new, F]
    edited: dict[str, Array]


@functools.partial(jax.jit, static_argnames=("config", "new", "steps", "capture"))
def generate_tokens(
    params: Params,
    config: TransformerConfig,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    edits: dict[str, taps.Edit | taps.Splice],
    seeds: Int[Array, "B"],
    values: Values,
    stop: Int[Array, "n"],
    *,
    new: int,
    steps: Steps,
    capture: tuple[str, ...] = (),
) -> tuple[Int[Array, "B new"], Int[Array, "B"], dict[str, Array], dict[str, Array]]:
    """The program: compiled once for a model, shapes, edit fields, and kinds of steps.

    Args:
        tokens, mask: prompts, their real tokens at the end (`left_padded`).
        edits: site -> `Edit` or `Splice`; no field has a token axis but `where` [B|1, T + new].
        stop: tokens that end a row; `NO_TOKEN` ends none.
        new: tokens to generate at most. capture: sites held at the new tokens.

    Returns: new tokens, their number, captured, edited; see `Generated`.
    """
    batch, prompt = tokens.shape
    dtype = params["embed"]["tokens"]["embedding"].dtype
    where = {site: jnp.broadcast_to(True if edit.where is None else edit.where, (batch, prompt + new))
             for site, edit in edits.items()}

    def at(
        start: Int[Array, ""] | int, length: int, real: Array,
    ) -> tuple[dict[str, taps.Edit | taps.Splice], dict[str, Array]]:
        """The edits of some slots, and how many real tokens of each row they reach."""
        parts = {site: jax.lax.dynamic_slice_in_dim(slots, start, length, axis=1) for site, slots in where.items()}
        return ({site: dataclasses.replace(edit, where=parts[site]) for site, edit in edits.items()},
                {site: (part & real).sum(1) for site, part in parts.items()})

    first, edited = at(0, prompt, mask)
    room = empty_cache(config, batch, prompt + new, dtype)
    hidden, _, cache = extend(params, config, tokens, mask, room, edits=first)
    shapes = taps.site_shapes(config)
    blank = jnp.zeros((batch, new), tokens.dtype)
    state = State(
        jnp.int32(0), jnp.concatenate([tokens, blank], 1), jnp.concatenate([mask, blank.astype(bool)], 1),
        unembed(params, config, hidden[:, -1]), jnp.zeros(batch, bool), cache,
        {site: jnp.full((shapes[site][0], batch, new, shapes[site][1]), jnp.nan, dtype) for site in capture}, edited)

    def more(state: State) -> Bool[Array, ""]:
        return (state.step < new) & ~state.ended.all()

    def step(state: State) -> State:
        drawn = next_token(state.logits, state.tokens, state.mask, seeds, state.step, values, steps)
        real = ~state.ended[:, None]  # what an ended row still draws is masked, and padded at the end
        slot = prompt + state.step
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot, axis=1)
        now, reached = at(slot, 1, real)
        hidden, captured, cache = extend(
            params, config, drawn[:, None], real, state.cache, capture=capture, edits=now)
        held = {site: jax.lax.dynamic_update_slice_in_dim(
            state.captured[site], jnp.where(real[..., None], captured[site], jnp.nan).astype(dtype), state.step, axis=2)
            for site in capture}
        return State(
            state.step + 1, put(state.tokens, drawn[:, None]), put(state.mask, real),
            unembed(params, config, hidden[:, -1]), state.ended | (drawn[:, None] == stop).any(1), cache, held,
            {site: state.edited[site] + reached[site] for site in reached})

    state = jax.lax.while_loop(more, step, state)
    made = state.mask[:, prompt:]
    out, lengths = state.tokens[:, prompt:], made.sum(1)
    end = jnp.take_along_axis(out, jnp.maximum(lengths - 1, 0)[:, None], axis=1)
    return jnp.where(made, out, end), lengths, state.captured, state.edited


def generate(
    model: Any,
    prompts: Sequence[str] | ArrayLike | None = None,
    mask: ArrayLike | None = None,
    edits: taps.Edits | None = None,
    *,
    seeds: int | Sequence[int] | np.ndarray = 0,
    max_new_tokens: int = 64,
    temperature: ArrayLike = 0.0,
    top_k: ArrayLike = 0,
    top_p: ArrayLike = 1.0,
    repetition_penalty: ArrayLike = 1.0,
    no_repeat_ngram: int = 0,
    stop: Sequence[int] | None = None,
    capture: Sequence[str] = (),
) -> Generated:
    """Text that follows prompts, one row for each prompt and seed.

    Args:
        model: a decoder with a head.
        prompts: texts, or token ids [B, T], or None: what the tokenizer puts before an empty text, else its BOS.
            A single prompt serves all seeds, edits and settings.
        mask: bool [B, T], real tokens of prompts given as ids; all by default.
        edits: site -> `Edit` or `Splice`. A row axis gives each row its own; no token axis, but `where` [B|1, T + new]
            says which positions are reached (`positions`). The last prompt token's slot is T - 1 in every row.
        seeds: of each row's noise; a row's text depends on its own seed and not on the other rows.
        max_new_tokens: at most so many.
        temperature: 0 = the likeliest token; 1 = as the model has it. One number, or one a row.
        top_k, top_p: filters before drawing; 0 and 1 = none. repetition_penalty: 1 = none.
        no_repeat_ngram: no n-gram of this size twice, the prompt's among them; 0 = any may.
        stop: token ids that end a row; the tokenizer's EOS by default, none for ().
        capture: sites to be held at the new tokens, every layer.

    Returns:
        `Generated`. Greedy, it is what Hugging Face's `generate` returns.

    Raises:
        InputError: an encoder, a prompt without tokens or too long for the model, settings that do not fit.

    >>> from xlingjax.models import Model, TransformerConfig, init_params
    >>> config = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32)
    >>> model = Model(init_params(config, jax.random.key(0)), config)
    >>> out = generate(model, [[1, 2, 3]], seeds=[0, 1], temperature=1.0, max_new_tokens=4)
    >>> out.tokens.shape, out.lengths.tolist()
    ((2, 4), [4, 4])
    """
    config = model.config
    if not config.head or not config.causal:
        raise InputError(f"model {model.name!r} is no decoder with a head, so it generates nothing")
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens!r}; give a whole number of at least 1")
    tokens, real = _prompts(model, prompts, mask)
    longest = int(real.sum(1).max())
    if config.max_length and longest + max_new_tokens > config.max_length:
        raise InputError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's {config.max_length} "
            "positions; shorten the prompt or lower max_new_tokens")
    seeds = np.atleast_1d(np.asarray(seeds))
    if not np.issubdtype(seeds.dtype, np.integer) or seeds.ndim != 1 or (seeds < 0).any():
        raise InputError("seeds must be whole numbers, at least 0, one a row")
    checked = taps.edit_arrays(config, edits or {})
    watched = [site for site, edit in checked.items() if isinstance(edit, taps.Watch)]
    if watched:
        raise InputError(f"the edit of site {watched[0]!r} watches gradients, and generation has none; leave it out")
    rows = _rows(len(tokens), seeds, checked, temperature, top_k, top_p, repetition_penalty)
    tokens, real, seeds = (np.broadcast_to(x, (rows, *x.shape[1:])) for x in (tokens, real, seeds))
    _check_edits(checked, rows, tokens.shape[1] + max_new_tokens)
    values = read_values(rows, temperature, top_k, top_p, repetition_penalty)
    taps.check_sites(config, capture)
    if "attn.pattern" in capture:
        raise InputError("site 'attn.pattern' cannot be captured while generating; capture it with a full forward pass")
    steps = Steps(bool((values.temperature > 0).any()), bool((values.top_k > 0).any() or (values.top_p < 1).any()),
                  bool((values.penalty != 1).any()), check_ngram(no_repeat_ngram))
    if stop is None:
        end = getattr(model.tokenizer, "eos_token_id", None)
        stop = () if end is None else (end,)
    ids = np.asarray(list(stop) or [NO_TOKEN], np.int32)
    made = generate_tokens(
        model.params, config, tokens, real, checked, seeds.astype(np.uint32), values, ids, new=max_new_tokens,
        steps=steps, capture=tuple(capture))
    out, lengths, captured, edited = jax.device_get(made)
    return Generated(out, lengths, texts_of(model, out, lengths), captured, edited)


def _prompts(model: Any, prompts: Any, mask: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Left-padded tokens and mask, at least one real token in every row."""
    if prompts is None:
        tokens, real = np.array([beginning(model)]), None
    elif isinstance(prompts, str) or (isinstance(prompts, Sequence) and prompts and isinstance(prompts[0], str)):
        if mask is not None:
            raise InputError("mask is given with texts, which have their own; leave it out")
        tokens, real = model.encode([prompts] if isinstance(prompts, str) else prompts)
    else:
        tokens, real = np.asarray(prompts), mask
    tokens, real = check_batch(model.config, tokens, real)
    counts = real.sum(1)
    if not counts.all():
        raise InputError(f"prompt {int(np.argmin(counts))} has no token; give one at least, or None for the beginning")
    return left_padded(tokens, real, int(counts.max()))


def beginning(model: Any) -> list[int]:
    """What stands before a text: what the tokenizer puts before an empty one, else its BOS."""
    if model.tokenizer is None:
        raise InputError(f"model {model.name!r} has no tokenizer; give prompts as token ids")
    before = list(model.tokenizer("")["input_ids"])
    end = getattr(model.tokenizer, "eos_token_id", None)
    if len(before) > 1 and before[-1] == end:  # an encoder's tokenizer also closes the text
        before = before[:-1]
    bos = getattr(model.tokenizer, "bos_token_id", None)
    if not before and bos is None:
        raise InputError(f"the tokenizer of {model.name!r} has no BOS; give prompts")
    return before or [bos]


def _rows(prompts: int, seeds: np.ndarray, edits: taps.Edits, *settings: ArrayLike) -> int:
    """B, which everything that is not single must agree on."""
    sizes = {"prompts": prompts, "seeds": len(seeds)}
    for name, value in zip(("temperature", "top_k", "top_p", "repetition_penalty"), settings):
        sizes[name] = int(np.size(value))
    for site, edit in edits.items():
        if isinstance(edit, taps.Splice):
            sizes |= {f"{jax.tree_util.keystr(path)} of the rows of the splice of {site!r}": leaf.shape[0]
                      for path, leaf in jax.tree_util.tree_leaves_with_path(edit.rows)}
        for field in FIELDS if isinstance(edit, taps.Edit) else ("where",):
            array = getattr(edit, field)
            if array is not None and array.ndim > 1:
                sizes[f"{field} of the edit of {site!r}"] = array.shape[0 if field == "where" else 1]
    several = {name: size for name, size in sizes.items() if size != 1}
    if len(set(several.values())) > 1:
        raise InputError("rows do not agree: " + ", ".join(f"{size} {name}" for name, size in several.items())
                         + "; give one or the same number of each")
    return max(sizes.values())


def _check_edits(edits: taps.Edits, rows: int, slots: int) -> None:
    for site, edit in edits.items():
        for field in FIELDS[:-1] if isinstance(edit, taps.Edit) else ():
            array = getattr(edit, field)
            if array is not None and array.ndim == 4 and array.shape[2] != 1:
                raise InputError(f"{field} of the edit of site {site!r} has {array.shape[2]} tokens; while generating "
                                 "an edit is the same at every token it reaches, give 1")
        where = getattr(edit, "where", None)
        if where is not None and where.shape not in ((rows, slots), (1, slots)):
            raise InputError(f"where of the edit of site {site!r} is of shape {where.shape}; give bool of "
                             f"[{rows} or 1, {slots}], the slots of prompt and new tokens")


def read_values(rows: int, temperature: ArrayLike, top_k: ArrayLike, top_p: ArrayLike, penalty: ArrayLike) -> Values:
    """The settings of sampling, one a row; `InputError` names one that is out of range."""
    large = float(np.finfo(np.float32).max)

    def each(name: str, given: ArrayLike, low: float, high: float, above: bool = False, whole: bool = False) -> Any:
        array = np.asarray(given)
        if not np.issubdtype(array.dtype, np.integer if whole else np.number):
            raise InputError(f"{name} is {given!r}; give numbers{' that are whole' if whole else ''}")
        bad = array[~((array > low) | (array == low) & (not above)) | ~(array <= high)]
        if bad.size:
            raise InputError(f"{name} is {bad.flat[0]:g}; give a number {'above' if above else 'of at least'} {low:g}"
                             f"{'' if high > 1 else f' and at most {high:g}'}")
        return np.broadcast_to(array.astype(np.int32 if whole else np.float32), rows)

    return Values(
        each("temperature", temperature, 0, large), each("top_k", top_k, 0, 2**31 - 1, whole=True),
        each("top_p", top_p, 0, 1, above=True), each("repetition_penalty", penalty, 0, large, above=True))


def check_ngram(size: int) -> int:
    """The size of n-grams that may not repeat; `InputError` where it is none."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InputError(f"no_repeat_ngram is {size!r}; give a whole number of at least 0")
    return size


def texts_of(model: Any, tokens: np.ndarray, lengths: np.ndarray) -> tuple[str, ...] | None:
    """The texts of rows of tokens, without special tokens; None without a tokenizer."""
    if model.tokenizer is None:
        return None
    return tuple(model.tokenizer.decode(row[:length].tolist(), skip_special_tokens=True)
                 for row, length in zip(tokens, lengths))
