"""Cohere's Command R and Aya: attention and MLP side by side on one norm without bias, scaled logits."""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families import llama
from xlingjax.models.families.entry import Family
from xlingjax.models.families.options import Options
from xlingjax.models.families.rotary import read_rotary


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from Cohere's."""
    options = Options(
        hf, "Cohere", only={"use_qk_norm": False}, ignored=("max_position_embeddings", "model_max_length",
                                                             "pretraining_tp"))  # fmt: skip
    rotary, _ = read_rotary(options)
    config = TransformerConfig(
        **llama.read_shape(options),
        **rotary,
        rotary_pairs="neighbours",
        norm="layer_scale",
        norm_epsilon=options.read("layer_norm_eps", default=1e-5),
        parallel="one_norm",
        attention_bias=options.read("attention_bias", default=False),
        tied=options.read("tie_word_embeddings", default=True),
        logit_scale=options.read("logit_scale", default=0.0625),
    )
    options.finish()
    return config


FAMILY = Family(
    name="cohere",
    model_types=("cohere",),
    read_config=read_config,
    entries=llama.entries,
    modules=llama.MODULES,
    prefixes=("model.",),
    unused=llama.UNUSED,
)
