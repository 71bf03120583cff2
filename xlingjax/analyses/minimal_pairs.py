"""Does a decoder prefer the right sentence of a minimal pair? Its accuracy by language and feature.

A sentence's log-probability is the sum over its tokens (Marvin & Linzen 2018; Warstadt et al. 2020, BLiMP). The tokens
before the first that differs are the same in both, so they are left out of both sums. Words in rare forms may take more
tokens, and every token costs: beside the sums stands their mean over the tokens that are summed. And a model that knew
nothing but which form is more frequent would be right where the right form is: that is the unigram control.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from xlingjax.analyses.reading import chosen_losses, longest
from xlingjax.corpora.minimal_pairs import MinimalPairs
from xlingjax.corpora.tokenising import Tokens, tokenise
from xlingjax.errors import InputError
from xlingjax.models import Edit, Model
from xlingjax.models.taps import Splice
from xlingjax.responses.jobs import BATCH_TOKENS


class PairScores(NamedTuple):
    """What a model says of n pairs; NaN where it cannot be asked.

    Attributes:
        log_p: natural log-probability of the right and the wrong sentence from the first token that differs on.
        tokens: how many tokens that is.
    """

    log_p: Float[np.ndarray, "n 2"]
    tokens: Int[np.ndarray, "n 2"]

    @property
    def difference(self) -> Float[np.ndarray, "n"]:
        """Right minus wrong, in nats."""
        return self.log_p[:, 0] - self.log_p[:, 1]

    @property
    def normalised(self) -> Float[np.ndarray, "n"]:
        """Right minus wrong of the means over tokens, in nats a token."""
        mean = self.log_p / np.maximum(self.tokens, 1)
        return mean[:, 0] - mean[:, 1]


def pair_scores(
    model: Model, pairs: MinimalPairs, edits: Mapping[str, Edit | Splice] | None = None,
    batch_tokens: int = BATCH_TOKENS, end: bool = True,
) -> PairScores:
    """Log-probabilities of both sentences of every pair.

    A pair is not scored where the first token already differs and nothing stands before it (no token that begins a
    text), where all tokens of one sentence begin the other, or where a sentence is longer than the model reads.

    Args:
        model: a decoder with a head and a tokenizer.
        edits: site -> edit, the same for all rows; they are data, and other values compile nothing.
        batch_tokens: the most tokens of a batch.
        end: the token that ends a text is part of the sentence, if the tokenizer has one. Without it a verb at the end
            is never less probable than the same verb with a suffix.

    Raises:
        InputError: an encoder, or a model without head or tokenizer; no pairs.
    """
    config = model.config
    if not config.causal or not config.head:
        raise InputError(f"model {model.name!r} is no decoder with a head, so it has no probability of a sentence")
    if model.tokenizer is None:
        raise InputError(f"model {model.name!r} has no tokenizer; name one with tokenizer=")
    if not len(pairs):
        raise InputError("there are no minimal pairs; make some first")
    last = model.tokenizer.eos_token_id if end else None
    sides = [_ended(tokenise(model.tokenizer, texts, longest(model) + 1), last) for texts in (pairs.right, pairs.wrong)]
    first = np.array([_first_difference(a, b) for a, b in zip(sides[0].ids, sides[1].ids)])
    lengths = np.stack([side.lengths for side in sides])
    scored = (first > 0) & (first < lengths.min(0)) & (lengths.max(0) <= longest(model))
    tokens = Tokens(sides[0].ids + sides[1].ids, sides[0].special + sides[1].special)
    rows = np.flatnonzero(np.tile(scored, 2))
    wanted = tokens.rows(rows)
    counted = [np.arange(len(ids)) >= start for ids, start in zip(wanted.ids, np.tile(first, 2)[rows])]
    log_p, count = np.full(2 * len(pairs), np.nan), np.zeros(2 * len(pairs), int)
    if len(rows):
        losses, count[rows] = chosen_losses(model, wanted, counted, batch_tokens, edits)
        log_p[rows] = -losses
    return PairScores(log_p.reshape(2, -1).T, count.reshape(2, -1).T)


def _ended(tokens: Tokens, last: int | None) -> Tokens:
    """The sentences with the token `last` at their ends, where it does not stand there already."""
    if last is None:
        return tokens
    lacks = [not len(ids) or ids[-1] != last for ids in tokens.ids]
    add = lambda rows, value: tuple(np.append(row, row.dtype.type(value)) if lack else row
                                    for row, lack in zip(rows, lacks))
    return Tokens(add(tokens.ids, last), add(tokens.special, True))


def _first_difference(a: Int[np.ndarray, "t"], b: Int[np.ndarray, "u"]) -> int:
    """Index of the first token that differs."""
    length = min(len(a), len(b))
    return int(np.argmax(np.append(a[:length] != b[:length], True)))


def right(difference: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """1 where the right sentence is preferred, half where neither is, 0 where the wrong one is; NaN where not scored.

    >>> right(np.array([2.0, 0.0, -1.0, np.nan])).tolist()
    [1.0, 0.5, 0.0, nan]
    """
    return np.where(np.isnan(difference), np.nan, (np.sign(difference) + 1) / 2)


def _cells(pairs: MinimalPairs) -> tuple[list[str], list[str]]:
    """Features and languages, as they first appear."""
    return list(dict.fromkeys(pairs.features.tolist())), list(dict.fromkeys(pairs.languages.tolist()))


def _draws(pairs: MinimalPairs, bootstraps: int, seed: int) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "d draws"]]:
    """The document of each pair, and how often every document is drawn."""
    documents, block = np.unique(pairs.documents, return_inverse=True)
    share = np.full(len(documents), 1 / len(documents))
    return block, np.random.default_rng([seed, 47]).multinomial(len(documents), share, bootstraps).T


def _interval(values: Float[np.ndarray, "n"], weight: Int[np.ndarray, "n draws"]) -> Float[np.ndarray, "2"]:
    """95 % of the weighted means; NaN without draws."""
    total = weight.sum(0)
    if not total.any():
        return np.full(2, np.nan)
    return np.quantile((values @ weight)[total > 0] / total[total > 0], (0.025, 0.975))


def pair_accuracy(pairs: MinimalPairs, scores: PairScores, bootstraps: int = 1000, seed: int = 0) -> xr.Dataset:
    """Share of the pairs of which the right sentence is more probable, ties half; chance is 0.5.

    Args:
        scores: of `pair_scores`. bootstraps: draws of documents, the same for every language, feature and model.

    Returns:
        By `feature` and `language`: `accuracy` with `accuracy_low`, `accuracy_high` (95 % over documents);
        `balanced`, the mean of the accuracies of pairs whose right value is the same, of which a model that always
        prefers one value has one half; `normalised`, the accuracy by means over tokens; `unigram`, how often the right
        form is the more frequent one in `pairs.name`, and `rare_right`, the accuracy where it is the rarer one; `pairs`
        scored, `unscored`, `uneven` pairs of unequal token counts, and `documents`. NaN without a pair.
    """
    features, names = _cells(pairs)
    hit, per_token = right(scores.difference), right(scores.normalised)
    unigram = right((pairs.counts[:, 0] - pairs.counts[:, 1]).astype(float))
    block, drawn = _draws(pairs, bootstraps, seed)
    columns = ("accuracy", "accuracy_low", "accuracy_high", "balanced", "normalised", "unigram", "rare_right")
    out = {name: np.full((len(features), len(names)), np.nan) for name in columns}
    counts = {name: np.zeros((len(features), len(names)), int) for name in (
        "pairs", "unscored", "uneven", "documents")}
    for f, feature in enumerate(features):
        for g, language in enumerate(names):
            every = np.flatnonzero((pairs.features == feature) & (pairs.languages == language))
            rows = every[~np.isnan(hit[every])]
            counts["pairs"][f, g], counts["unscored"][f, g] = len(rows), len(every) - len(rows)
            if not len(rows):
                continue
            counts["uneven"][f, g] = (scores.tokens[rows, 0] != scores.tokens[rows, 1]).sum()
            counts["documents"][f, g] = len(np.unique(block[rows]))
            out["accuracy"][f, g] = hit[rows].mean()
            out["balanced"][f, g] = np.mean([hit[rows][pairs.values[rows] == value].mean()
                                             for value in np.unique(pairs.values[rows])])
            out["normalised"][f, g] = per_token[rows].mean()
            out["unigram"][f, g] = unigram[rows].mean()
            rare = rows[unigram[rows] < 0.5]
            out["rare_right"][f, g] = hit[rare].mean() if len(rare) else np.nan
            out["accuracy_low"][f, g], out["accuracy_high"][f, g] = _interval(hit[rows], drawn[block[rows]])
    axes = ("feature", "language")
    return xr.Dataset({name: (axes, values) for name, values in (out | counts).items()},
                      coords={"feature": features, "language": names},
                      attrs={"chance": 0.5, "unigram": f"counts of forms in the {pairs.name}",
                             "interval": f"95 % over documents, {bootstraps} draws"})


def compare_pairs(
    pairs: MinimalPairs, before: PairScores, after: PairScores, bootstraps: int = 1000, seed: int = 0,
) -> xr.Dataset:
    """What an edit changes: accuracy after minus before, on the pairs that both score.

    Returns:
        By `feature` and `language`: `change` with `change_low`, `change_high` (95 % over documents, both drawn
        together), `log_odds`, the mean change of right minus wrong in nats, and `pairs`.

    >>> from xlingjax.corpora import mini_world_pairs
    >>> pairs = mini_world_pairs(languages=("eng",), features=("Number",)).rows(np.arange(2))
    >>> score = lambda *values: PairScores(np.array([[value, 0.0] for value in values]), np.ones((2, 2), int))
    >>> found = compare_pairs(pairs, score(1.0, 1.0), score(-1.0, 2.0))
    >>> float(found["change"][0, 0]), float(found["log_odds"][0, 0])
    (-0.5, -0.5)
    """
    features, names = _cells(pairs)
    change, moved = right(after.difference) - right(before.difference), after.difference - before.difference
    block, drawn = _draws(pairs, bootstraps, seed)
    out = {name: np.full((len(features), len(names)), np.nan) for name in (
        "change", "change_low", "change_high", "log_odds")}
    count = np.zeros((len(features), len(names)), int)
    for f, feature in enumerate(features):
        for g, language in enumerate(names):
            rows = np.flatnonzero((pairs.features == feature) & (pairs.languages == language) & ~np.isnan(change))
            count[f, g] = len(rows)
            if not len(rows):
                continue
            out["change"][f, g], out["log_odds"][f, g] = change[rows].mean(), moved[rows].mean()
            out["change_low"][f, g], out["change_high"][f, g] = _interval(change[rows], drawn[block[rows]])
    axes = ("feature", "language")
    return xr.Dataset({**{name: (axes, values) for name, values in out.items()}, "pairs": (axes, count)},
                      coords={"feature": features, "language": names},
                      attrs={"interval": f"95 % over documents, {bootstraps} draws"})
