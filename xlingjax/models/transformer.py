"""The one transformer: every decoder and encoder family is this code with another config.

Parameters are a nested dict of arrays. Those of the blocks are stacked on their first axis and run
under `jax.lax.scan`, so that one block is compiled and each capture is one `[L, ...]` array.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from xlingjax.errors import InputError
from xlingjax.models.attention import INITIAL, Attention, Context, CrossAttention, read_context
from xlingjax.models.cache import Cache, Past
from xlingjax.models.config import TransformerConfig
from xlingjax.models.linear import Linear, fresh, product_of_rows, structure
from xlingjax.models.norm import Norm
from xlingjax.models.positions import sinusoids
from xlingjax.models.taps import (
    Capture,
    Edits,
    Taps,
    read_capture,
    read_edits,
    split_layers,
)
from xlingjax.precision import full_precision

Params = Mapping[str, Any]


def activate(name: str, x: Array) -> Array:
    """The MLP's nonlinearity; BLOOM's GELU has a constant of its own, cut to eight digits."""
    match name:
        case "gelu":
            return jax.nn.gelu(x, approximate=False)
        case "gelu_tanh":
            return jax.nn.gelu(x, approximate=True)
        case "gelu_bloom":
            # x/2 (1 + tanh u) = x sigmoid(2u), and XLA's sigmoid is faster than its tanh on CPUs.
            return x * jax.nn.sigmoid(2 * 0.79788456 * x * (1 + 0.044715 * x * x))
        case "relu":
            return jax.nn.relu(x)
        case "silu":
            return jax.nn.silu(x)
    raise ValueError(name)


def look_up(table: nnx.Embed, rows: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Rows of a table in its own dtype; NaN, so that it is seen, for a row that it lacks."""
    return table.embedding[...].at[rows].get(mode="fill", fill_value=jnp.nan)


