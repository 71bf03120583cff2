"""Pieces that two languages share: what might explain shared neurons, and how to exclude it.

The sharing ladder (METHOD section 1, point 8): `token_detectors` is its rung (a), `without_pieces`
selects the positives of (d), and a list of pieces given to `counted(leave_out=...)`
makes (e).

Taken to the letter, (d) leaves nothing on real text: with 8,000 byte-level pieces every SIB-200
sentence has a piece that occurs in the other language, 336 types from English to Russian, 1,311 to
German. A piece that positives do not favour in both languages cannot make one detector serve both;
`concept_anchors` are those that could.
"""

import numpy as np

from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError


def real_ids(tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """(sentence int64[n], token id int32[n]) of every real token, in order."""
    if not len(tokens):
        return np.zeros(0, np.int64), np.zeros(0, np.int32)
    real = ~np.concatenate(tokens.special)
    return np.repeat(np.arange(len(tokens)), tokens.lengths)[real], np.concatenate(tokens.ids)[real]


def _types(tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """(token id, sentence) of every type a sentence has, each pair once, by id then sentence."""
    row, ids = real_ids(tokens)
    first, second = np.unique(np.stack([ids.astype(np.int64), row]), axis=1)
    return first, second


def shared_pieces(tokens_a: Tokens, tokens_b: Tokens) -> np.ndarray:
    """int32[P]: ids that occur as real tokens in both, ascending.

    >>> def sentence(*ids): return np.array(ids, np.int32), np.zeros(len(ids), bool)
    >>> a, b = (Tokens(*zip(*rows)) for rows in (
    ...     [sentence(1, 2), sentence(3)], [sentence(2, 9, 3)]))
    >>> shared_pieces(a, b)
    array([2, 3], dtype=int32)
    >>> without_pieces(a, shared_pieces(a, b))
    array([False, False])
    """
    return np.intersect1d(real_ids(tokens_a)[1], real_ids(tokens_b)[1]).astype(np.int32)


def without_pieces(tokens: Tokens, pieces: np.ndarray) -> np.ndarray:
    """bool[S]: sentences in which none of the pieces is a real token."""
    row, ids = real_ids(tokens)
    result = np.ones(len(tokens), bool)
    result[row[np.isin(ids, pieces)]] = False
    return result


def concept_anchors(
    tokens_a: Tokens, labels_a: np.ndarray, tokens_b: Tokens, labels_b: np.ndarray,
    lift: float = 2.0,
) -> np.ndarray:
    """int32[P]: shared pieces that alone favour a concept's positives in both languages.

    A piece is one if, in each language, the share of positive sentences that have it is more than
    `lift` times the share of negative ones.

    Args:
        tokens_a, tokens_b: S_a and S_b sentences of two languages.
        labels_a, labels_b: int[S_a], int[S_b] of one concept; 1, 0, or -1 = does not count.
        lift: 1 = any surplus counts; larger values leave more sentences and more risk.

    Raises:
        InputError: the labels do not fit the sentences.
    """
    pieces = shared_pieces(tokens_a, tokens_b)
    keep = np.ones(len(pieces), bool)
    for tokens, labels in ((tokens_a, labels_a), (tokens_b, labels_b)):
        labels = np.asarray(labels)
        if labels.shape != (len(tokens),):
            raise InputError(
                f"labels of shape {labels.shape} for {len(tokens)} sentences; give one each")
        ids, row = _types(tokens)
        here = np.isin(ids, pieces)
        place = np.searchsorted(pieces, ids[here])
        with_piece = [
            np.bincount(place[labels[row[here]] == side], minlength=len(pieces)) for side in (1, 0)]
        positives, negatives = (np.count_nonzero(labels == side) for side in (1, 0))
        keep &= with_piece[0] * negatives > lift * with_piece[1] * positives
    return pieces[keep]


def wordless(pieces: list[str]) -> np.ndarray:
    """bool[P]: pieces without a letter or digit (punctuation, blanks, parts of characters).

    Nearly every sentence shares its punctuation with every other language; a ladder over sentences
    without any shared piece keeps none unless such pieces are let pass.

    >>> wordless(["the", ",", "7", "\\\\xe4", "␣"])
    array([False,  True, False,  True,  True])
    """
    return np.array([
        piece.startswith("\\x") or not any(c.isalnum() for c in piece) for piece in pieces], bool)


def token_detectors(tokens: Tokens, min_count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The pseudo-model that knows token identity and nothing else: one "neuron" a token type.

    Args:
        tokens: S sentences.
        min_count: types in fewer sentences are left out; they can detect nothing that repeats.

    Returns:
        (responses float32[S, P], 1 where the sentence has the type; ids int32[P], ascending).

    Raises:
        InputError: no type occurs in `min_count` sentences.
    """
    ids, row = _types(tokens)
    types, place, count = np.unique(ids, return_inverse=True, return_counts=True)
    keep = count >= min_count
    if not keep.any():
        raise InputError(
            f"no token type occurs in {min_count} of {len(tokens)} sentences; lower min_count")
    column = np.cumsum(keep) - 1
    chosen = keep[place]
    responses = np.zeros((len(tokens), int(keep.sum())), np.float32)
    responses[row[chosen], column[place[chosen]]] = 1
    return responses, types[keep].astype(np.int32)
