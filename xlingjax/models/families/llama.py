"""Llama 2 to 3.x and Mistral: rotary positions, root-mean-square norms, gated MLPs, shared key heads.

`entries` and `modules` follow from the config alone and serve every family that names its tensors
as Llama does.
"""

from collections.abc import Mapping
from typing import Any

from xlingjax.models.config import TransformerConfig
from xlingjax.models.families.entry import Entry, Family, layer_norm, linear
from xlingjax.models.families.options import ACTIVATIONS, Options
from xlingjax.models.families.rotary import read_rotary, read_window

MODULES = {
    "attn.q": "model.layers.{layer}.self_attn.q_proj",
    "attn.k": "model.layers.{layer}.self_attn.k_proj",
    "attn.v": "model.layers.{layer}.self_attn.v_proj",
    "attn.out": "model.layers.{layer}.self_attn.o_proj",
    "mlp.gate": "model.layers.{layer}.mlp.gate_proj",
    "mlp.up": "model.layers.{layer}.mlp.up_proj",
    "mlp.down": "model.layers.{layer}.mlp.down_proj",
}
UNUSED = ("lm_head.weight", "model.layers.*.self_attn.rotary_emb.inv_freq")


def read_shape(options: Options) -> dict[str, Any]:
    """What all these families spell alike, but for positions and norms."""
    heads = options.read("num_attention_heads")
    width = options.read("hidden_size")
    size = options.read("head_dim", default=width // heads)
    return {
        "vocab_size": options.read("vocab_size"),
        "layers": options.read("num_hidden_layers"),
        "width": width,
        "heads": heads,
        "key_value_heads": options.read("num_key_value_heads", default=heads),
        "head_size": 0 if size * heads == width else size,
        "mlp_width": options.read("intermediate_size"),
        "gated": True,
        "mlp_bias": False,
        "activation": options.choose("hidden_act", choices=ACTIVATIONS, default="silu"),
    }


def read_config(hf: Mapping[str, Any]) -> TransformerConfig:
    """Our config from Llama's or Mistral's."""
    options = Options(hf, "Llama", only={"mlp_bias": False}, ignored=("max_position_embeddings", "pretraining_tp"))
    rotary, _ = read_rotary(options)
    config = TransformerConfig(
        **read_shape(options),
        **rotary,
        max_length=read_window(options),
        norm="rms",
        norm_epsilon=options.read("rms_norm_eps", default=1e-6),
        attention_bias=options.read("attention_bias", default=False),
        tied=options.read("tie_word_embeddings", default=False),
    )
    options.finish()
    return config


def entries(config: TransformerConfig) -> tuple[Entry, ...]:
    """The tensors of a decoder with Llama's names."""
    layer = "model.layers.{layer}"
    if config.norm_place == "inside":
        norms = {"attn": f"{layer}.post_attention_layernorm", "mlp": f"{layer}.post_feedforward_layernorm"}
    else:
        norms = {"attn": f"{layer}.input_layernorm", "mlp": f"{layer}.post_attention_layernorm"}
    names = {f"layers/{part}_norm": name for part, name in norms.items()} | {"norm": "model.norm"}
    if config.parallel == "one_norm":
        del names["layers/mlp_norm"]
    if config.head_norm:
        names |= {f"layers/attn/{part}_norm": f"{layer}.self_attn.{part}_norm" for part in "qk"}
    found: list[Entry] = [Entry("embed/tokens/embedding", "model.embed_tokens.weight")]
    for ours, theirs in names.items():
        if config.norm == "layer":
            found += layer_norm(ours, theirs)
        elif config.norm != "layer_bare":
            found.append(Entry(f"{ours}/scale", f"{theirs}.weight"))
    out_bias = config.attention_bias if config.out_bias is None else config.out_bias
    for part in "qkv":
        found += linear(f"layers/attn/{part}", f"{layer}.self_attn.{part}_proj", config.attention_bias)
    found += linear("layers/attn/out", f"{layer}.self_attn.o_proj", out_bias)
    for part in ("gate", "up", "down"):
        found += linear(f"layers/mlp/{part}", f"{layer}.mlp.{part}_proj", config.mlp_bias)
    if not config.tied:
        found.append(Entry("head/kernel", "lm_head.weight", transpose=True))
    return tuple(found)


FAMILY = Family(
    name="llama",
    model_types=("llama", "mistral"),
    read_config=read_config,
    entries=entries,
    modules=MODULES,
    prefixes=("model.",),
    unused=UNUSED,
)
