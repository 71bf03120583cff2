"""How much of each language training sees: temperature sampling and held-out documents."""

from collections.abc import Sequence

import numpy as np

from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError


def language_shares(amounts: Sequence[float], temperature: float) -> np.ndarray:
    """Sampling probability of each language, p_g ~ n_g ** temperature.

    1 samples languages as often as they occur, 0 all alike (XLM: 0.5, XLM-R: 0.3).

    Args:
        amounts: n_g, text of each of the G languages in any one unit.
        temperature: the exponent, 0 to 1.

    Returns:
        float64[G], sums to 1.

    >>> language_shares([900, 100], 1.0).round(2).tolist()
    [0.9, 0.1]
    >>> language_shares([900, 100], 0.5).round(2).tolist()
    [0.75, 0.25]
    """
    if not 0 <= temperature <= 1:
        raise InputError(f"language temperature {temperature} is not between 0 and 1")
    n = np.asarray(amounts, np.float64)
    if n.size == 0 or (n <= 0).any():
        raise InputError("a training language has no text; leave it out or add text")
    scaled = (n / n.sum()) ** temperature
    return scaled / scaled.sum()


def hold_out(corpus: Corpus, share: float, seed: int) -> tuple[Corpus, Corpus]:
    """Splits a corpus into training and held-out documents.

    A document leaves in all its languages at once, so no held-out sentence has a translation in
    training. Documents are taken in a seeded order until every language has given about `share` of
    its characters; a language whose text is one document keeps it for training.

    Returns:
        (training, held out).
    """
    if not 0 < share < 1:
        raise InputError(f"held-out share {share} is not between 0 and 1")
    lengths = np.array([len(text) for text in corpus.texts])
    documents: dict[str, list[int]] = {}
    for row, document in enumerate(corpus.documents.tolist()):
        documents.setdefault(document, []).append(row)
    left = {g: int(lengths[corpus.languages == g].sum()) for g in corpus.language_names}
    wanted = {g: share * total for g, total in left.items()}
    order = np.random.default_rng([seed, 1]).permutation(sorted(documents))
    held = np.zeros(len(corpus), bool)
    for document in order.tolist():
        rows = np.array(documents[document])
        amount = {
            g: int(lengths[rows[corpus.languages[rows] == g]].sum())
            for g in dict.fromkeys(corpus.languages[rows].tolist())
        }
        lacking = any(wanted[g] > 0 for g in amount)
        spared = all(left[g] - amount[g] >= amount[g] for g in amount)
        if lacking and spared:
            held[rows] = True
            for g in amount:
                wanted[g] -= amount[g]
                left[g] -= amount[g]
    return corpus.rows(~held), corpus.rows(held)


def readable(text: str) -> str:
    """The text with lone surrogates, which no tokenizer accepts, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
