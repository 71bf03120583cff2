"""Small models to pre-train, each of a family that Hugging Face knows too."""

from typing import Any

from xlingjax.errors import InputError
from xlingjax.models.config import TransformerConfig
from xlingjax.models.families import FAMILIES

OBJECTIVE = {"bloom": "causal", "xglm": "causal", "xlm_roberta": "masked"}


def small_config(
    family: str = "bloom", layers: int = 4, width: int = 96, heads: int = 4, length: int = 512
) -> TransformerConfig:
    """A model of a family, MLP four times as wide as the residual stream, embeddings tied.

    Args:
        family: "bloom" (ALiBi), "xglm" (sinusoidal positions) or "xlm_roberta" (encoder, masked
        LM).
        layers, width, heads: L, D and query heads.
        length: longest sentence an encoder reads; decoders have no limit.

    Returns:
        The config; its `vocab_size` is 1 until `pretrain` puts the tokenizer's there.

    Raises:
        InputError: unknown family, or a width the heads do not divide.

    >>> small_config("xglm", width=64).positions
    'sinusoidal'
    """
    options: dict[str, Any]
    if family == "bloom":
        options = {"vocab_size": 1, "n_layer": layers, "hidden_size": width, "n_head": heads}
    elif family == "xglm":
        options = {
            "vocab_size": 1,
            "num_layers": layers,
            "d_model": width,
            "ffn_dim": 4 * width,
            "attention_heads": heads,
        }
    elif family == "xlm_roberta":
        options = {
            "vocab_size": 1,
            "num_hidden_layers": layers,
            "hidden_size": width,
            "type_vocab_size": 1,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "pad_token_id": 1,
            "max_position_embeddings": length + 2,
            "layer_norm_eps": 1e-5,
            "architectures": ["XLMRobertaForMaskedLM"],
        }
    else:
        raise InputError(
            f"family {family!r} cannot be pre-trained; choose one of {', '.join(OBJECTIVE)}"
        )
    return FAMILIES[family].read_config(options)
