"""Where the token embeddings of a new language may start, other than at random.

All give float32[w, D] for w target tokens from the embeddings of a model's v source tokens, and which of them they say
anything about; the others are drawn from the normal distribution that the source rows have, unit by unit.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from xlingjax.errors import InputError

Start = tuple[Float[np.ndarray, "w D"], Bool[np.ndarray, "w"]]
ROWS = 1024  # similarities of so many tokens are in memory at once


def drawn_like(source: Float[np.ndarray, "v D"], count: int, seed: int) -> Float[np.ndarray, "w D"]:
    """Rows of the mean and spread that the source rows have in each unit."""
    source = np.asarray(source, np.float64)
    drawn = np.random.default_rng([seed, 67]).standard_normal((count, source.shape[1]))
    return (source.mean(0) + source.std(0) * drawn).astype(np.float32)


def overlap_copied(
    source: Float[np.ndarray, "v D"], source_tokens: Sequence[str], target_tokens: Sequence[str], seed: int = 0,
) -> Start:
    """Tokens that are written alike take over their rows.

    Args:
        source: the model's token embeddings.
        source_tokens, target_tokens: all tokens of both tokenizers, by id.
        seed: of the other rows.

    Raises:
        InputError: as many tokens as rows are needed.

    >>> start, copied = overlap_copied(np.eye(3), ["<s>", "▁a", "▁b"], ["<s>", "▁b", "▁c"])
    >>> copied.tolist(), start[1].tolist()
    ([True, True, False], [0.0, 0.0, 1.0])
    """
    if len(source_tokens) != len(source):
        raise InputError(
            f"{len(source_tokens)} source tokens for {len(source)} embeddings; give the token of every row")
    number = {token: i for i, token in enumerate(source_tokens)}
    row = np.array([number.get(token, -1) for token in target_tokens], np.int64)
    return _filled(source, np.asarray(source, np.float32)[row], row >= 0, seed)


def by_dictionary(
    source: Float[np.ndarray, "v D"], pairs: Iterable[tuple[int, int, float]], count: int, seed: int = 0,
) -> Start:
    """Weighted means of the rows of translations, as RAMEN takes them (Tran 2020, arXiv 2002.07306).

    Args:
        source: the model's token embeddings.
        pairs: (source token, target token, weight above 0), such as alignment counts; those of a target token add up.
        count: target tokens w.
        seed: of the other rows.

    Raises:
        InputError: a token that is not there, or a weight of 0 or less.

    >>> start, told = by_dictionary(np.eye(2), [(0, 0, 1.0), (0, 1, 3.0), (1, 1, 1.0)], 3)
    >>> start[:2].tolist(), told.tolist()
    ([[1.0, 0.0], [0.75, 0.25]], [True, True, False])
    """
    given = list(pairs)
    token = np.array([pair[:2] for pair in given], np.int64).reshape(-1, 2)
    weight = np.array([pair[2] for pair in given], np.float64)
    if len(given) and (token.min() < 0 or (token.max(0) >= (len(source), count)).any() or not (weight > 0).all()):
        raise InputError(
            f"the dictionary names tokens up to {token.max(0).tolist()} with weights from {weight.min():g}, for "
            f"{len(source)} source and {count} target tokens; give numbers of tokens that exist and weights above 0")
    total = np.bincount(token[:, 1], weight, minlength=count)
    summed = np.zeros((count, np.shape(source)[1]))
    np.add.at(summed, token[:, 1], weight[:, None] * np.asarray(source, np.float64)[token[:, 0]])
    return _filled(source, summed / np.maximum(total, 1e-300)[:, None], total > 0, seed)


def by_similarity(
    source: Float[np.ndarray, "v D"], static_source: Float[np.ndarray, "v E"],
    static_target: Float[np.ndarray, "w E"], neighbours: int = 10, temperature: float = 0.1, seed: int = 0,
) -> Start:
    """Means of the rows of the most similar source tokens in one static space, as WECHSEL takes them.

    The weights are the softmax of cosine / temperature over the nearest `neighbours` (Minixhofer, Paischer, Rekabsaz,
    NAACL 2022, arXiv 2112.06598). FOCUS's start (arXiv 2305.14481) is near: static embeddings of target text alone, in
    which only the tokens that both tokenizers have are neighbours (other rows of `static_source` 0), and those tokens
    keep the rows that `overlap_copied` gives them.

    Args:
        source: the model's token embeddings.
        static_source, static_target: static embeddings of both languages' tokens in one space (`mapping.Mapping`); a
            row of zeros says nothing.
        neighbours: source tokens of which a row is made.
        temperature: of the weights; nearer to 0, only the nearest counts.
        seed: of the rows of target tokens without static embedding.

    Raises:
        InputError: tables that do not fit, no source token with a static embedding, or a temperature of 0 or less.

    >>> both = np.eye(2)
    >>> start, told = by_similarity(np.array([[1.0], [3.0]]), both, np.array([[0.0, 2.0], [0.0, 0.0]]), 2, 0.01)
    >>> start[0].tolist(), told.tolist()
    ([3.0], [True, False])
    """
    if len(static_source) != len(source) or static_source.shape[1] != static_target.shape[1]:
        raise InputError(
            f"static embeddings of shapes {static_source.shape} and {static_target.shape} for {len(source)} source "
            "tokens; give one row for each of them, and one width")
    if temperature <= 0 or neighbours < 1:
        raise InputError(f"temperature is {temperature} and neighbours {neighbours}; give more than 0, and 1 or more")
    from_, to = (_unit(table) for table in (static_source, static_target))
    known: Int[np.ndarray, n] = np.flatnonzero(from_.any(1))
    if not len(known):
        raise InputError("no source token has a static embedding; train them on text of the source language")
    count, rows = min(neighbours, len(known)), []
    embeddings = np.asarray(source, np.float64)[known]
    for start in range(0, len(to), ROWS):
        cosine = to[start:start + ROWS] @ from_[known].T
        near = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
        logits = np.take_along_axis(cosine, near, 1) / temperature
        weight = np.exp(logits - logits.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        rows.append(np.einsum("nk,nkd->nd", weight, embeddings[near]))
    return _filled(source, np.concatenate(rows), np.asarray(to.any(1)), seed)


def _unit(table: np.ndarray) -> np.ndarray:
    table = np.asarray(table, np.float64)
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)


def _filled(source: np.ndarray, rows: np.ndarray, told: np.ndarray, seed: int) -> Start:
    """Rows where something is told, drawn ones elsewhere."""
    return np.where(told[:, None], rows, drawn_like(source, len(rows), seed)).astype(np.float32), told
