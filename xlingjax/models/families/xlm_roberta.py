"""XLM-R and RoBERTa: encoders with a norm after each addition and a masked-LM head."""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.encoder import encoder_entries, encoder_modules, read_shape
from xlingjax.models.families.entry import Entry, Family, layer_norm, linear
from xlingjax.models.families.options import ACTIVATIONS, Options


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from RoBERTa's; the head is there where `architectures` names a masked LM.

    The first token's position is the row after the padding id, so that many rows are no positions.
    """
    options = Options(
        hf, "RoBERTa", only={"position_embedding_type": "absolute", "is_decoder": False}
    )
    offset = options.read("pad_token_id", default=1) + 1
    masked = any(name.endswith("ForMaskedLM") for name in hf.get("architectures") or ())
    tied = options.read("tie_word_embeddings", default=True)
    config = TransformerConfig(
        **read_shape(options),
        position_offset=offset,
        max_length=options.read("max_position_embeddings", default=512) - offset,
        activation=options.choose("hidden_act", choices=ACTIVATIONS, default="gelu"),
        head="masked" if masked else "",
        tied=tied,
    )
    options.finish()
    return config


def entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """RoBERTa's tensors, with the head's where the config has one."""
    head: tuple[Entry, ...] = ()
    if config.head:
        head = (
            *linear("head/dense", "lm_head.dense"),
            *layer_norm("head/norm", "lm_head.layer_norm"),
        )
        if config.tied:
            head += (Entry("head/bias", "lm_head.bias"),)
        else:  # the untied head reads its decoder's bias, never lm_head.bias
            head += (
                Entry("head/kernel", "lm_head.decoder.weight", transpose=True),
                Entry("head/bias", "lm_head.decoder.bias"),
            )
    return *encoder_entries("roberta."), *head


FAMILY = Family(
    name="xlm_roberta",
    model_types=("xlm-roberta", "roberta"),
    read_config=read_config,
    entries=entries,
    modules=encoder_modules("roberta."),
    prefixes=("roberta.",),
    unused=("roberta.pooler.dense.*", "roberta.embeddings.position_ids", "lm_head.*"),
)
