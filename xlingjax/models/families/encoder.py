"""What BERT and RoBERTa have in common: shapes, embeddings, and blocks with a norm after each addition."""

from typing import Any

from xlingjax.models.families.entry import Entry, layer_norm, linear
from xlingjax.models.families.options import Options


def read_shape(options: Options) -> dict[str, Any]:
    """All of a config but its head, its activation and where its positions begin."""
    return {
        "vocab_size": options.read("vocab_size"),
        "layers": options.read("num_hidden_layers"),
        "width": options.read("hidden_size"),
        "heads": options.read("num_attention_heads"),
        "mlp_width": options.read("intermediate_size"),
        "positions": "learned",
        "token_types": options.read("type_vocab_size", default=2),
        "embed_norm": True,
        "norm_place": "after",
        "norm_epsilon": options.read("layer_norm_eps", default=1e-12),
        "final_norm": False,
        "causal": False,
    }


def encoder_entries(prefix: str) -> tuple[Entry, ...]:
    """All tensors but the head's, under names that begin with `prefix`."""
    embeddings, layer = f"{prefix}embeddings", f"{prefix}encoder.layer.{{layer}}"
    return (
        Entry("embed/tokens/embedding", f"{embeddings}.word_embeddings.weight"),
        Entry("embed/positions/embedding", f"{embeddings}.position_embeddings.weight"),
        Entry("embed/types/embedding", f"{embeddings}.token_type_embeddings.weight"),
        *layer_norm("embed/norm", f"{embeddings}.LayerNorm"),
        *linear("layers/attn/q", f"{layer}.attention.self.query"),
        *linear("layers/attn/k", f"{layer}.attention.self.key"),
        *linear("layers/attn/v", f"{layer}.attention.self.value"),
        *linear("layers/attn/out", f"{layer}.attention.output.dense"),
        *layer_norm("layers/attn_norm", f"{layer}.attention.output.LayerNorm"),
        *linear("layers/mlp/up", f"{layer}.intermediate.dense"),
        *linear("layers/mlp/down", f"{layer}.output.dense"),
        *layer_norm("layers/mlp_norm", f"{layer}.output.LayerNorm"),
    )


def encoder_modules(prefix: str) -> dict[str, str]:
    """Site -> module."""
    layer = f"{prefix}encoder.layer.{{layer}}"
    return {
        "attn.q": f"{layer}.attention.self.query",
        "attn.k": f"{layer}.attention.self.key",
        "attn.v": f"{layer}.attention.self.value",
        "attn.out": f"{layer}.attention.output.dense",
        "mlp.up": f"{layer}.intermediate.dense",
        "mlp.down": f"{layer}.output.dense",
    }
