"""The floor that reads strings only: how far do shared pieces carry a classifier, or lead to an answer?

Of topics, pieces that two languages write alike; of questions, pieces that stand in the question and in its context.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from xlingjax.kernels.probing import fit_probes
from xlingjax.tasks.answers import best
from xlingjax.tasks.encoding import Pieces, read_pieces
from xlingjax.tasks.spans import SpanAnswers
from xlingjax.tasks.task import Example

L2 = 1.0  # of the classifier's weights
NEAR = 10  # pieces on either side in which a question's pieces count
HALF = 2  # pieces on either side of the middle of an answer, at most


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


def near_shared_pieces(tokenizer: Any, examples: Sequence[Example], task: SpanAnswers) -> Float[np.ndarray, "e"]:
    """The task's first measure of answers that stand where most of the question's pieces are near; no training.

    Each piece that question and context share counts one over its occurrences in the context, as in the sliding window
    of Rajpurkar et al. (EMNLP 2016, section 5.1), and is no part of an answer.

    Args:
        tokenizer: of the language of the examples.
        examples: questions on contexts.
        task: which measure, and by which rules.
    """
    texts = list(dict.fromkeys(text for e in examples for text in e.texts))
    pieces = dict(zip(texts, read_pieces(tokenizer, texts), strict=True))
    found = []
    for e in examples:
        begin, stop = _nearest(*(pieces[text] for text in e.texts))
        right = [answer.text for answer in e.answers]
        found += best([e.texts[1][begin:stop]], right, task.rules, e.language)[task.measures[0]]
    return np.array(found, np.float64)


def _nearest(question: Pieces, context: Pieces) -> tuple[int, int]:
    """First and last character of the answer in the context.

    >>> spans = np.stack([np.arange(6), np.arange(6) + 1], 1)
    >>> _nearest(Pieces(np.array([7, 8]), spans[:2]), Pieces(np.array([7, 1, 2, 3, 4, 7]), spans))
    (1, 4)
    """
    shared = np.isin(context.ids, question.ids)
    if shared.all():
        return 0, 0
    _, kind, count = np.unique(context.ids, return_inverse=True, return_counts=True)
    weight = shared / count[kind]
    sums = np.concatenate([[0.0], weight.cumsum()])
    place = np.arange(len(weight))
    near = sums[np.minimum(place + NEAR + 1, len(weight))] - sums[np.maximum(place - NEAR, 0)]
    closest = np.abs(place[:, None] - place[shared]).min(1, initial=len(weight))  # of equals the one beside them
    middle = int(np.lexsort((place, closest, -np.where(shared, -1.0, near)))[0])
    first, last = middle, middle
    while first > max(0, middle - HALF) and not shared[first - 1]:
        first -= 1
    while last < min(len(weight) - 1, middle + HALF) and not shared[last + 1]:
        last += 1
    return int(context.spans[first, 0]), int(context.spans[last, 1])


def _counts(tokenizer: Any, examples: Sequence[Example], pieces: dict[str, int]) -> np.ndarray:
    out = np.zeros((len(examples), max(len(pieces), 1)), np.float32)
    number = {i: pieces[piece] for piece, i in tokenizer.get_vocab().items() if piece in pieces}
    for row, example in enumerate(examples):
        for ids in tokenizer(list(example.texts), add_special_tokens=False)["input_ids"]:
            for i in ids:
                if i in number:
                    out[row, number[i]] += 1
    return out
