"""What makes an expert fire: the pieces at which it is largest, in each language.

A shared expert whose maximising pieces are the same in both languages may know a word and no concept:
it is an *anchor*. One that loses its place when sentences are matched for length is a *length* neuron.
The others are called *abstract*, which says that neither explanation was found, and no more.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, pieces
from xlingjax.responses.collecting import collect

TOP = 10  # positive sentences, those with the largest responses, whose maximising pieces are compared


class Firing(NamedTuple):
    """Where the neurons fired most in the positive sentences of one concept and language."""

    rows: np.ndarray  # int[n, TOP], sentences by response, largest first; -1 fills
    places: np.ndarray  # int[n, TOP], position of the maximum among the sentence's tokens
    ids: np.ndarray  # int[n, TOP], the token there


def firing(model: Any, tokens: Tokens, responses: Any, rows: np.ndarray, neurons: np.ndarray,
           sites: Sequence[str] | None, batch_tokens: int) -> Firing:
    """The largest responses of some neurons over some sentences, and the tokens they came from.

    Args:
        model: the model that gave `responses` by max-pooling.
        tokens: S sentences.
        responses: float[S, N], indexed as for `concept_experts`.
        rows: int[s], the sentences looked at (a concept's positives in one language).
        neurons: int[n], flat indices.
    """
    at = collect(model, tokens.rows(rows), sites, "argmax", batch_tokens=batch_tokens, show=False)
    places = at.matrix(neurons).T  # [n, s]
    values = np.asarray(responses[int(rows.min()):int(rows.max()) + 1, :])[rows - rows.min()][:, neurons].T
    order = np.argsort(-values, axis=1, kind="stable")[:, :TOP]
    chosen = np.take_along_axis(places, order, axis=1)
    ids = np.array([[tokens.ids[rows[s]][place] for s, place in zip(*both)]
                    for both in zip(order, chosen)], np.int64).reshape(chosen.shape)
    return Firing(rows[order], chosen, ids)


def is_anchor(tokenizer: Any, a: Firing, b: Firing) -> np.ndarray:
    """bool[n]: a maximising piece of the neuron in one language is one of its own in the other.

    Pieces are compared as read, so that a piece and the same piece after a blank are one.
    """
    known: dict[int, str] = {}
    ids = np.unique(np.concatenate([a.ids.ravel(), b.ids.ravel()]))
    known = dict(zip(ids.tolist(), (piece.casefold() for piece in pieces(tokenizer, ids.tolist()))))
    return np.array([
        bool({known[i] for i in row_a.tolist()} & {known[i] for i in row_b.tolist()})
        for row_a, row_b in zip(a.ids, b.ids)], bool)


def first_token_share(tokens: Tokens, found: Firing) -> float:
    """The share of maxima that lie at the first real token (the attention sink)."""
    first = np.array([np.argmin(np.append(special, False)) for special in tokens.special])
    held = found.rows >= 0
    return float((found.places == first[found.rows])[held].mean()) if held.any() else float("nan")


def example(corpus: Corpus, tokens: Tokens, tokenizer: Any, found: Firing, neuron: int,
            place: int) -> tuple[list[str], int]:
    """The pieces of one of a neuron's top sentences and the index of the maximising one."""
    row = int(found.rows[neuron, place])
    real = np.flatnonzero(~tokens.special[row])
    index = int(np.searchsorted(real, found.places[neuron, place]))
    return spaced(tokenizer, tokens.ids[row][real]), index


def spaced(tokenizer: Any, ids: np.ndarray) -> list[str]:
    """Readable pieces with the blanks between words kept, so that joined they are the sentence."""
    raw = tokenizer.convert_ids_to_tokens([int(i) for i in ids])
    shown = pieces(tokenizer, ids.tolist())
    return [(" " if i and str(token)[:1] in "▁Ġ" else "") + ("" if piece == "␣" else piece)
            for i, (token, piece) in enumerate(zip(raw, shown))]
