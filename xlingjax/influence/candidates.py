"""Which training sequences are scored at all, those that share rare tokens; and whose influence is one token's."""

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError


def shared_tokens(
    queries: Tokens, tokens: Tokens, vocabulary: int, count: int = 10_000,
) -> tuple[Int[np.ndarray, "Q count"], Float[np.ndarray, "Q count"]]:
    """The sequences that share the rarest tokens with each query, best first, and their scores.

    Score = sum over tokens in both of IDF, IDF = log((n - df + 0.5) / (df + 0.5) + 1), as Grosse et al. 2023 (section
    3.2) have it: Okapi's weight with tokens counted once. It removes other scripts by construction, so claims across
    languages need candidates that it has not chosen.

    Args:
        vocabulary: V, above every token. count: of each query, at most n.

    >>> ids = lambda *rows: Tokens(tuple(map(np.array, rows)), tuple(np.zeros(len(row), bool) for row in rows))
    >>> found, score = shared_tokens(ids([1, 2]), ids([1, 3], [2, 2], [1, 1], [4]), 5, 2)
    >>> found.tolist(), score.round(3).tolist()
    ([[1, 0]], [[1.204, 0.693]])
    """
    if count < 1:
        raise InputError(f"count is {count}; ask for one candidate at least")
    held, asked = _occurring(tokens, vocabulary), _occurring(queries, vocabulary)
    frequency = np.asarray(held.sum(0)).reshape(-1)
    weight = np.log((len(tokens) - frequency + 0.5) / (frequency + 0.5) + 1)
    scores = (asked @ scipy.sparse.diags(weight) @ held.T).toarray()
    order = np.argsort(-scores, axis=1, kind="stable")[:, :min(count, len(tokens))]
    return order, np.take_along_axis(scores, order, axis=1)


def _occurring(tokens: Tokens, vocabulary: int) -> scipy.sparse.csr_matrix:
    """[S, V]: 1 where a token that is not special occurs."""
    rows = [np.unique(ids[~special]) for ids, special in zip(tokens.ids, tokens.special)]
    columns = np.concatenate(rows) if rows else np.empty(0, int)
    if len(columns) and columns.max() >= vocabulary:
        raise InputError(f"token {columns.max()} lies outside the vocabulary of {vocabulary}; give the model's own")
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return scipy.sparse.csr_matrix((np.ones(len(columns)), columns, starts), (len(rows), vocabulary))


def spurious(scores: Float[np.ndarray, "*q t"]) -> np.ndarray:
    """Whether one token carries nearly all of a sequence's influence: ||a||_2 / ||a||_1 above 2/3 (ibid., section 5.1).

    >>> spurious(np.array([[0.0, 9.0, 1.0], [1.0, 1.0, -1.0]])).tolist()
    [True, False]
    """
    total = np.abs(scores).sum(-1)
    return np.linalg.norm(scores, axis=-1) > 2 / 3 * np.where(total > 0, total, np.inf)
