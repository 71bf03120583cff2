"""XGLM: sinusoidal positions from row 2 on, scaled embeddings, norms before each sublayer."""

import math
from collections.abc import Mapping
from typing import Any

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.entry import Entry, Family, layer_norm, linear
from xlingjax.models.families.options import ACTIVATIONS, Options


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from XGLM's."""
    options = Options(
        hf, "XGLM", ignored=("max_position_embeddings",), only={"tie_word_embeddings": True}
    )
    if (hf.get("pad_token_id") or 0) > 1:  # Hugging Face zeroes that row of the position table
        raise InputError(
            f"option pad_token_id of this XGLM model is {hf['pad_token_id']!r}, which would "
            "erase a position; only 0 and 1 are supported"
        )
    width = options.read("d_model", "hidden_size")
    config = TransformerConfig(
        vocab_size=options.read("vocab_size"),
        layers=options.read("num_layers", "num_hidden_layers"),
        width=width,
        heads=options.read("attention_heads", "num_attention_heads"),
        mlp_width=options.read("ffn_dim"),
        positions="sinusoidal",
        position_offset=2,
        embed_scale=math.sqrt(width) if options.read("scale_embedding", default=True) else 1.0,
        activation=options.choose("activation_function", choices=ACTIVATIONS, default="gelu"),
    )
    options.finish()
    return config


def paper_config() -> TransformerConfig:
    """The 257M model of Riemenschneider & Frank (2025): 257,115,136 parameters."""
    return read_config(
        {
            "vocab_size": 256_008,
            "num_layers": 24,
            "d_model": 512,
            "ffn_dim": 4096,
            "attention_heads": 8,
        }
    )


def entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """XGLM's tensors; its positions are computed."""
    layer = "model.layers.{layer}"
    return (
        Entry("embed/tokens/embedding", "model.embed_tokens.weight"),
        *layer_norm("layers/attn_norm", f"{layer}.self_attn_layer_norm"),
        *linear("layers/attn/q", f"{layer}.self_attn.q_proj"),
        *linear("layers/attn/k", f"{layer}.self_attn.k_proj"),
        *linear("layers/attn/v", f"{layer}.self_attn.v_proj"),
        *linear("layers/attn/out", f"{layer}.self_attn.out_proj"),
        *layer_norm("layers/mlp_norm", f"{layer}.final_layer_norm"),
        *linear("layers/mlp/up", f"{layer}.fc1"),
        *linear("layers/mlp/down", f"{layer}.fc2"),
        *layer_norm("norm", "model.layer_norm"),
    )


FAMILY = Family(
    name="xglm",
    model_types=("xglm",),
    read_config=read_config,
    entries=entries,
    modules={
        "attn.q": "model.layers.{layer}.self_attn.q_proj",
        "attn.k": "model.layers.{layer}.self_attn.k_proj",
        "attn.v": "model.layers.{layer}.self_attn.v_proj",
        "attn.out": "model.layers.{layer}.self_attn.out_proj",
        "mlp.up": "model.layers.{layer}.fc1",
        "mlp.down": "model.layers.{layer}.fc2",
    },
    prefixes=("model.",),
    unused=("lm_head.weight", "model.embed_positions.weights"),
)
