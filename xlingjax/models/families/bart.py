"""BART, mBART, Blenderbot and its small form: encoder-decoders with learned positions."""

import math
from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.entry import Decoder, Entry, Family, layer_norm, linear
from xlingjax.models.families.options import ACTIVATIONS, Options

# model_type -> where norms stand, whether one follows the embedding, row of the first position.
KINDS = {"bart": ("after", True, 2), "mbart": ("before", True, 2), "blenderbot": ("before", False, 0),
         "blenderbot-small": ("after", True, 0)}


def _config(hf: Mapping[str, Any], side: str, **more: Any) -> TransformerConfig:
    place, embed_norm, offset = KINDS[hf["model_type"]]
    options = Options(
        hf, "BART",
        only={"is_encoder_decoder": True, "tie_word_embeddings": True, "normalize_before": place == "before",
              "add_final_layer_norm": place == "before", "normalize_embedding": embed_norm, "add_bias_logits": False,
              "static_position_embeddings": False, "extra_pos_embeddings": offset},
        ignored=("num_hidden_layers", "classif_dropout", "encoder_layerdrop", "decoder_layerdrop", "classifier_dropout",
                 "encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads",
                 "encoder_ffn_dim", "decoder_ffn_dim", "unk_token_id", "is_decoder", "encoder_no_repeat_ngram_size",
                 "extra_layer_norm", "force_bos_token_to_be_generated", "layernorm_variant", "variant",
                 "do_blenderbot_90_layernorm", "forced_bos_token_id"))  # fmt: skip
    width = options.read("d_model", "hidden_size")
    # Blenderbot-small's decoder norms its tokens before it adds positions, and Hugging Face does not scale them.
    tokens_normed = hf["model_type"] == "blenderbot-small" and side == "decoder"
    scaled = options.read("scale_embedding", default=False) and not tokens_normed
    config = TransformerConfig(
        vocab_size=options.read("vocab_size"),
        layers=options.read(f"{side}_layers"),
        width=width,
        heads=options.read(f"{side}_attention_heads"),
        mlp_width=options.read(f"{side}_ffn_dim"),
        positions="learned",
        position_offset=offset,
        max_length=options.read("max_position_embeddings", default=1024),
        embed_scale=math.sqrt(width) if scaled else 1.0,
        embed_norm=embed_norm,
        norm_tokens=tokens_normed,
        norm_place=place,
        final_norm=place == "before",
        activation=options.choose("activation_function", choices=ACTIVATIONS, default="gelu"),
        **more,
    )
    options.finish()
    return config


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """The encoder's config."""
    return _config(hf, "encoder", causal=False, head="")


def read_decoder(hf: Mapping[str, Any]) -> TransformerConfig:
    """The decoder's config."""
    return _config(hf, "decoder", cross=True)


def _stack(config: TransformerConfig, side: str) -> tuple[Entry, ...]:
    """The tensors of an encoder or a decoder without the token embedding."""
    top, layer = f"model.{side}", f"model.{side}.layers.{{layer}}"
    found: list[Entry] = [Entry("embed/positions/embedding", f"{top}.embed_positions.weight")]
    norms = {"layers/attn_norm": f"{layer}.self_attn_layer_norm", "layers/mlp_norm": f"{layer}.final_layer_norm"}
    if config.cross:
        norms["layers/cross_norm"] = f"{layer}.encoder_attn_layer_norm"
    if config.embed_norm:
        norms["embed/norm"] = f"{top}.layernorm_embedding"
    if config.final_norm:
        norms["norm"] = f"{top}.layer_norm"
    for ours, theirs in norms.items():
        found += layer_norm(ours, theirs)
    for part in ("q", "k", "v", "out"):
        found += linear(f"layers/attn/{part}", f"{layer}.self_attn.{part}_proj")
        if config.cross:
            found += linear(f"layers/cross/{part}", f"{layer}.encoder_attn.{part}_proj")
    return *found, *linear("layers/mlp/up", f"{layer}.fc1"), *linear("layers/mlp/down", f"{layer}.fc2")


def entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """The encoder's tensors."""
    return Entry("embed/tokens/embedding", "model.shared.weight"), *_stack(config, "encoder")


def decoder_entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """The decoder's tensors."""
    return _stack(config, "decoder")


def _modules(side: str, cross: bool) -> dict[str, str]:
    layer = f"model.{side}.layers.{{layer}}"
    attention = {f"attn.{part}": f"{layer}.self_attn.{part}_proj" for part in ("q", "k", "v", "out")}
    more = {f"cross.{part}": f"{layer}.encoder_attn.{part}_proj" for part in ("q", "out")}
    return attention | (more if cross else {}) | {"mlp.up": f"{layer}.fc1", "mlp.down": f"{layer}.fc2"}


FAMILY = Family(
    name="bart",
    model_types=tuple(KINDS),
    read_config=read_config,
    entries=entries,
    modules=_modules("encoder", False),
    prefixes=("model.",),
    unused=("model.decoder.*", "lm_head.weight", "model.encoder.embed_tokens.weight", "final_logits_bias"),
    decoder=Decoder(read_decoder, decoder_entries, _modules("decoder", True), zero=("final_logits_bias",)),
)
