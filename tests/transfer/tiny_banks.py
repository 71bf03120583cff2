"""A body with banks, of made-up words; seconds at most."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from xlingjax.models.config import TransformerConfig
from xlingjax.models.model import Model
from xlingjax.models.transformer import init_params

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ENCODER = TransformerConfig(
    vocab_size=20, layers=2, width=16, heads=2, mlp_width=32, positions="learned", max_length=24, token_types=1,
    norm_place="after", embed_norm=True, final_norm=False, causal=False, head="masked", bare_first=True)
DECODER = TransformerConfig(vocab_size=20, layers=2, width=16, heads=2, mlp_width=32, tied=False)


def tokenizer(letter: str, words: int = 15, special=SPECIAL) -> PreTrainedTokenizerFast:
    """Words "a0", "a1", ...; the special tokens come first."""
    vocabulary = {piece: i for i, piece in enumerate([*special, *(f"{letter}{i}" for i in range(words))])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=special[3]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A {special[2]}", special_tokens=[(special[0], 0), (special[2], 2)])
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=backend, **dict(zip(names, special)))


def model(config=ENCODER, letter: str = "a", seed: int = 0) -> Model:
    """A random model, its norms and biases random too."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    drawn = lambda leaf: jnp.asarray(0.1 * random.standard_normal(leaf.shape), jnp.float32)
    scaled = lambda path, leaf: drawn(leaf) + (path[-1].key == "scale")  # norms about 1
    params = jax.tree_util.tree_map_with_path(scaled, shapes)
    return Model(params, config, tokenizer(letter, config.vocab_size - 5), name=letter)


def batch(rows: int = 4, length: int = 12, vocabulary: int = 20) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    tokens = random.integers(5, vocabulary, (rows, length)).astype(np.int32)
    tokens[:, 0] = 0
    return {"tokens": tokens, "mask": np.arange(length)[None] < random.integers(6, length + 1, rows)[:, None]}


def with_adapters(config: TransformerConfig, width: int = 4) -> TransformerConfig:
    return dataclasses.replace(config, adapter_width=width)
