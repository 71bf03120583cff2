"""What a whole sweep costs on paper: several models, all their checkpoints, every concept in every language.

Counts are exact (matrix products of the forward pass, sentences, bytes); hours follow from two rates, floating-point
operations and ranked responses a second, which the caller measured or assumes.
"""

import math
from typing import NamedTuple

import jax

from xlingjax.models.config import TransformerConfig
from xlingjax.models.placing import abstract_params
from xlingjax.models.taps import neuron_sites, site_shapes
from xlingjax.models.weights.fingerprint import leaf_name


class Work(NamedTuple):
    """What is to be traced.

    Attributes:
        concepts, languages: C and G.
        sentences: of each concept in each language, positives and negatives.
        tokens: of a sentence, on average.
        shared: whether all concepts are labelled on the same sentences.
    """

    concepts: int
    languages: int
    sentences: int
    tokens: float
    shared: bool

    @property
    def distinct(self) -> int:
        """Sentences that run through the model once."""
        return self.languages * self.sentences * (1 if self.shared else self.concepts)


class Cost(NamedTuple):
    """Of one checkpoint.

    Attributes:
        neurons: N.
        operations: floating-point, of the matrix products of all forward passes.
        ranked: responses that average precision sorts, each concept once.
        response_bytes: pooled float32 responses of all sentences.
        cell_bytes: those of one concept in one language, the least that must be held.
        token_bytes: what the responses of every token would take.
    """

    neurons: int
    operations: float
    ranked: float
    response_bytes: int
    cell_bytes: int
    token_bytes: float


def operations_per_token(config: TransformerConfig, tokens: float) -> float:
    """Of a forward pass without its head: two for each weight of a linear map, and 4 T D a layer for attention.

    >>> small = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32, fused="by_head")
    >>> operations_per_token(small, 10) == 2 * (2 * 12 * 8 * 8 + 4 * 10 * 8)
    True
    """
    leaves = jax.tree_util.tree_flatten_with_path(abstract_params(config, "float32"))[0]
    weights = sum(math.prod(leaf.shape) for path, leaf in leaves
                  if leaf_name(path).startswith("layers/") and leaf_name(path).endswith("kernel"))
    return 2 * weights + config.layers * 4 * tokens * config.width


def cost(config: TransformerConfig, work: Work) -> Cost:
    """The cost of one checkpoint; neurons are the outputs of the model's linear maps.

    >>> small = TransformerConfig(vocab_size=11, layers=2, width=8, heads=2, mlp_width=32, fused="by_head")
    >>> one = cost(small, Work(concepts=3, languages=2, sentences=100, tokens=10, shared=True))
    >>> one.neurons, one.ranked, one.response_bytes
    (144, 86400, 115200)
    """
    shapes = site_shapes(config)
    neurons = sum(math.prod(shapes[site]) for site in neuron_sites(config))
    ranked = work.concepts * work.languages * work.sentences * neurons
    return Cost(neurons, operations_per_token(config, work.tokens) * work.distinct * work.tokens, ranked,
                4 * neurons * work.distinct, 4 * neurons * work.sentences,
                4 * neurons * work.distinct * work.tokens)