class Embed(nnx.Module):
    """Tokens to the residual stream."""

    def __init__(self, config: TransformerConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        def table(rows: int) -> nnx.Embed:
            return nnx.Embed(
                rows, config.width, embedding_init=INITIAL, param_dtype=dtype, rngs=rngs
            )

        self.config = config
        self.tokens = table(config.vocab_size)
        if config.positions == "learned":
            self.positions = table(config.position_offset + config.max_length)
        if config.token_types:
            self.types = table(config.token_types)
        if config.embed_norm:
            self.norm = Norm(config, dtype, rngs)

    def __call__(
        self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Zero at padding, whatever ids and embeddings stand there, also for gradients."""
        real = mask[..., None]
        # Zeroed before anything else reads it: 0 * NaN would come back in the norm's gradient.
        x = jnp.where(real, look_up(self.tokens, jnp.where(mask, tokens, 0)), 0)
        if self.config.embed_scale != 1.0:
            x = x * self.config.embed_scale
        if self.config.embed_norm and self.config.norm_tokens:
            x = self.norm(x)
        rows = positions + self.config.position_offset
        placed = real & (positions > 0)[..., None] if self.config.bare_first else real
        if self.config.positions == "learned":
            x = x + jnp.where(placed, look_up(self.positions, rows), 0)
        if self.config.positions == "sinusoidal":
            x = x + sinusoids(rows, self.config.width, x.dtype).astype(x.dtype)
        if self.config.token_types:
            x = x + jnp.where(placed, self.types.embedding[...][0], 0)
        if self.config.embed_norm and not self.config.norm_tokens:
            x = self.norm(x)
        return jnp.where(real, x, 0)


class Mlp(nnx.Module):
    """The feed-forward sublayer without its norms."""

    def __init__(self, config: TransformerConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        linear = functools.partial(
            Linear, use_bias=config.mlp_bias, kernel_init=INITIAL, param_dtype=dtype, rngs=rngs
        )
        self.config = config
        if config.gated:
            self.gate = linear(config.width, config.mlp_width)
        self.up = linear(config.width, config.mlp_width)
        self.down = linear(config.mlp_width, config.width)

    def __call__(self, x: Float[Array, "B T D"], tap: Taps) -> Float[Array, "B T D"]:
        if self.config.gated:
            gate = tap("mlp.gate", self.gate(x))
            active = activate(self.config.activation, gate) * tap("mlp.up", self.up(x))
        else:
            active = activate(self.config.activation, tap("mlp.up", self.up(x)))
        return tap("mlp.down", self.down(tap("mlp.act", active)))


class Adapter(nnx.Module):
    """A bottleneck around which its input is carried, at first without effect (Houlsby et al. 2019, figure 2)."""

    def __init__(self, config: TransformerConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        linear = functools.partial(Linear, param_dtype=dtype, rngs=rngs)
        self.down = linear(config.width, config.adapter_width, kernel_init=INITIAL)
        self.up = linear(config.adapter_width, config.width, kernel_init=nnx.initializers.zeros)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return x + self.up(activate("gelu", self.down(x)))


class Block(nnx.Module):
    """Attention, then MLP, or both at once, each added to the residual stream."""

    def __init__(self, config: TransformerConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        self.config = config
        self.attn_norm = Norm(config, dtype, rngs)
        self.attn = Attention(config, dtype, rngs)
        if config.cross:
            self.cross_norm = Norm(config, dtype, rngs)
            self.cross = CrossAttention(config, dtype, rngs)
        if config.parallel != "one_norm":
            self.mlp_norm = Norm(config, dtype, rngs)
        self.mlp = Mlp(config, dtype, rngs)
        if config.adapter_width:
            self.attn_adapter = Adapter(config, dtype, rngs)
            self.mlp_adapter = Adapter(config, dtype, rngs)

    def __call__(
        self, x: Float[Array, "B T D"], context: Context, tap: Taps, past: Past | None = None
    ) -> tuple[Float[Array, "B T D"], Past | None]:
        before, inside, after = (self.config.norm_place == place for place in ("before", "inside", "after"))
        normed = self.attn_norm(x) if before else x
        h, past = self.attn(tap("attn.in", normed), context, tap, past)
        adapted = self.config.adapter_width > 0
        h = self.attn_adapter(h) if adapted else h
        if self.config.parallel:
            read = normed if self.config.parallel == "one_norm" else self.mlp_norm(x)
            m = self.mlp(tap("mlp.in", read), tap)
            return tap("resid", x + h + (self.mlp_adapter(m) if adapted else m)), past
        x = x + (self.attn_norm(h) if inside else h)
        x = tap("resid.mid", self.attn_norm(x) if after else x)
        if self.config.cross:
            x = x + self.cross(tap("cross.in", self.cross_norm(x) if before else x), context, tap)
            x = tap("resid.cross", self.cross_norm(x) if after else x)
        h = self.mlp(tap("mlp.in", self.mlp_norm(x) if before else x), tap)
        h = self.mlp_adapter(h) if adapted else h
        x = x + (self.mlp_norm(h) if inside else h)
        return tap("resid", self.mlp_norm(x) if after else x), past


class Head(nnx.Module):
    """What the output head owns beside a tied embedding; nothing, for a tied causal head."""

    def __init__(self, config: TransformerConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        self.config = config
        if config.head == "masked":
            self.dense = Linear(
                config.width, config.width, kernel_init=INITIAL, param_dtype=dtype, rngs=rngs
            )
            self.norm = Norm(config, dtype, rngs)
            self.bias = nnx.Param(jnp.zeros(config.vocab_size, dtype))
        if config.head and not config.tied:
            self.kernel = nnx.Param(
                INITIAL(rngs.params(), (config.width, config.vocab_size), dtype)
            )

    def __call__(self, hidden: Float[Array, "... D"], embedding: Float[Array, "V D"]) -> Array:
        if self.config.head == "masked":
            # RoBERTa's head keeps this activation whatever the blocks have.
            hidden = self.norm(activate("gelu", self.dense(hidden)))
        logits = product_of_rows(hidden, embedding.T if self.config.tied else self.kernel[...])
        if self.config.logit_scale != 1.0:
            logits = logits * self.config.logit_scale
        return logits + self.bias[...] if self.config.head == "masked" else logits


class Relative(nnx.Module):
    """The learned bias by distance."""

    def __init__(self, config: TransformerConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        self.bias = nnx.Embed(
            config.relative_buckets, config.heads, embedding_init=INITIAL, param_dtype=dtype, rngs=rngs)


def parts(config: TransformerConfig) -> dict[str, Any]:
    """Part of the parameters -> its module; `layers` stands for one block."""
    optional = {"norm": (Norm, config.final_norm), "head": (Head, config.head),
                "relative": (Relative, config.positions == "relative")}  # fmt: skip
    return {"embed": Embed, "layers": Block} | {
        part: make for part, (make, present) in optional.items() if present
    }


def skeleton(config: TransformerConfig, part: str) -> nnx.GraphDef:
    """The structure of a part without its parameters."""
    return structure(parts(config)[part], config)


def init_params(
    config: TransformerConfig, key: PRNGKeyArray, dtype: DTypeLike = "float32"
) -> dict[str, Any]:
    """Random parameters: normal with sd 0.02, biases 0, norms 1; compiled as one program.

    Args:
        config: the transformer.
        key: `jax.random.key(seed)`.
        dtype: of every parameter; the forward pass computes in it (softmax and norms in float32 at
            least). `"float64"` needs x64 enabled, else `InputError`.

    Returns: nested dict; under `"layers"` every leaf leads with the layer axis.

    >>> config = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32)
    >>> init_params(config, jax.random.key(0))["layers"]["mlp"]["up"]["kernel"].shape
    (2, 8, 32)
    """
    name = jnp.dtype(dtype).name
    if jax.dtypes.canonicalize_dtype(name) != name:
        raise InputError(
            f"dtype is {name!r} while JAX keeps 32 bits; set JAX_ENABLE_X64=1 or use float32"
        )
    return _init_params(config, key, name)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _init_params(config: TransformerConfig, key: PRNGKeyArray, dtype: str) -> dict[str, Any]:
    names = parts(config)

    def make(part: str, key: PRNGKeyArray) -> dict[str, Any]:
        return fresh(names[part], config, dtype, key)

    keys = dict(zip(names, jax.random.split(key, len(names))))
    layer_keys = jax.random.split(keys.pop("layers"), config.layers)
    params = {part: make(part, key) for part, key in keys.items()}
    params["layers"] = jax.vmap(functools.partial(make, "layers"))(layer_keys)
    return {part: params[part] for part in names if params[part]}


def forward(
    params: Params,
    config: TransformerConfig,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    capture: Capture = (),
    edits: Edits | None = None,
    where: Bool[Array, "B T"] | None = None,
    memory: tuple[Float[Array, "B M D"], Bool[Array, "B M"]] | None = None,
) -> tuple[Float[Array, "B T D"], dict[str, Any]]:
    """The model from tokens to its last hidden state; for use inside `jit`, `grad` and `vmap`.

    Args:
        params: as `init_params` makes them.
        config: static.
        tokens: token ids; those under a False mask are never read.
        mask: True at real tokens, wherever they stand in the row.
        capture: a tuple of sites (every token), or site -> reduction: None, `"max"`, `"mean"`,
            `"last"`, `"sum"`, `"argmax"`, `"positive"` (share of tokens above 0), `"position"` (mean
            weighted by place: 1, 2, ...), positions int `[B, P]` or a function
            `(h [B, T, F], where [B, T]) -> pytree`.
        edits: site -> `Edit` or `Splice`.
        where: tokens that reductions count, by default all real ones; padding never counts.
        memory: an encoder's output and mask, for blocks with cross-attention.

    Returns: hidden `[B, T, D]` after the final norm, and site -> captured, leading with the layer
        axis (`embed`: one layer). Values at padding are finite and mean nothing.

    Errors: `InputError` for a site, reduction or edit that does not fit the model.

    >>> config = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32)
    >>> params = init_params(config, jax.random.key(0))
    >>> tokens, mask = jnp.ones((3, 5), int), jnp.ones((3, 5), bool)
    >>> hidden, captured = forward(params, config, tokens, mask, capture={"mlp.up": "max"})
    >>> hidden.shape, captured["mlp.up"].shape
    ((3, 5, 8), (2, 3, 32))
    """
    hidden, captured, _ = _run(params, config, tokens, mask, None, capture, edits, where, memory)
    return hidden, captured


def extend(
    params: Params,
    config: TransformerConfig,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    cache: Cache,
    *,
    capture: Capture = (),
    edits: Edits | None = None,
    where: Bool[Array, "B T"] | None = None,
    memory: tuple[Float[Array, "B M D"], Bool[Array, "B M"]] | None = None,
) -> tuple[Float[Array, "B T D"], dict[str, Any], Cache]:
    """`forward` of the tokens that follow those in the cache, which they see; and the cache with them.

    The caller sees to it that T slots are left. Sites of keys and queries are those of the new tokens;
    `attn.pattern` is `[B, H, T, S]`.

    >>> from xlingjax.models.cache import empty_cache
    >>> config = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32)
    >>> params = init_params(config, jax.random.key(0))
    >>> tokens, real = jnp.arange(6)[None], jnp.ones((1, 6), bool)
    >>> whole, _ = forward(params, config, tokens, real)
    >>> _, _, cache = extend(params, config, tokens[:, :4], real[:, :4], empty_cache(config, 1, 6, "float32"))
    >>> rest, _, _ = extend(params, config, tokens[:, 4:], real[:, 4:], cache)
    >>> bool(jnp.allclose(whole[:, 4:], rest, atol=1e-5))
    True
    """
    hidden, captured, held = _run(params, config, tokens, mask, cache, capture, edits, where, memory)
    assert held is not None
    return hidden, captured, held


@full_precision
def _run(
    params: Params, config: TransformerConfig, tokens: Array, mask: Array, cache: Cache | None, capture: Capture,
    edits: Edits | None, where: Array | None, memory: tuple[Array, Array] | None = None,
) -> tuple[Array, dict[str, Any], Cache | None]:
    if config.cross != (memory is not None):
        raise InputError("this decoder reads an encoder's output; run it by models.pair" if config.cross else
                         "memory is given to a model without cross-attention; leave it out")
    dtype = params["embed"]["tokens"]["embedding"].dtype
    wanted = read_capture(config, capture)
    batch, length = tokens.shape
    by_layer, shared = split_layers(read_edits(config, edits, batch, length, dtype))
    where = mask if where is None else where & mask
    relative = params["relative"]["bias"]["embedding"] if config.positions == "relative" else None
    if cache is None:
        context = read_context(config, mask, dtype, relative=relative)
    else:
        seen = jax.lax.dynamic_update_slice_in_dim(cache.mask, mask, cache.filled, axis=1)
        context = read_context(config, seen, dtype, cache.filled, length, relative)
    if memory is not None:
        context = context._replace(memory=memory[0], memory_allowed=memory[1][:, None, None, :])

    first = Taps(wanted, shared, mask, where)
    x = nnx.merge(skeleton(config, "embed"), params["embed"])(tokens, mask, context.positions)
    x = first("embed", x)

    block = skeleton(config, "layers")

    def layer_step(x: Array, layer: tuple, past: Past | None) -> tuple[Array, dict[str, Any], Past | None]:
        layer_params, layer_edits = layer
        edits = {site: shared[site] | layer_edits[site] for site in shared}
        tap = Taps(wanted, edits, mask, where)
        x, past = nnx.merge(block, layer_params)(x, context, tap, past)
        return x, tap.captured, past

    if cache is None:
        def body(x: Array, layer: tuple) -> tuple[Array, dict[str, Any]]:
            x, captured, _ = layer_step(x, layer, None)
            return x, captured

        # A gradient keeps the products of matrices and makes the rest again: less memory, and less time.
        body = jax.checkpoint(
            body, policy=jax.checkpoint_policies.dots_saveable, prevent_cse=False
        )
        x, captured = jax.lax.scan(body, x, (params["layers"], by_layer))
    else:
        start = cache.filled

        # The whole cache is carried, so that the loop writes one token into it and copies nothing.
        def step(carry: tuple, layer: tuple) -> tuple[tuple, dict[str, Any]]:
            x, keys, values = carry
            number, rest = layer
            x, captured, past = layer_step(x, rest, Past(keys, values, number, start))
            assert past is not None
            return (x, past.keys, past.values), captured

        (x, keys, values), captured = jax.lax.scan(
            step, (x, cache.keys, cache.values),
            (jnp.arange(config.layers, dtype=jnp.int32), (params["layers"], by_layer)))
        cache = Cache(keys, values, seen, start + length)
    captured |= jax.tree.map(lambda h: h[None], first.captured)
    return normalised(params, config, x), {site: captured[site] for site in wanted}, cache


def normalised(
    params: Params, config: TransformerConfig, resid: Float[Array, "... D"]
) -> Float[Array, "... D"]:
    """The residual stream after the final norm, where the model has one: what the head reads."""
    if not config.final_norm:
        return resid
    return nnx.merge(skeleton(config, "norm"), params.get("norm", {}))(resid)


@full_precision
def unembed(
    params: Params, config: TransformerConfig, hidden: Float[Array, "... D"]
) -> Float[Array, "... V"]:
    """Logits over the vocabulary from hidden states after the final norm.

    Errors: `InputError` where the model has no head.
    """
    if not config.head:
        raise InputError("this model has no output head, so it has no logits; load one with a head")
    embedding = params["embed"]["tokens"]["embedding"]
    logits = nnx.merge(skeleton(config, "head"), params.get("head", {}))(hidden, embedding)
    return logits[..., : config.vocab_size]
