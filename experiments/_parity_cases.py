"""Tiny random models of every family: configs that Hugging Face and we both build, and where it holds each site."""

import dataclasses
from typing import Any

Sites = dict[str, tuple[str, str | int]]  # ours -> (module, "in", "out" or an index into its output)

BLOOM_SITES: Sites = {
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
XGLM_SITES: Sites = {
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
ROBERTA_SITES: Sites = {
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
GPT2_SITES: Sites = {
    "attn.in": ("transformer.h.{layer}.attn.c_attn", "in"),
    "attn.qkv": ("transformer.h.{layer}.attn.c_attn", "out"),
    "attn.pattern": ("transformer.h.{layer}.attn", 1),
    "attn.heads": ("transformer.h.{layer}.attn.c_proj", "in"),
    "attn.out": ("transformer.h.{layer}.attn.c_proj", "out"),
    "resid.mid": ("transformer.h.{layer}.ln_2", "in"),
    "mlp.in": ("transformer.h.{layer}.mlp.c_fc", "in"),
    "mlp.up": ("transformer.h.{layer}.mlp.c_fc", "out"),
    "mlp.act": ("transformer.h.{layer}.mlp.c_proj", "in"),
    "mlp.down": ("transformer.h.{layer}.mlp.c_proj", "out"),
    "resid": ("transformer.h.{layer}", "out"),
    "embed": ("transformer.h.0.ln_1", "in"),
}
NEOX_SITES: Sites = {
    "attn.in": ("gpt_neox.layers.{layer}.attention.query_key_value", "in"),
    "attn.qkv": ("gpt_neox.layers.{layer}.attention.query_key_value", "out"),
    "attn.pattern": ("gpt_neox.layers.{layer}.attention", 1),
    "attn.heads": ("gpt_neox.layers.{layer}.attention.dense", "in"),
    "attn.out": ("gpt_neox.layers.{layer}.attention.dense", "out"),
    "mlp.in": ("gpt_neox.layers.{layer}.mlp.dense_h_to_4h", "in"),
    "mlp.up": ("gpt_neox.layers.{layer}.mlp.dense_h_to_4h", "out"),
    "mlp.act": ("gpt_neox.layers.{layer}.mlp.dense_4h_to_h", "in"),
    "mlp.down": ("gpt_neox.layers.{layer}.mlp.dense_4h_to_h", "out"),
    "resid": ("gpt_neox.layers.{layer}", "out"),
    "embed": ("gpt_neox.embed_in", "out"),
}
LLAMA_SITES: Sites = {
    "attn.in": ("model.layers.{layer}.self_attn.q_proj", "in"),
    "attn.q": ("model.layers.{layer}.self_attn.q_proj", "out"),
    "attn.k": ("model.layers.{layer}.self_attn.k_proj", "out"),
    "attn.v": ("model.layers.{layer}.self_attn.v_proj", "out"),
    "attn.pattern": ("model.layers.{layer}.self_attn", 1),
    "attn.heads": ("model.layers.{layer}.self_attn.o_proj", "in"),
    "attn.out": ("model.layers.{layer}.self_attn.o_proj", "out"),
    "resid.mid": ("model.layers.{layer}.post_attention_layernorm", "in"),
    "mlp.in": ("model.layers.{layer}.mlp.up_proj", "in"),
    "mlp.gate": ("model.layers.{layer}.mlp.gate_proj", "out"),
    "mlp.up": ("model.layers.{layer}.mlp.up_proj", "out"),
    "mlp.act": ("model.layers.{layer}.mlp.down_proj", "in"),
    "mlp.down": ("model.layers.{layer}.mlp.down_proj", "out"),
    "resid": ("model.layers.{layer}", "out"),
    "embed": ("model.embed_tokens", "out"),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One tiny model.

    `sites` says where Hugging Face holds each site.
    """

    name: str
    config: str  # class of transformers
    model: str  # class of transformers
    options: dict[str, Any]
    sites: Sites
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


def _bert(name: str, **options: Any) -> Case:
    small = {"vocab_size": 197, "hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 5,
             "intermediate_size": 44, "max_position_embeddings": 522, "layer_norm_eps": 1e-5}  # fmt: skip
    sites: Sites = {
        site: (module.replace("roberta.", "bert."), place) for site, (module, place) in ROBERTA_SITES.items()}
    return Case(
        name, "BertConfig", "BertForMaskedLM", small | options, sites, "bert.encoder.layer.2.output.LayerNorm")


def _gpt2(name: str, **options: Any) -> Case:
    small = {"vocab_size": 201, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 600, "bos_token_id": 1,
             "eos_token_id": 2, "pad_token_id": 3}  # fmt: skip
    return Case(name, "GPT2Config", "GPT2LMHeadModel", small | options, GPT2_SITES, "transformer.ln_f")


def _neox(name: str, part: float = 0.25, **options: Any) -> Case:
    small = {"vocab_size": 203, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
             "intermediate_size": 56, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
             "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": part},
             }  # fmt: skip
    sites = dict(NEOX_SITES)
    if not options.get("use_parallel_residual", True):
        sites["resid.mid"] = ("gpt_neox.layers.{layer}.post_attention_layernorm", "in")
    return Case(
        name, "GPTNeoXConfig", "GPTNeoXForCausalLM", small | options, sites, "gpt_neox.final_layer_norm")


def _llama(name: str, kind: str = "Llama", mid: str | None = "post_attention_layernorm", **options: Any) -> Case:
    """A decoder with Llama's names; `mid`: the module that reads `resid.mid`, if there is such a site."""
    small = {"vocab_size": 205, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2,
             "pad_token_id": 3}  # fmt: skip
    sites = {site: at for site, at in LLAMA_SITES.items() if site != "resid.mid"}
    if mid:
        sites["resid.mid"] = (f"model.layers.{{layer}}.{mid}", "in")
    return Case(name, f"{kind}Config", f"{kind}ForCausalLM", small | options, sites, "model.norm")


SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64, "rope_theta": 1000.0}  # fmt: skip
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
    _bert("mbert"),
    _gpt2("gpt2"),
    _gpt2("gpt2-relu-narrow", activation_function="relu", n_inner=40),
    _neox("pythia"),
    _neox("neox-in-turn", part=1.0, use_parallel_residual=False, attention_bias=False, hidden_act="relu"),
    _llama("llama-2", num_key_value_heads=4),
    _llama("llama-3.1", rope_parameters=SCALED, head_dim=10, tie_word_embeddings=True, attention_bias=True),
    _llama("mistral", kind="Mistral", sliding_window=None),
    _llama("qwen-2", kind="Qwen2"),
    _llama("qwen-3", kind="Qwen3", head_dim=12),
    _llama("aya", kind="Cohere", mid=None, logit_scale=0.7),
    _llama("olmo", kind="Olmo", clip_qkv=0.8),
    _llama("olmo-2", kind="Olmo2", mid="mlp.up_proj"),
)
