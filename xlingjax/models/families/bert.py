"""BERT and mBERT: encoders with a norm after each addition, segments, and a masked-LM head."""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.encoder import encoder_entries, encoder_modules, read_shape
from xlingjax.models.families.entry import Entry, Family, layer_norm, linear
from xlingjax.models.families.options import ACTIVATIONS, Options

HEADS = ("ForMaskedLM", "ForPreTraining")


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from BERT's; the head is there where `architectures` names a model that has one.

    Its head has the activation of the blocks, ours always GELU: others are refused.
    """
    options = Options(
        hf,
        "BERT",
        only={"position_embedding_type": "absolute", "is_decoder": False, "tie_word_embeddings": True},
        ignored=("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
                 "pooler_size_per_head", "pooler_type"),
    )  # fmt: skip
    masked = any(name.endswith(HEADS) for name in hf.get("architectures") or ())
    config = TransformerConfig(
        **read_shape(options),
        max_length=options.read("max_position_embeddings", default=512),
        activation=options.choose(
            "hidden_act", choices={"gelu": "gelu"} if masked else ACTIVATIONS, default="gelu"),
        head="masked" if masked else "",
    )  # fmt: skip
    options.finish()
    return config


def entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """BERT's tensors, with the head's where the config has one."""
    head = "cls.predictions"
    if not config.head:
        return encoder_entries("bert.")
    return (
        *encoder_entries("bert."),
        *linear("head/dense", f"{head}.transform.dense"),
        *layer_norm("head/norm", f"{head}.transform.LayerNorm"),
        Entry("head/bias", f"{head}.bias"),
    )


FAMILY = Family(
    name="bert",
    model_types=("bert",),
    read_config=read_config,
    entries=entries,
    modules=encoder_modules("bert."),
    prefixes=("bert.",),
    unused=("bert.pooler.dense.*", "bert.embeddings.position_ids", "cls.*"),
    spellings={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
)
