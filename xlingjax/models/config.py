"""What a transformer is made of, as data: one frozen, hashable record for every family.

A family (`models/families/`) reads a Hugging Face `config.json` into this record; the transformer
looks at its switches and never at a family's name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from xlingjax.errors import InputError

CHOICES: dict[str, tuple[str, ...]] = {
    "positions": ("alibi", "learned", "sinusoidal", "rotary", "relative"),
    "rotary_pairs": ("halves", "neighbours"),
    "norm": ("layer", "layer_scale", "layer_bare", "rms"),
    "norm_place": ("before", "after", "inside"),
    "parallel": ("", "one_norm", "two_norms"),
    "head_norm": ("", "each", "all"),
    "fused": ("", "by_head", "by_part"),
    "activation": ("gelu", "gelu_tanh", "gelu_bloom", "relu", "silu"),
    "head": ("", "lm", "masked"),
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The shape and the switches of one transformer.

    Args:
        vocab_size: V, tokens that have a logit; the embedding may hold more rows (for a mesh).
        layers: L.
        width: D, units of the residual stream.
        heads: query heads H; `key_value_heads` divides them (0: as many).
        head_size: units of a head (0: width / heads).
        mlp_width: units of `mlp.up`.
        positions: `"alibi"`, `"learned"`, `"sinusoidal"`, `"rotary"` or `"relative"` (a learned bias by
            distance, the same in all layers). All of them count real tokens only.
        max_length: longest sentence in tokens, needed where positions are learned; 0: no limit.
        position_offset: table row of the first real token (learned and sinusoidal).
        rotary_base: wavelength base of rotary positions.
        rotary_scaling: () or Llama 3.1's (factor, low, high, original length); see `positions`.
        rotary_units: units of a head that turn, the first ones (0: all).
        rotary_pairs: unit i turns with unit i + W/2 ("halves") or 2i with 2i + 1 ("neighbours").
        relative_buckets, relative_distance: distances that are told apart, and from which on all are one.
        token_types: rows of a segment embedding, of which row 0 is used; 0: none.
        embed_scale: factor on token embeddings.
        embed_norm: a norm follows the embedding.
        norm_tokens: that norm stands before positions are added, not after.
        norm: `"layer"` (scale and bias), `"layer_scale"`, `"layer_bare"` (neither) or `"rms"`.
        norm_place: `"before"` each sublayer, `"after"` each residual addition, or `"inside"`: on
            the sublayer's output, before it is added.
        norm_epsilon: added to the variance.
        parallel: attention and MLP read the same residual stream, through `"one_norm"` or
            `"two_norms"`; `""`: the MLP reads what attention has added to.
        head_norm: queries and keys are normed by head (`"each"`) or over all heads (`"all"`).
        final_norm: a norm follows the last block.
        fused: query, key and value come from one linear map whose units are ordered `"by_head"`
            (per head q, k, v: BLOOM) or `"by_part"` (all q, all k, all v: GPT-2); `""`: three maps.
        attention_bias, mlp_bias: the linear maps of that sublayer have biases.
        out_bias: `attn.out` has one; None: as `attention_bias`.
        attention_scale: factor on the scores; 0: one over the root of a head's units.
        attention_clip: queries, keys and values are cut to plus or minus it; 0: not at all.
        gated: the MLP multiplies its activation by a second linear map (`mlp.gate` is activated).
        activation: the MLP's nonlinearity.
        causal: tokens see only earlier tokens.
        cross: blocks also attend to an encoder's output (`models.pair`).
        head: `"lm"` (linear), `"masked"` (dense, GELU, norm, linear with bias) or `""`: none.
        tied: the head's last linear map is the token embedding.
        logit_scale: factor on the logits.
        adapter_width: units of an adapter (Houlsby et al. 2019) on the output of each sublayer, before it is
            added; 0: none.
        bare_first: the first token of a row has neither position nor segment (learned positions), so that it is
            the same in banks that have positions of their own.

    >>> config = TransformerConfig(vocab_size=101, layers=2, width=16, heads=4, mlp_width=64)
    >>> TransformerConfig.from_dict(config.to_dict()) == config
    True
    """

    vocab_size: int
    layers: int
    width: int
    heads: int
    mlp_width: int
    key_value_heads: int = 0
    head_size: int = 0
    positions: str = "alibi"
    max_length: int = 0
    position_offset: int = 0
    rotary_base: float = 10_000.0
    rotary_scaling: tuple[float, ...] = ()
    rotary_units: int = 0
    rotary_pairs: str = "halves"
    relative_buckets: int = 32
    relative_distance: int = 128
    token_types: int = 0
    embed_scale: float = 1.0
    embed_norm: bool = False
    norm_tokens: bool = False
    norm: str = "layer"
    norm_place: str = "before"
    norm_epsilon: float = 1e-5
    parallel: str = ""
    head_norm: str = ""
    final_norm: bool = True
    fused: str = ""
    attention_bias: bool = True
    out_bias: bool | None = None
    attention_clip: float = 0.0
    attention_scale: float = 0.0
    mlp_bias: bool = True
    gated: bool = False
    activation: str = "gelu"
    causal: bool = True
    cross: bool = False
    head: str = "lm"
    tied: bool = True
    logit_scale: float = 1.0
    adapter_width: int = 0
    bare_first: bool = False

    def __post_init__(self) -> None:
        if not self.key_value_heads:
            object.__setattr__(self, "key_value_heads", self.heads)
        object.__setattr__(self, "rotary_scaling", tuple(self.rotary_scaling))
        for name in ("vocab_size", "layers", "width", "heads", "mlp_width", "key_value_heads"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; give a whole number of at least 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; "
                    f"choose one of {', '.join(map(repr, choices))}"
                )
        if self.parallel and self.norm_place != "before":
            raise InputError(
                f"norm_place is {self.norm_place!r} in parallel blocks, which have their norms before"
            )
        if len(self.rotary_scaling) not in (0, 4):
            raise InputError(
                f"rotary_scaling is {self.rotary_scaling}; give factor, low, high and original length"
            )
        if self.adapter_width < 0:
            raise InputError(f"adapter_width is {self.adapter_width}; give 0 for none, or a number of units")
        if self.bare_first and self.positions != "learned":
            raise InputError(f"bare_first is set with {self.positions} positions; only learned ones can be left out")
        if self.width % self.heads and not self.head_size:
            raise InputError(
                f"width {self.width} is no multiple of heads {self.heads}; all have equal width"
            )
        if self.heads % self.key_value_heads:
            raise InputError(
                f"heads {self.heads} is no multiple of key_value_heads "
                f"{self.key_value_heads}; query heads share key heads evenly"
            )
        if self.fused and self.key_value_heads != self.heads:
            raise InputError(
                f"fused is {self.fused!r} with key_value_heads {self.key_value_heads} of "
                f"{self.heads} heads; fused maps need equal numbers of both"
            )
        if self.max_length < (self.positions == "learned"):
            raise InputError(
                f"max_length is {self.max_length} with {self.positions} positions; "
                "learned positions need a length, the others may have none (0)"
            )
        paired = {"sinusoidal": self.width, "rotary": self.rotary_units or self.head_width}
        if paired.get(self.positions, 0) % 2:
            raise InputError(
                f"{self.positions} positions pair units, and {paired[self.positions]} of them leave "
                "one over; choose an even number"
            )
        if self.rotary_units > self.head_width:
            raise InputError(
                f"rotary_units is {self.rotary_units}, but a head has {self.head_width} units"
            )

    @property
    def head_width(self) -> int:
        """Units of one attention head."""
        return self.head_size or self.width // self.heads

    @property
    def query_width(self) -> int:
        """Units of `attn.q` and of `attn.heads`."""
        return self.head_width * self.heads

    @property
    def key_value_width(self) -> int:
        """Units of `attn.k` and of `attn.v`."""
        return self.head_width * self.key_value_heads

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, booleans and lists: what JSON gives back is equal to it."""
        found = {**dataclasses.asdict(self), "rotary_scaling": list(self.rotary_scaling)}
        # Where they are off they are left out: what was written before they were known stays equal.
        return {name: value for name, value in found.items() if value or name not in ("adapter_width", "bare_first")}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> "TransformerConfig":
        """The inverse of `to_dict`; `InputError` names an option that is unknown or missing."""
        fields = dataclasses.fields(cls)
        unknown = sorted(set(options) - {field.name for field in fields})
        if unknown:
            raise InputError(
                f"option {unknown[0]!r} is no option of a transformer; remove it, or read "
                "the file with the version of xlingjax that wrote it"
            )
        missing = [
            field.name
            for field in fields
            if field.default is dataclasses.MISSING and field.name not in options
        ]
        if missing:
            raise InputError(f"option {missing[0]!r} is missing; give it a value")
        return cls(**options)
