"""BLOOM: ALiBi, a norm after the embedding, fused query-key-value maps, a GELU of its own."""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.entry import Entry, Family, layer_norm, linear
from xlingjax.models.families.options import Options


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from BLOOM's; `slow_but_exact` and its kin only change the order of a sum."""
    options = Options(
        hf,
        "BLOOM",
        only={"apply_residual_connection_post_layernorm": False, "tie_word_embeddings": True},
        ignored=(
            "attention_softmax_in_fp32",
            "bias_dropout_fusion",
            "masked_softmax_fusion",
            "offset_alibi",
            "pretraining_tp",
            "seq_length",
            "skip_bias_add",
            "skip_bias_add_qkv",
            "slow_but_exact",
            "unk_token_id",
        ),
    )
    width = options.read("hidden_size", "n_embed")
    if options.read("n_inner", default=4 * width) != 4 * width:
        options.seen.discard("n_inner")
    config = TransformerConfig(
        vocab_size=options.read("vocab_size"),
        layers=options.read("n_layer", "num_hidden_layers"),
        width=width,
        heads=options.read("n_head", "num_attention_heads"),
        mlp_width=4 * width,
        positions="alibi",
        embed_norm=True,
        norm_epsilon=options.read("layer_norm_epsilon", default=1e-5),
        fused="by_head",
        activation="gelu_bloom",
    )
    options.finish()
    return config


def entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """BLOOM's tensors."""
    layer = "transformer.h.{layer}"
    return (
        Entry("embed/tokens/embedding", "transformer.word_embeddings.weight"),
        *layer_norm("embed/norm", "transformer.word_embeddings_layernorm"),
        *layer_norm("layers/attn_norm", f"{layer}.input_layernorm"),
        *linear("layers/attn/qkv", f"{layer}.self_attention.query_key_value"),
        *linear("layers/attn/out", f"{layer}.self_attention.dense"),
        *layer_norm("layers/mlp_norm", f"{layer}.post_attention_layernorm"),
        *linear("layers/mlp/up", f"{layer}.mlp.dense_h_to_4h"),
        *linear("layers/mlp/down", f"{layer}.mlp.dense_4h_to_h"),
        *layer_norm("norm", "transformer.ln_f"),
    )


FAMILY = Family(
    name="bloom",
    model_types=("bloom",),
    read_config=read_config,
    entries=entries,
    modules={
        "attn.qkv": "transformer.h.{layer}.self_attention.query_key_value",
        "attn.out": "transformer.h.{layer}.self_attention.dense",
        "mlp.up": "transformer.h.{layer}.mlp.dense_h_to_4h",
        "mlp.down": "transformer.h.{layer}.mlp.dense_4h_to_h",
    },
    prefixes=("transformer.",),
    unused=("lm_head.weight",),
)
