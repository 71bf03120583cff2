"""T5 and mT5: encoder-decoders with biases by distance, root-mean-square norms and no other biases."""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.entry import Decoder, Entry, Family, linear
from xlingjax.models.families.options import Options

ACTIVATIONS = {"gated-gelu": (True, "gelu_tanh"), "relu": (False, "relu"), "gated-silu": (True, "silu")}


def _config(hf: Mapping[str, Any], layers: str, **more: Any) -> TransformerConfig:
    options = Options(
        hf, "T5", only={"is_encoder_decoder": True},
        ignored=("initializer_factor", "dropout_rate", "dense_act_fn", "is_gated_act", "n_positions", "output_past",
                 "num_layers", "num_decoder_layers", "is_decoder", "scalable_attention"))  # fmt: skip
    kinds = {name: name for name in ACTIVATIONS}
    gated, activation = ACTIVATIONS[options.choose("feed_forward_proj", choices=kinds, default="relu")]
    width, heads = options.read("d_model"), options.read("num_heads")
    size = options.read("d_kv")
    # What T5 1.0 does where its head is the embedding, and what a newer config.json says in so many words.
    tied = options.read("tie_word_embeddings", default=True)
    scaled = options.read("scale_decoder_outputs", default=tied and hf["model_type"] == "t5")
    if more.get("cross"):
        more |= {"tied": tied, "logit_scale": width**-0.5 if scaled else 1.0}
    config = TransformerConfig(
        vocab_size=options.read("vocab_size"),
        layers=options.read(layers, "num_layers"),
        width=width,
        heads=heads,
        head_size=0 if size * heads == width else size,
        mlp_width=options.read("d_ff"),
        positions="relative",
        relative_buckets=options.read("relative_attention_num_buckets", default=32),
        relative_distance=options.read("relative_attention_max_distance", default=128),
        norm="rms",
        norm_epsilon=options.read("layer_norm_epsilon", default=1e-6),
        attention_bias=False,
        attention_scale=1.0,
        mlp_bias=False,
        gated=gated,
        activation=activation,
        **more,
    )
    options.finish()
    return config


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """The encoder's config from T5's."""
    return _config(hf, "num_layers", causal=False, head="")


def read_decoder(hf: Mapping[str, Any]) -> TransformerConfig:
    """The decoder's config from T5's."""
    return _config(hf, "num_decoder_layers", cross=True)


def _stack(config: TransformerConfig, name: str) -> tuple[Entry, ...]:
    """The tensors of an encoder or a decoder without the token embedding."""
    layer = f"{name}.block.{{layer}}.layer"
    mlp = f"{layer}.{1 + config.cross}"
    ups = {"gate": "wi_0", "up": "wi_1"} if config.gated else {"up": "wi"}
    found = [
        Entry("relative/bias/embedding", f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        Entry("layers/attn_norm/scale", f"{layer}.0.layer_norm.weight"),
        Entry("layers/mlp_norm/scale", f"{mlp}.layer_norm.weight"),
        Entry("norm/scale", f"{name}.final_layer_norm.weight"),
    ]
    for part in ("q", "k", "v", "out"):
        theirs = "o" if part == "out" else part
        found += linear(f"layers/attn/{part}", f"{layer}.0.SelfAttention.{theirs}", False)
        if config.cross:
            found += linear(f"layers/cross/{part}", f"{layer}.1.EncDecAttention.{theirs}", False)
    if config.cross:
        found.append(Entry("layers/cross_norm/scale", f"{layer}.1.layer_norm.weight"))
    for part, theirs in {**ups, "down": "wo"}.items():
        found += linear(f"layers/mlp/{part}", f"{mlp}.DenseReluDense.{theirs}", False)
    return tuple(found)


def entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """The encoder's tensors."""
    return Entry("embed/tokens/embedding", "shared.weight"), *_stack(config, "encoder")


def decoder_entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """The decoder's tensors, with the head's where it is not the embedding."""
    head = () if config.tied else (Entry("head/kernel", "lm_head.weight", transpose=True),)
    return *_stack(config, "decoder"), *head


def _modules(name: str, cross: bool) -> dict[str, str]:
    layer = f"{name}.block.{{layer}}.layer"
    mlp = f"{layer}.{1 + cross}.DenseReluDense"
    attention = {f"attn.{part}": f"{layer}.0.SelfAttention.{theirs}" for part, theirs in (
        ("q", "q"), ("k", "k"), ("v", "v"), ("out", "o"))}
    more = {f"cross.{part}": f"{layer}.1.EncDecAttention.{theirs}" for part, theirs in (("q", "q"), ("out", "o"))}
    return attention | (more if cross else {}) | {
        "mlp.gate": f"{mlp}.wi_0", "mlp.up": f"{mlp}.wi_1", "mlp.down": f"{mlp}.wo"}


FAMILY = Family(
    name="t5",
    model_types=("t5", "mt5"),
    read_config=read_config,
    entries=entries,
    modules=_modules("encoder", False),
    unused=("decoder.*", "lm_head.weight", "encoder.embed_tokens.weight"),
    decoder=Decoder(read_decoder, decoder_entries, _modules("decoder", True)),
)
