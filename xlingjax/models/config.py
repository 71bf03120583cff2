"""What a transformer is made of, as data: one frozen, hashable record for every family.

A family (`models/families/`) reads a Hugging Face `config.json` into this record; the transformer
looks at its switches and never at a family's name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from xlingjax.errors import InputError

CHOICES: dict[str, tuple[str, ...]] = {
    "positions": ("alibi", "learned", "sinusoidal", "rotary"),
    "norm": ("layer", "rms"),
    "norm_place": ("before", "after"),
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
        mlp_width: units of `mlp.up`.
        positions: `"alibi"`, `"learned"`, `"sinusoidal"` or `"rotary"`. All of them count real
            tokens only.
        max_length: longest sentence in tokens where positions are learned, else 0 (no limit).
        position_offset: table row of the first real token (learned and sinusoidal).
        rotary_base: wavelength base of rotary positions.
        token_types: rows of a segment embedding, of which row 0 is used; 0: none.
        embed_scale: factor on token embeddings.
        embed_norm: a norm follows the embedding.
        norm: `"layer"` or `"rms"`.
        norm_place: `"before"` each sublayer or `"after"` each residual addition.
        norm_epsilon: added to the variance.
        final_norm: a norm follows the last block.
        fused: query, key and value come from one linear map whose units are ordered `"by_head"`
            (per head q, k, v: BLOOM) or `"by_part"` (all q, all k, all v: GPT-2); `""`: three maps.
        attention_bias, mlp_bias: the linear maps of that sublayer have biases.
        gated: the MLP multiplies its activation by a second linear map (`mlp.gate` is activated).
        activation: the MLP's nonlinearity.
        causal: tokens see only earlier tokens.
        head: `"lm"` (linear), `"masked"` (dense, GELU, norm, linear with bias) or `""`: none.
        tied: the head's last linear map is the token embedding.

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
    positions: str = "alibi"
    max_length: int = 0
    position_offset: int = 0
    rotary_base: float = 10_000.0
    token_types: int = 0
    embed_scale: float = 1.0
    embed_norm: bool = False
    norm: str = "layer"
    norm_place: str = "before"
    norm_epsilon: float = 1e-5
    final_norm: bool = True
    fused: str = ""
    attention_bias: bool = True
    mlp_bias: bool = True
    gated: bool = False
    activation: str = "gelu"
    causal: bool = True
    head: str = "lm"
    tied: bool = True

    def __post_init__(self) -> None:
        if not self.key_value_heads:
            object.__setattr__(self, "key_value_heads", self.heads)
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
        if self.width % self.heads:
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
        if (self.positions == "learned") != (self.max_length > 0):
            raise InputError(
                f"max_length is {self.max_length} with {self.positions} positions; "
                "learned positions need a length, the others have none (0)"
            )
        if (
            self.positions == "sinusoidal"
            and self.width % 2
            or self.positions == "rotary"
            and self.head_width % 2
        ):
            raise InputError(
                f"{self.positions} positions pair units, and width {self.width} with "
                f"{self.heads} heads leaves one over; choose an even width a head"
            )

    @property
    def head_width(self) -> int:
        """Units of one attention head."""
        return self.width // self.heads

    @property
    def key_value_width(self) -> int:
        """Units of `attn.k` and of `attn.v`."""
        return self.head_width * self.key_value_heads

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and booleans, ready for JSON."""
        return dataclasses.asdict(self)

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
