"""GPT-2 and DialoGPT: learned positions, one map for query, key and value, weights kept as [in, out]."""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.entry import Entry, Family, layer_norm, linear
from xlingjax.models.families.options import ACTIVATIONS, Options


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from GPT-2's; `reorder_and_upcast_attn` only changes the order of a product."""
    options = Options(
        hf,
        "GPT-2",
        only={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True},
        ignored=("n_ctx", "reorder_and_upcast_attn", "summary_activation", "summary_first_dropout",
                 "summary_proj_to_labels", "summary_type", "summary_use_proj"),
    )  # fmt: skip
    width = options.read("n_embd", "hidden_size")
    config = TransformerConfig(
        vocab_size=options.read("vocab_size"),
        layers=options.read("n_layer", "num_hidden_layers"),
        width=width,
        heads=options.read("n_head", "num_attention_heads"),
        mlp_width=options.read("n_inner", default=4 * width),
        positions="learned",
        max_length=options.read("n_positions", "max_position_embeddings", default=1024),
        norm_epsilon=options.read("layer_norm_epsilon", default=1e-5),
        fused="by_part",
        activation=options.choose("activation_function", choices=ACTIVATIONS, default="gelu_new"),
    )
    options.finish()
    return config


def entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """GPT-2's tensors."""
    layer = "transformer.h.{layer}"
    return (
        Entry("embed/tokens/embedding", "transformer.wte.weight"),
        Entry("embed/positions/embedding", "transformer.wpe.weight"),
        *layer_norm("layers/attn_norm", f"{layer}.ln_1"),
        *linear("layers/attn/qkv", f"{layer}.attn.c_attn", transpose=False),
        *linear("layers/attn/out", f"{layer}.attn.c_proj", transpose=False),
        *layer_norm("layers/mlp_norm", f"{layer}.ln_2"),
        *linear("layers/mlp/up", f"{layer}.mlp.c_fc", transpose=False),
        *linear("layers/mlp/down", f"{layer}.mlp.c_proj", transpose=False),
        *layer_norm("norm", "transformer.ln_f"),
    )


FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    read_config=read_config,
    entries=entries,
    modules={
        "attn.qkv": "transformer.h.{layer}.attn.c_attn",
        "attn.out": "transformer.h.{layer}.attn.c_proj",
        "mlp.up": "transformer.h.{layer}.mlp.c_fc",
        "mlp.down": "transformer.h.{layer}.mlp.c_proj",
    },
    prefixes=("transformer.",),
    unused=("lm_head.weight", "transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias"),
)
