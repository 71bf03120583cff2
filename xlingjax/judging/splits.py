"""Documents dealt out to the parts of an experiment, each with its translations."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from xlingjax.corpora.corpus import Corpus
from xlingjax.kernels.resampling import independent_blocks


def split_in(corpus: Corpus, shares: Sequence[int], seed: int = 0) -> Int[np.ndarray, "S"]:
    """The part of each sentence; parts get documents in the ratio of `shares`, translations together.

    >>> from xlingjax.corpora import mini_world
    >>> part = split_in(mini_world(sentences=40, languages=("eng", "spa")), (2, 1, 1))
    >>> sorted(set(part.tolist()))
    [0, 1, 2]
    """
    blocks = independent_blocks(corpus.documents, corpus.parallel)
    count = int(blocks.max()) + 1
    slots = np.repeat(np.arange(len(shares)), shares)
    order = np.random.default_rng([seed, 11]).permutation(count)
    part = np.empty(count, int)
    part[order] = slots[np.arange(count) % len(slots)]
    return part[blocks]
