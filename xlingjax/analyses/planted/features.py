"""A transformer, a dictionary and treebanks in which it is known which latent carries which value where.

Words of each language have a number and a tense; a word's embedding is noise, plus one direction if it is plural and
one if it is past. Languages of the shared group have these directions in common, every other language has its own. The
transformer is random with small weights, so that directions pass through its layers; the dictionary has a latent for
each direction, which takes all of it away, and latents as active that read nothing but noise.
"""

from typing import NamedTuple

import jax
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from xlingjax.corpora.words import Treebank
from xlingjax.models import Model, TransformerConfig, init_params
from xlingjax.sae import Dictionary, DictionaryConfig, init_dictionary

SPECIAL = ("<pad>", "<s>", "<unk>")
VALUES = (("Number", "Plur", "Sing"), ("Tense", "Past", "Pres"))
SCALE = 50.0  # of the embeddings; their table is as small as a random one, and so are logits
NOISE, JITTER = 1.5, 0.2  # sd of a noise unit, and along the planted directions
ROWS = 1024  # vocabularies are filled up to a multiple of it, for equal programs


class Planted(NamedTuple):
    """What was planted.

    Attributes:
        carriers: int[V, G], the latent of "Plur" and of "Past" in each language.
    """

    model: Model
    dictionary: Dictionary
    bank: Treebank
    carriers: np.ndarray


def plant_features(
    shared: int = 3, alone: int = 1, strength: float = 3.0, sentences: int = 90, words: int = 6, documents: int = 45,
    latents: int = 96, width: int = 48, layers: int = 3, seed: int = 0,
) -> Planted:
    """A world of `shared` + `alone` languages.

    Args:
        shared: languages that have the directions in common. alone: others, each with its own.
        strength: of a direction in the words that have the value; 0 plants nothing.
        sentences: of a language, in `documents` that all languages share. words: of a sentence, each said once.
        latents: of the dictionary, which reads the first layer.
    """
    rng = np.random.default_rng([seed, 83])
    languages = [f"qa{letter}" for letter in "abcdefgh"[:shared + alone]]
    group = np.array([0] * shared + list(range(1, alone + 1)))
    count = sentences * words
    texts = list(SPECIAL) + [f"{name}{i}" for name in languages for i in range(count)]
    has = rng.random((len(VALUES), len(languages), count)) < 0.5

    basis = np.linalg.qr(np.concatenate([np.ones((1, width)), rng.standard_normal((width - 1, width))]).T)[0].T
    number = len(VALUES) * (alone + 1)
    planted, noise = basis[1:1 + number], basis[1 + number:]
    embedding = rng.standard_normal((-(-len(texts) // ROWS) * ROWS, len(noise))) * NOISE @ noise
    embedding += rng.standard_normal((len(embedding), number)) * JITTER @ planted
    of = np.arange(len(VALUES))[:, None] * (alone + 1) + group
    for v in range(len(VALUES)):
        for g in range(len(languages)):
            start = len(SPECIAL) + g * count
            embedding[start:start + count] += strength * has[v, g][:, None] * planted[of[v, g]]
    config = TransformerConfig(vocab_size=len(embedding), layers=layers, width=width, heads=4, mlp_width=2 * width,
                               embed_scale=SCALE)
    params = jax.tree.map(np.array, init_params(config, jax.random.key(seed)))
    params["embed"]["tokens"]["embedding"] = (embedding / SCALE).astype(np.float32)

    places = rng.permutation(latents)
    rows = rng.standard_normal((latents, len(noise))) @ noise
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[places[:number]] = planted
    coder = init_dictionary(DictionaryConfig("jumprelu", width, latents), jax.random.key(seed))
    coder["decoder"]["kernel"] = rows.astype(np.float32)
    coder["encoder"]["kernel"] = rows.T.astype(np.float32)
    threshold = np.full(latents, 0.3)
    threshold[places[:number]] = max(strength / 2, 3 * JITTER)
    coder["threshold"] = threshold.astype(np.float32)
    dictionary = Dictionary(jax.tree.map(jax.numpy.asarray, coder), DictionaryConfig("jumprelu", width, latents),
                            "resid", 0, model="planted")

    said = np.array(texts[len(SPECIAL):]).reshape(len(languages), sentences, words)
    lines = [" ".join(line) for part in said for line in part]
    ends = [np.cumsum([len(word) + 1 for word in line]) - 1 for part in said for line in part]
    flat = said.reshape(-1)
    stop = np.concatenate(ends)
    document = np.char.add("d", (np.arange(sentences) * documents // sentences).astype(str))
    bank = Treebank(
        tuple(lines), np.repeat(languages, sentences), np.tile(document, len(languages)),
        np.repeat(np.arange(len(lines)), words), np.stack([stop - np.char.str_len(flat), stop], 1), flat,
        {feature: np.where(has[v].reshape(-1), on, off) for v, (feature, on, off) in enumerate(VALUES)})
    model = Model(jax.device_put(params), config, tokenizer=_tokenizer(texts), name="planted")
    return Planted(model, dictionary, bank, places[of])


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """One token a word, after `<s>`."""
    backend = Tokenizer(models.WordLevel({text: i for i, text in enumerate(texts)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", unk_token="<unk>")
