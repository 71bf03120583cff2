"""Configs as the hub has them, in old and new spellings, give models of the published size; others are refused."""

import math

import jax
import pytest

from xlingjax.errors import InputError
from xlingjax.models import init_params
from xlingjax.models.families import family_of

COMMON = {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.02, "torch_dtype": "bfloat16", "use_cache": True,
          "transformers_version": "4.40.0", "attention_dropout": 0.0}  # fmt: skip
LLAMA3 = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}


def decoder(kind: str, layers: int, width: int, heads: int, keys: int, mlp: int, vocabulary: int, **more) -> dict:
    return COMMON | {"model_type": kind, "num_hidden_layers": layers, "hidden_size": width,
                     "num_attention_heads": heads, "num_key_value_heads": keys, "intermediate_size": mlp,
                     "vocab_size": vocabulary, "hidden_act": "silu", "max_position_embeddings": 4096,
                     **more}  # fmt: skip


# name -> (config.json, parameters that its publisher counts, tied ones once)
PUBLISHED = {
    "gpt2": (COMMON | {
        "model_type": "gpt2", "activation_function": "gelu_new", "attn_pdrop": 0.1, "n_ctx": 1024, "n_embd": 768,
        "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257, "summary_type": "cls_index",
        "layer_norm_epsilon": 1e-5, "task_specific_params": {"text-generation": {"do_sample": True}}}, 124_439_808),
    "bert-base-multilingual-cased": (COMMON | {
        "model_type": "bert", "architectures": ["BertForMaskedLM"], "directionality": "bidi", "hidden_act": "gelu",
        "hidden_size": 768, "intermediate_size": 3072, "max_position_embeddings": 512, "num_attention_heads": 12,
        "num_hidden_layers": 12, "pad_token_id": 0, "pooler_fc_size": 768, "type_vocab_size": 2, "vocab_size": 119_547,
        "layer_norm_eps": 1e-12}, 177_974_523),
    "Llama-2-7b-hf": (decoder("llama", 32, 4096, 32, 32, 11_008, 32_000, rms_norm_eps=1e-5, rope_scaling=None,
                              pretraining_tp=1, tie_word_embeddings=False), 6_738_415_616),
    "Llama-3.1-8B": (decoder("llama", 32, 4096, 32, 8, 14_336, 128_256, rms_norm_eps=1e-5, rope_theta=500_000.0,
                             mlp_bias=False, rope_scaling=LLAMA3 | {"rope_type": "llama3"}), 8_030_261_248),
    "Llama-3.2-1B": (decoder("llama", 16, 2048, 32, 8, 8192, 128_256, rms_norm_eps=1e-5, head_dim=64,
                             tie_word_embeddings=True, rope_parameters=LLAMA3 | {
                                 "rope_type": "llama3", "rope_theta": 500_000.0}), 1_235_814_400),
    "Mistral-7B-v0.1": (decoder("mistral", 32, 4096, 32, 8, 14_336, 32_000, rms_norm_eps=1e-5, rope_theta=10_000.0,
                                sliding_window=4096, tie_word_embeddings=False), 7_241_732_096),
    "Qwen2.5-0.5B": (decoder("qwen2", 24, 896, 14, 2, 4864, 151_936, rms_norm_eps=1e-6, rope_theta=1_000_000.0,
                             max_window_layers=24, sliding_window=32_768, use_mrope=False, use_sliding_window=False,
                             tie_word_embeddings=True), 494_032_768),
    "Qwen3-0.6B": (decoder("qwen3", 28, 1024, 16, 8, 3072, 151_936, rms_norm_eps=1e-6, rope_theta=1_000_000,
                           head_dim=128, max_window_layers=28, sliding_window=None, use_sliding_window=False,
                           attention_bias=False, tie_word_embeddings=True), 596_049_920),
    "aya-23-8B": (decoder("cohere", 32, 4096, 32, 8, 14_336, 256_000, layer_norm_eps=1e-5, logit_scale=0.0625,
                          rope_theta=10_000, use_qk_norm=False), 8_028_033_024),
    "pythia-70m": (COMMON | {
        "model_type": "gpt_neox", "hidden_act": "gelu", "hidden_size": 512, "intermediate_size": 2048,
        "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "num_attention_heads": 8, "num_hidden_layers": 6,
        "rotary_emb_base": 10_000, "rotary_pct": 0.25, "tie_word_embeddings": False, "use_parallel_residual": True,
        "vocab_size": 50_304}, 70_426_624),
    "OLMo-1B-hf": (decoder("olmo", 16, 2048, 16, 16, 8192, 50_304, clip_qkv=None, rope_theta=10_000.0,
                           tie_word_embeddings=True), 1_176_764_416),
    "OLMo-2-1124-7B": (decoder("olmo2", 32, 4096, 32, 32, 11_008, 100_352, rms_norm_eps=1e-6, rope_theta=500_000,
                               rope_scaling=None, tie_word_embeddings=False), 7_298_617_344),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_gives_a_model_of_its_size(name) -> None:
    hf, wanted = PUBLISHED[name]
    config = family_of(hf).read_config(hf)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == wanted


def test_both_spellings_of_rotary_positions_are_one() -> None:
    old, new = PUBLISHED["Llama-3.1-8B"][0], PUBLISHED["Llama-3.2-1B"][0]
    read = lambda hf: family_of(hf).read_config(hf)
    assert read(old).rotary_scaling == read(new).rotary_scaling == (8.0, 1.0, 4.0, 8192.0)
    assert read(old).rotary_base == read(new).rotary_base == 500_000
    pythia = read(PUBLISHED["pythia-70m"][0])
    assert (pythia.rotary_units, pythia.rotary_base) == (16, 10_000)


def test_a_window_is_the_longest_sentence() -> None:
    read = lambda name: family_of(PUBLISHED[name][0]).read_config(PUBLISHED[name][0])
    assert read("Mistral-7B-v0.1").max_length == 4096 and read("Qwen2.5-0.5B").max_length == 0


@pytest.mark.parametrize(("name", "option", "value"), [
    ("gpt2", "scale_attn_by_inverse_layer_idx", True), ("gpt2", "activation_function", "mish"),
    ("gpt2", "add_cross_attention", True), ("bert-base-multilingual-cased", "is_decoder", True),
    ("bert-base-multilingual-cased", "hidden_act", "relu"),
    ("Llama-3.1-8B", "rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
    ("Llama-3.1-8B", "rope_scaling", {"rope_type": "llama3", "factor": 4.0}),
    ("Llama-3.1-8B", "rope_scaling", {"rope_type": "default", "mscale": 4.0}),
    ("Llama-2-7b-hf", "mlp_bias", True), ("Llama-2-7b-hf", "partial_quantization", 3),
    ("Qwen2.5-0.5B", "layer_types", ["linear_attention"]), ("Qwen3-0.6B", "num_experts", 8),
    ("aya-23-8B", "use_qk_norm", True), ("pythia-70m", "hidden_act", "mish"), ("OLMo-1B-hf", "qk_norm_type", "rms"),
    ("OLMo-2-1124-7B", "vocab_size", None)])  # fmt: skip
def test_an_option_that_is_not_honoured_is_named(name, option, value) -> None:
    hf = PUBLISHED[name][0] | {option: value}
    named = "rope_parameters" if option == "rope_scaling" else option
    with pytest.raises(InputError, match=named):
        family_of(hf).read_config(hf)
