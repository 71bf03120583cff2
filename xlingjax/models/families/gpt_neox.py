"""GPT-NeoX and Pythia: a fused map, rotary positions on a part of each head, attention and MLP side by side."""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.entry import Entry, Family, layer_norm, linear
from xlingjax.models.families.options import ACTIVATIONS, Options
from xlingjax.models.families.rotary import read_rotary


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from GPT-NeoX's."""
    options = Options(
        hf, "GPT-NeoX", only={"is_decoder": False}, ignored=("max_position_embeddings",))  # fmt: skip
    rotary, part = read_rotary(options)
    width, heads = options.read("hidden_size"), options.read("num_attention_heads")
    config = TransformerConfig(
        vocab_size=options.read("vocab_size"),
        layers=options.read("num_hidden_layers"),
        width=width,
        heads=heads,
        mlp_width=options.read("intermediate_size"),
        **rotary,
        rotary_units=int(width // heads * part),
        norm_epsilon=options.read("layer_norm_eps", default=1e-5),
        parallel="two_norms" if options.read("use_parallel_residual", default=True) else "",
        fused="by_head",
        attention_bias=options.read("attention_bias", default=True),
        activation=options.choose("hidden_act", choices=ACTIVATIONS, default="gelu"),
        tied=options.read("tie_word_embeddings", default=False),
    )
    options.finish()
    return config


def entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """GPT-NeoX's tensors."""
    layer = "gpt_neox.layers.{layer}"
    head = () if config.tied else (Entry("head/kernel", "lm_head.weight", transpose=True),)
    return (
        Entry("embed/tokens/embedding", "gpt_neox.embed_in.weight"),
        *layer_norm("layers/attn_norm", f"{layer}.input_layernorm"),
        *linear("layers/attn/qkv", f"{layer}.attention.query_key_value", config.attention_bias),
        *linear("layers/attn/out", f"{layer}.attention.dense", config.attention_bias),
        *layer_norm("layers/mlp_norm", f"{layer}.post_attention_layernorm"),
        *linear("layers/mlp/up", f"{layer}.mlp.dense_h_to_4h"),
        *linear("layers/mlp/down", f"{layer}.mlp.dense_4h_to_h"),
        *layer_norm("norm", "gpt_neox.final_layer_norm"),
        *head,
    )


FAMILY = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    read_config=read_config,
    entries=entries,
    modules={
        "attn.qkv": "gpt_neox.layers.{layer}.attention.query_key_value",
        "attn.out": "gpt_neox.layers.{layer}.attention.dense",
        "mlp.up": "gpt_neox.layers.{layer}.mlp.dense_h_to_4h",
        "mlp.down": "gpt_neox.layers.{layer}.mlp.dense_4h_to_h",
    },
    prefixes=("gpt_neox.",),
    unused=("lm_head.weight", "gpt_neox.layers.*.attention.bias", "gpt_neox.layers.*.attention.masked_bias",
            "gpt_neox.layers.*.attention.rotary_emb.inv_freq"),
    spellings={"embed_out.": "lm_head."},
)
