"""Qwen 2, 2.5 and 3: Llama with biases on query, key and value (2), or with norms of each head (3)."""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families import llama
from xlingjax.models.families.entry import Family
from xlingjax.models.families.options import Options
from xlingjax.models.families.rotary import read_rotary, read_window


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from Qwen 2's or Qwen 3's."""
    options = Options(hf, "Qwen", ignored=("max_position_embeddings",))
    third = hf.get("model_type") == "qwen3"
    rotary, _ = read_rotary(options)
    bias = options.read("attention_bias", default=not third)
    config = TransformerConfig(
        **llama.read_shape(options),
        **rotary,
        max_length=read_window(options),
        norm="rms",
        norm_epsilon=options.read("rms_norm_eps", default=1e-6),
        attention_bias=bias,
        out_bias=bias if third else False,
        head_norm="each" if third else "",
        tied=options.read("tie_word_embeddings", default=False),
    )
    options.finish()
    return config


FAMILY = Family(
    name="qwen",
    model_types=("qwen2", "qwen3"),
    read_config=read_config,
    entries=llama.entries,
    modules=llama.MODULES,
    prefixes=("model.",),
    unused=llama.UNUSED,
)
