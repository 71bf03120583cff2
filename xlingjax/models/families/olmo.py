"""OLMo 1 and 2: Llama with norms that learn nothing (1), or on the sublayers' outputs and on queries and keys (2)."""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families import llama
from xlingjax.models.families.entry import Family
from xlingjax.models.families.options import Options
from xlingjax.models.families.rotary import read_rotary


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from OLMo's or OLMo 2's."""
    options = Options(hf, "OLMo", ignored=("max_position_embeddings",))
    rotary, _ = read_rotary(options)
    norms: dict[str, Any] = {"norm": "layer_bare", "norm_epsilon": 1e-5}
    if hf.get("model_type") == "olmo2":
        norms = {"norm": "rms", "norm_epsilon": options.read("rms_norm_eps", default=1e-5),
                 "norm_place": "inside", "head_norm": "all"}  # fmt: skip
    clip = 0.0 if hf.get("clip_qkv") is None else options.read("clip_qkv")
    config = TransformerConfig(
        **llama.read_shape(options),
        **rotary,
        **norms,
        attention_bias=options.read("attention_bias", default=False),
        attention_clip=clip,
        tied=options.read("tie_word_embeddings", default=False),
    )
    options.finish()
    return config


FAMILY = Family(
    name="olmo",
    model_types=("olmo", "olmo2"),
    read_config=read_config,
    entries=llama.entries,
    modules=llama.MODULES,
    prefixes=("model.",),
    unused=llama.UNUSED,
)
