"""Which tokens are probed, and which documents are held out."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from xlingjax.corpora.tokenising import Tokens
from xlingjax.errors import InputError


class Split(NamedTuple):
    """Attributes:
        train, test: equally many tokens of every language; no document lies in both.
        rank: a random order of the training tokens of each language, 0 first, for smaller samples
            that are equal in every language and nested; int max elsewhere.
    """

    train: Bool[np.ndarray, "n"]
    test: Bool[np.ndarray, "n"]
    rank: Int[np.ndarray, "n"]


def sample_positions(
    tokens: Tokens, languages: Shaped[np.ndarray, "S"], count: int, per_sentence: int, seed: int,
) -> list[np.ndarray]:
    """Random places of real tokens, as many in every language, at most a few in a sentence.

    Args:
        count: wanted in every language; all get what the shortest one has if that is less.

    Returns:
        For each sentence the sorted places in its tokens, special tokens included in the count.

    Raises:
        InputError: a language has no real token.

    >>> tokens = Tokens((np.arange(4), np.arange(4)), (np.arange(4) == 0, np.arange(4) == 0))
    >>> sample_positions(tokens, np.array(["x", "y"]), count=600, per_sentence=4, seed=0)
    [array([1, 2, 3]), array([1, 2, 3])]
    """
    rng = np.random.default_rng(seed)
    chosen = [np.sort(rng.permutation(np.flatnonzero(~special))[:per_sentence])
              for special in tokens.special]
    sizes = np.array([len(places) for places in chosen])
    names = np.unique(languages)
    available = {name: sizes[languages == name].sum() for name in names}
    for name, number in available.items():
        if number == 0:
            raise InputError(
                f"language {name} has no real token to probe; leave it out or add sentences")
    wanted = min(count, *available.values())
    keep = [np.zeros(size, bool) for size in sizes]
    for name in names:
        rows = np.flatnonzero(languages == name)
        of = np.repeat(rows, sizes[rows])
        place = np.concatenate([np.arange(sizes[row]) for row in rows])
        for pick in rng.permutation(len(of))[:wanted]:
            keep[of[pick]][place[pick]] = True
    return [places[kept] for places, kept in zip(chosen, keep)]


def split_documents(
    documents: Int[np.ndarray, "n"], language: Int[np.ndarray, "n"], held_out: float, seed: int,
) -> Split:
    """Holds out whole documents, about `held_out` of those that occur in the same languages.

    Raises:
        InputError: a language is left without training or without test tokens.
    """
    rng = np.random.default_rng([seed, 0])
    occurs = np.zeros((documents.max() + 1, language.max() + 1), bool)
    occurs[documents, language] = True
    _, signature = np.unique(occurs, axis=0, return_inverse=True)
    signature = signature.reshape(-1)
    out = np.zeros(len(occurs), bool)
    for kind in np.unique(signature[occurs.any(axis=1)]):
        of = rng.permutation(np.flatnonzero((signature == kind) & occurs.any(axis=1)))
        number = int(held_out * len(of) + rng.random())
        out[of[:np.clip(number, 1, len(of) - 1) if len(of) > 1 else number]] = True
    test, rank = out[documents], np.full(len(documents), np.iinfo(np.int64).max)
    parts = []
    for side in (~test, test):
        sizes = np.bincount(language[side], minlength=language.max() + 1)
        if sizes.min() == 0:
            missing = "test" if side is test else "training"
            raise InputError(
                f"with {held_out:.0%} of {occurs.any(axis=1).sum()} documents held out a language "
                f"has no {missing} tokens; give more documents or finer document ids")
        part = np.zeros(len(documents), bool)
        for one in range(len(sizes)):
            kept = rng.permutation(np.flatnonzero(side & (language == one)))[:sizes.min()]
            part[kept] = True
            if side is not test:
                rank[kept] = np.arange(len(kept))
        parts.append(part)
    return Split(parts[0], parts[1], rank)
