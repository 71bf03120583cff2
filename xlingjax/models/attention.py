"""Multi-head attention, with its query, key and value maps fused or apart."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from xlingjax.models.cache import Past
from xlingjax.models.config import TransformerConfig
from xlingjax.models.linear import Linear
from xlingjax.models.norm import Norm
from xlingjax.models.positions import alibi_bias, relative_bias, rotate, token_positions, wide
from xlingjax.models.taps import Taps

INITIAL = nnx.initializers.normal(0.02)


class Context(NamedTuple):
    """What every layer's attention needs to know of T tokens that see S, themselves among them."""

    positions: Int[Array, "B T"]
    allowed: Bool[Array, "B 1 T S"]  # query (third axis) may see key (last axis)
    bias: Float[Array, "B H _ S"] | None  # added to the scores
    memory: Float[Array, "B M D"] | None = None  # what blocks with cross-attention read as well
    memory_allowed: Bool[Array, "B 1 1 M"] | None = None


def read_context(
    config: TransformerConfig, mask: Bool[Array, "B S"], dtype: DTypeLike,
    start: Int[Array, ""] | int = 0, length: int | None = None, relative: Float[Array, "K H"] | None = None,
) -> Context:
    """The context of the `length` tokens from slot `start` on (all S); it follows from the mask alone.

    Args:
        relative: the learned bias by distance, where positions are relative.
    """
    positions = token_positions(mask)
    slots = jnp.arange(mask.shape[1])
    allowed = mask[:, None, None, :]
    own, queries = positions, slots
    if length is not None:
        own = jax.lax.dynamic_slice_in_dim(positions, start, length, axis=1)
        queries = start + jnp.arange(length)
    if config.causal:
        allowed = allowed & (queries[:, None] >= slots[None, :])
    bias = None
    if config.positions == "alibi":
        bias = alibi_bias(positions, config.heads, wide(dtype))
    if relative is not None:
        bias = relative_bias(relative, own, positions, config.relative_distance, not config.causal)
    return Context(own, allowed, bias)


class Attention(nnx.Module):
    """The attention sublayer without its norms."""

    def __init__(self, config: TransformerConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        def linear(units: int, wide: int = config.width, bias: bool = config.attention_bias) -> nnx.Linear:
            return Linear(
                wide,
                units,
                use_bias=bias,
                kernel_init=INITIAL,
                param_dtype=dtype,
                rngs=rngs,
            )

        self.config = config
        if config.fused:
            self.qkv = linear(3 * config.query_width)
        else:
            self.q, self.k, self.v = (
                linear(n) for n in (config.query_width, config.key_value_width, config.key_value_width)
            )
        if config.head_norm:
            alone = config.head_norm == "each"
            self.q_norm, self.k_norm = (
                Norm(config, dtype, rngs, config.head_width if alone else units)
                for units in (config.query_width, config.key_value_width)
            )
        out_bias = config.attention_bias if config.out_bias is None else config.out_bias
        self.out = linear(config.width, config.query_width, out_bias)

    def __call__(
        self, x: Float[Array, "B T D"], context: Context, tap: Taps, past: Past | None = None
    ) -> tuple[Float[Array, "B T D"], Past | None]:
        """The sublayer's output, and the past with these tokens in it."""
        q, k, v = self.queries_keys_values(x, tap)
        config = self.config
        q, k, v = tap("attn.q", q), tap("attn.k", k), tap("attn.v", v)
        if config.attention_clip:
            q, k, v = (jnp.clip(h, -config.attention_clip, config.attention_clip) for h in (q, k, v))
        if config.head_norm == "all":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (h.reshape(*h.shape[:2], -1, config.head_width) for h in (q, k, v))
        if config.head_norm == "each":
            q, k = self.q_norm(q), self.k_norm(k)
        if config.positions == "rotary":
            turn = functools.partial(
                rotate, positions=context.positions, base=config.rotary_base, scaling=config.rotary_scaling,
                units=config.rotary_units, pairs=config.rotary_pairs)
            q, k = turn(q), turn(k)
        if past is not None:
            past, k, v = past.append(k, v)
        pattern = tap("attn.pattern", attention_pattern(q, k, context.allowed, context.bias, config.attention_scale))
        heads = tap("attn.heads", mix_values(pattern, v))
        return tap("attn.out", self.out(heads)), past

    def queries_keys_values(
        self, x: Float[Array, "B T D"], tap: Taps
    ) -> tuple[Array, Array, Array]:
        """`[B, T, H * W]` each, units head by head."""
        if not self.config.fused:
            return self.q(x), self.k(x), self.v(x)
        qkv = tap("attn.qkv", self.qkv(x))
        batch, length, _ = qkv.shape
        by_head = self.config.fused == "by_head"
        shape = (self.config.heads, 3, -1) if by_head else (3, self.config.heads, -1)
        parts = jnp.moveaxis(qkv.reshape(batch, length, *shape), 3 if by_head else 2, 0)
        q, k, v = parts.reshape(3, batch, length, -1)
        return q, k, v


class CrossAttention(nnx.Module):
    """Attention of a decoder's tokens to an encoder's output, without its norm.

    Keys and values stand at the encoder's tokens and are no sites; what they are made of is, in the encoder.
    """

    def __init__(self, config: TransformerConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        def linear(wide: int, units: int) -> nnx.Linear:
            return Linear(
                wide, units, use_bias=config.attention_bias, kernel_init=INITIAL, param_dtype=dtype, rngs=rngs)

        self.config = config
        self.q = linear(config.width, config.query_width)
        self.k, self.v = (linear(config.width, config.key_value_width) for _ in range(2))
        self.out = linear(config.query_width, config.width)

    def __call__(self, x: Float[Array, "B T D"], context: Context, tap: Taps) -> Float[Array, "B T D"]:
        memory, allowed = context.memory, context.memory_allowed
        assert memory is not None and allowed is not None
        heads = lambda h: h.reshape(*h.shape[:2], -1, self.config.head_width)
        q = heads(tap("cross.q", self.q(x)))
        pattern = attention_pattern(q, heads(self.k(memory)), allowed, None, self.config.attention_scale)
        return tap("cross.out", self.out(tap("cross.heads", mix_values(pattern, heads(self.v(memory))))))


def attention_pattern(
    q: Float[Array, "B T H W"], k: Float[Array, "B S K W"], allowed: Bool[Array, "B 1 _ S"],
    bias: Float[Array, "B H _ S"] | None = None, scale: float = 0.0,
) -> Float[Array, "B H T S"]:
    """Softmax over the keys a query may see, in float32 at least.

    Args:
        bias: added to the scores. scale: factor on them; 0: one over the root of W.

    The minimum for unseen keys is finite: a query that sees none (padding) stays finite too.
    """
    batch, length, heads, width = q.shape
    grouped = q.reshape(batch, length, k.shape[2], -1, width)
    scores = jnp.einsum("btkgw,bskw->bkgts", grouped, k).reshape(batch, heads, length, -1)
    scores = scores.astype(wide(q.dtype)) * (scale or width**-0.5)
    if bias is not None:
        scores = scores + bias
    scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
    return jax.nn.softmax(scores, axis=-1).astype(q.dtype)


def mix_values(
    pattern: Float[Array, "B H T S"], v: Float[Array, "B S K W"]
) -> Float[Array, "B T D"]:
    """Each head's weighted mean of its values, heads side by side."""
    batch, seen, groups, _ = v.shape
    length = pattern.shape[2]
    grouped = pattern.reshape(batch, groups, -1, length, seen)
    return jnp.einsum("bkgts,bskw->btkgw", grouped, v).reshape(batch, length, -1)
