"""The floor that reads strings only: how far do pieces that two languages write alike carry a classifier?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from xlingjax.kernels.probing import fit_probes
from xlingjax.tasks.task import Example

L2 = 1.0  # of the classifier's weights


def shared_pieces(one: Any, other: Any) -> tuple[str, ...]:
    """Pieces that both tokenizers have, special ones left out."""
    special = set(one.all_special_tokens) | set(other.all_special_tokens)
    return tuple(sorted((set(one.get_vocab()) & set(other.get_vocab())) - special))


def bag_of_shared_pieces(
    tokenizers: tuple[Any, Any], train: Sequence[Example], test: Sequence[Example],
) -> Float[np.ndarray, "e"]:
    """1 where a linear classifier of counts of shared pieces, trained in the first language, is right.

    Args:
        tokenizers: of the language of `train`, and of that of `test`.
    """
    labels = sorted({e.label for e in train})
    pieces = {piece: i for i, piece in enumerate(shared_pieces(*tokenizers))}
    x, unseen = (_counts(tokenizer, examples, pieces) for tokenizer, examples in zip(tokenizers, (train, test)))
    y = np.array([labels.index(e.label) for e in train])
    weights = np.asarray(fit_probes(x[None], y[None], np.ones((1, len(y)), np.float32), len(labels), l2=L2))[0, 0]
    said = (unseen @ weights[:-1] + weights[-1]).argmax(-1)
    return np.array([labels[best] == e.label for best, e in zip(said, test)], np.float64)


def _counts(tokenizer: Any, examples: Sequence[Example], pieces: dict[str, int]) -> np.ndarray:
    out = np.zeros((len(examples), max(len(pieces), 1)), np.float32)
    number = {i: pieces[piece] for piece, i in tokenizer.get_vocab().items() if piece in pieces}
    for row, example in enumerate(examples):
        for ids in tokenizer(list(example.texts), add_special_tokens=False)["input_ids"]:
            for i in ids:
                if i in number:
                    out[row, number[i]] += 1
    return out
