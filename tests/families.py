"""Tiny random models of every family: the configs that the oracle and we both build."""

import dataclasses
from typing import Any

BLOOM_SITES = {
    "attn.in": ("transformer.h.{layer}.self_attention.query_key_value", "in"),
    "attn.qkv": ("transformer.h.{layer}.self_attention.query_key_value", "out"),
    "attn.pattern": ("transformer.h.{layer}.self_attention", 1),
    "attn.heads": ("transformer.h.{layer}.self_attention.dense", "in"),
    "attn.out": ("transformer.h.{layer}.self_attention.dense", "out"),
    "resid.mid": ("transformer.h.{layer}.post_attention_layernorm", "in"),
    "mlp.in": ("transformer.h.{layer}.mlp.dense_h_to_4h", "in"),
    "mlp.up": ("transformer.h.{layer}.mlp.dense_h_to_4h", "out"),
    "mlp.act": ("transformer.h.{layer}.mlp.dense_4h_to_h", "in"),
    "mlp.down": ("transformer.h.{layer}.mlp.dense_4h_to_h", "out"),
    "resid": ("transformer.h.{layer}", 0),
    "embed": ("transformer.h.0.input_layernorm", "in"),
}
XGLM_SITES = {
    "attn.in": ("model.layers.{layer}.self_attn_layer_norm", "out"),
    "attn.q": ("model.layers.{layer}.self_attn.q_proj", "out"),
    "attn.k": ("model.layers.{layer}.self_attn.k_proj", "out"),
    "attn.v": ("model.layers.{layer}.self_attn.v_proj", "out"),
    "attn.pattern": ("model.layers.{layer}.self_attn", 1),
    "attn.heads": ("model.layers.{layer}.self_attn.out_proj", "in"),
    "attn.out": ("model.layers.{layer}.self_attn.out_proj", "out"),
    "resid.mid": ("model.layers.{layer}.final_layer_norm", "in"),
    "mlp.in": ("model.layers.{layer}.fc1", "in"),
    "mlp.up": ("model.layers.{layer}.fc1", "out"),
    "mlp.act": ("model.layers.{layer}.fc2", "in"),
    "mlp.down": ("model.layers.{layer}.fc2", "out"),
    "resid": ("model.layers.{layer}", "out"),
    "embed": ("model.layers.0.self_attn_layer_norm", "in"),
}
ROBERTA_SITES = {
    "attn.in": ("roberta.encoder.layer.{layer}.attention.self.query", "in"),
    "attn.q": ("roberta.encoder.layer.{layer}.attention.self.query", "out"),
    "attn.k": ("roberta.encoder.layer.{layer}.attention.self.key", "out"),
    "attn.v": ("roberta.encoder.layer.{layer}.attention.self.value", "out"),
    "attn.pattern": ("roberta.encoder.layer.{layer}.attention.self", 1),
    "attn.heads": ("roberta.encoder.layer.{layer}.attention.output.dense", "in"),
    "attn.out": ("roberta.encoder.layer.{layer}.attention.output.dense", "out"),
    "resid.mid": ("roberta.encoder.layer.{layer}.attention.output.LayerNorm", "out"),
    "mlp.in": ("roberta.encoder.layer.{layer}.intermediate.dense", "in"),
    "mlp.up": ("roberta.encoder.layer.{layer}.intermediate.dense", "out"),
    "mlp.act": ("roberta.encoder.layer.{layer}.output.dense", "in"),
    "mlp.down": ("roberta.encoder.layer.{layer}.output.dense", "out"),
    "resid": ("roberta.encoder.layer.{layer}.output.LayerNorm", "out"),
    "embed": ("roberta.embeddings.LayerNorm", "out"),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One tiny model.

    `sites` says where Hugging Face holds each site: (module, "in" | "out" | index into its output).
    """

    name: str
    config: str  # class of transformers
    model: str  # class of transformers
    options: dict[str, Any]
    sites: dict[str, tuple[str, str | int]]
    norm: str  # Hugging Face's final norm, or its last block

    def __str__(self) -> str:
        return self.name


def _bloom(name: str, **options: Any) -> Case:
    small = {
        "vocab_size": 211,
        "n_layer": 3,
        "pad_token_id": 3,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return Case(
        name, "BloomConfig", "BloomForCausalLM", small | options, BLOOM_SITES, "transformer.ln_f"
    )


def _xglm(name: str, **options: Any) -> Case:
    small = {"vocab_size": 203, "num_layers": 3, "d_model": 24, "ffn_dim": 56, "attention_heads": 3,
             "max_position_embeddings": 600}  # fmt: skip
    names = ("XGLMConfig", "XGLMForCausalLM")
    return Case(name, *names, small | options, XGLM_SITES, "model.layer_norm")


def _roberta(name: str, kind: str = "XLMRoberta", **options: Any) -> Case:
    small = {"vocab_size": 197, "hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 5,
             "intermediate_size": 44, "max_position_embeddings": 522, "type_vocab_size": 1,
             "layer_norm_eps": 1e-5}  # fmt: skip
    return Case(name, f"{kind}Config", f"{kind}ForMaskedLM", small | options, ROBERTA_SITES,
                "roberta.encoder.layer.2.output.LayerNorm")  # fmt: skip


CASES = (
    _bloom("bloom-6-heads", hidden_size=36, n_head=6),
    _bloom("bloom-8-heads", hidden_size=32, n_head=8, layer_norm_epsilon=1e-3),
    _bloom("bloom-14-heads", hidden_size=28, n_head=14, n_layer=2),
    _xglm("xglm"),
    _xglm("xglm-unscaled-relu", scale_embedding=False, activation_function="relu", num_layers=2),
    _roberta("xlm-roberta"),
    _roberta(
        "xlm-roberta-untied-relu", tie_word_embeddings=False, hidden_act="relu", num_hidden_layers=3
    ),
    _roberta("roberta-2-types", kind="Roberta", type_vocab_size=2, pad_token_id=0),
)
