"""Training sequences for each query: scores of all, and the best and worst of them to be read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from xlingjax.analyses.influence.queries import Queries
from xlingjax.analyses.influence.settings import InfluenceSettings
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, pieces, tokenise
from xlingjax.errors import InputError
from xlingjax.influence.candidates import shared_tokens, spurious
from xlingjax.influence.factors import Factors
from xlingjax.influence.kept import kept
from xlingjax.influence.scoring import by_token, low_rank, pairwise, sequence_gradients
from xlingjax.influence.store import store_gradients
from xlingjax.models import Model

SIDES = ("most", "least")


class Training(NamedTuple):
    """Training sequences as a model reads them."""

    corpus: Corpus
    tokens: Tokens

    @property
    def languages(self) -> np.ndarray:
        """str[n]."""
        return self.corpus.languages


class Asked(NamedTuple):
    """Queries as they are scored with.

    Attributes:
        gradients: preconditioned, by name of a matrix [Q, L, J, O], whole. own: I(q, q) of each.
    """

    queries: Queries
    gradients: Mapping[str, np.ndarray]
    own: Float[np.ndarray, "Q"]


def read_training(model: Model, corpus: Corpus, length: int) -> Training:
    """The sequences of a corpus in which something is predicted.

    Raises:
        InputError: the tokenizer makes nothing of the corpus.
    """
    tokens = tokenise(model.tokenizer, corpus.texts, length)
    usable = np.flatnonzero((tokens.lengths > 1) & (tokens.real_lengths > 0))
    if not len(usable):
        raise InputError(f"the tokenizer of {model.name} makes nothing of corpus {corpus.name!r} in which a token "
                         "follows another; give it texts that it knows")
    return Training(corpus.rows(usable), tokens.rows(usable))


def ask(model: Model, factors: Factors, queries: Queries, settings: InfluenceSettings, path: Path | None) -> Asked:
    """Gradients of log p(completion | prompt) through the inverse; kept at `path`."""
    tokens, scored = queries.tokens(model, settings.length)

    def make() -> dict[str, np.ndarray]:
        plain = sequence_gradients(model, factors.matrices, tokens, scored, batch_tokens=settings.batch_tokens)
        turned = factors.precondition(plain)
        own = sum(np.einsum("qlio,qlio->q", plain[name], one) for name, one in turned.items())
        return {name: one.astype(np.float32) for name, one in turned.items()} | {"own": np.asarray(own)}

    found = kept(path, make)
    return Asked(queries, {m.name: found[m.name] for m in factors.matrices}, found["own"])


def scan(
    model: Model, factors: Factors, asked: Asked, training: Training, settings: InfluenceSettings, folder: Path,
) -> Float[np.ndarray, "Q n L"]:
    """Scores of every query and training sequence by layer, NaN where a sequence is no candidate of a query.

    One pass over the sequences serves all queries. Blocks of sequences are kept in `folder`.
    """
    chosen = candidates(model, factors, asked, training, settings, folder)
    wanted = np.flatnonzero(chosen.any(0))
    queries = low_rank(asked.gradients, settings.rank) if settings.rank else asked.gradients
    out = np.full((len(asked.queries), len(training.tokens), model.config.layers), np.nan, np.float32)
    made = pairwise(model, factors.matrices, queries, training.tokens.rows(wanted), batch_tokens=settings.batch_tokens,
                    folder=folder, block=settings.block).sum(2)
    out[:, wanted] = np.where(chosen[:, wanted, None], made, np.nan)
    return out


def candidates(
    model: Model, factors: Factors, asked: Asked, training: Training, settings: InfluenceSettings, folder: Path,
) -> Bool[np.ndarray, "Q n"]:
    """Sequences that are scored for each query, as `settings.candidates` and `settings.components` say."""
    chosen = np.ones((len(asked.queries), len(training.tokens)), bool)
    if not settings.candidates:
        return chosen
    tokens, scored = asked.queries.tokens(model, settings.length)
    if settings.components:
        store = store_gradients(
            model, factors, training.tokens, folder / "gradients", components=settings.components, block=settings.block,
            batch_tokens=settings.batch_tokens)
        plain = sequence_gradients(model, factors.matrices, tokens, scored, batch_tokens=settings.batch_tokens)
        found, _ = store.nearest(plain, settings.candidates)
    else:
        found, _ = shared_tokens(tokens, training.tokens, model.config.vocab_size, settings.candidates)
    chosen[:] = False
    np.put_along_axis(chosen, found, True, axis=1)
    return chosen


def read_hits(
    model: Model, factors: Factors, asked: Asked, training: Training, scores: Float[np.ndarray, "Q n L"],
    settings: InfluenceSettings,
) -> xr.Dataset:
    """The most and least influential sequences of each query, scored again with whole gradients, by token.

    `[query, side, rank]`: `row` in the corpus, `text`, `language`, `score`, `spurious` (one token carries it),
    `pieces` and `weights` (JSON: tokens, and the influence that arises at each), `by_layer` [..., layer]; `agreement`:
    the correlation of the scores before and after, over all that were scored again.
    """
    order = extremes(scores, settings.rescored)
    rows = np.unique(order[order >= 0])
    again = pairwise(model, factors.matrices, asked.gradients, training.tokens.rows(rows),
                     batch_tokens=settings.batch_tokens).sum(2)
    place = np.searchsorted(rows, np.maximum(order, 0))
    number = np.arange(len(order))[:, None, None]
    exact = np.where(order[..., None] >= 0, again[number, place], np.nan)
    rough = np.where(order >= 0, scores[number, np.maximum(order, 0)].sum(-1), np.nan)
    known = order >= 0
    agreement = np.corrcoef(rough[known], exact.sum(-1)[known])[0, 1] if known.sum() > 2 else np.nan
    ahead = np.where(known, exact.sum(-1) * np.array([-1, 1])[:, None], np.inf)
    sorting = np.argsort(ahead, axis=-1, kind="stable")[..., :settings.shown]
    order, exact = np.take_along_axis(order, sorting, -1), np.take_along_axis(exact, sorting[..., None], -2)
    found = _tokens_of(model, factors, asked, training, order, settings)
    return xr.Dataset(
        {name: (("query", "side", "rank"), values) for name, values in {"row": order, **found}.items()}
        | {"score": (("query", "side", "rank"), exact.sum(-1)),
           "by_layer": (("query", "side", "rank", "layer"), exact), "agreement": float(agreement)},
        coords={"side": list(SIDES)})


def extremes(scores: Float[np.ndarray, "Q n L"], count: int) -> Int[np.ndarray, "Q 2 count"]:
    """Rows of the highest and the lowest sums over layers, best and worst first; -1 where there are no more.

    >>> extremes(np.array([[[1.0], [np.nan], [-2.0], [3.0]]]), 2).tolist()
    [[[3, 0], [2, 0]]]
    """
    total = scores.sum(-1)
    known = ~np.isnan(total)
    out = np.full((len(total), 2, min(count, total.shape[1])), -1)
    for number, (values, real) in enumerate(zip(total, known)):
        order = np.flatnonzero(real)[np.argsort(values[real], kind="stable")][::-1]
        kept_ = min(len(order), out.shape[2])
        out[number, 0, :kept_], out[number, 1, :kept_] = order[:kept_], order[::-1][:kept_]
    return out


def _tokens_of(
    model: Model, factors: Factors, asked: Asked, training: Training, order: Int[np.ndarray, "Q 2 r"],
    settings: InfluenceSettings,
) -> dict[str, np.ndarray]:
    """Text, language and influence by token of the chosen sequences."""
    rows = np.unique(order[order >= 0])
    tokens = training.tokens.rows(rows)
    each = by_token(model, factors.matrices, asked.gradients, tokens, batch_tokens=settings.batch_tokens)
    written = [pieces(model.tokenizer, ids.tolist()) for ids in tokens.ids]
    blank: dict[str, Any] = {"text": "", "language": "", "pieces": "[]", "weights": "[]"}
    found = {name: np.full(order.shape, value, object) for name, value in blank.items()}
    found["spurious"] = np.zeros(order.shape, bool)
    for at in np.argwhere(order >= 0):
        query, place = int(at[0]), tuple(at)
        number = int(np.searchsorted(rows, order[place]))
        values = each[number][query]
        found["text"][place] = _clean(training.corpus.texts[order[place]])
        found["language"][place] = str(training.languages[order[place]])
        found["pieces"][place] = json.dumps([_clean(piece) for piece in written[number]])
        found["weights"][place] = json.dumps([float(f"{value:.4g}") for value in values])
        found["spurious"][place] = bool(spurious(values))
    return {name: values.astype(str) if values.dtype == object else values for name, values in found.items()}


def _clean(text: str) -> str:
    """Text that netCDF can hold: no half of a surrogate pair, no NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
