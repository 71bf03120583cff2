"""Training sequences for each query: scores of all, and the best and worst of them to be read."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from xlingjax.analyses.influence.queries import Queries
from xlingjax.analyses.influence.settings import InfluenceSettings
from xlingjax.analyses.results import storable
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, pieces, tokenise
from xlingjax.errors import InputError
from xlingjax.influence.candidates import shared_tokens, spurious
from xlingjax.influence.factors import Factors
from xlingjax.influence.kept import kept
from xlingjax.influence.scoring import LowRank, by_token, gradients_by_parts, low_rank, pairwise
from xlingjax.influence.store import store_gradients
from xlingjax.models import Model
from xlingjax.progress import progress

SIDES = ("most", "least")
AT_ONCE = 1 << 30  # bytes of whole gradients of queries


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
        gradients: preconditioned, by name of a matrix; whole [Q, L, J, O], or `LowRank`. own: I(q, q) of each.
    """

    queries: Queries
    gradients: Mapping[str, Any]
    own: Float[np.ndarray, "Q"]

    def rows(self, index: slice | np.ndarray) -> "Asked":
        """Some of the queries."""
        part = lambda one: LowRank(one.tall[index], one.wide[index]) if isinstance(one, LowRank) else one[index]
        return Asked(self.queries.rows(np.arange(len(self.queries))[index]),
                     {name: part(one) for name, one in self.gradients.items()}, self.own[index])


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


def ask(
    model: Model, factors: Factors, queries: Queries, settings: InfluenceSettings, path: Path | None, rank: int,
) -> Asked:
    """Gradients of log p(completion | prompt) through the inverse, of this rank or (0) whole; kept at `path`.

    Whole ones are made for as many queries at a time as `AT_ONCE` bytes hold.
    """
    def make() -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {}
        order = []
        for rows, plain, turned in whole_gradients(model, factors, queries, settings):
            own = sum(np.einsum("qlio,qlio->q", plain[name], one) for name, one in turned.items())
            found = {"own": np.asarray(own)}
            if rank:
                for name, held in low_rank(turned, rank).items():
                    found |= {f"{name} {side}": values for side, values in held._asdict().items()}
            else:
                found |= turned
            for name, one in found.items():
                parts.setdefault(name, []).append(one.astype(np.float32))
            order.append(rows)
        back = np.argsort(np.concatenate(order))
        return {name: np.concatenate(several)[back] for name, several in parts.items()}

    found = kept(path, make)
    of = lambda name: LowRank(found[f"{name} tall"], found[f"{name} wide"]) if rank else found[name]
    return Asked(queries, {m.name: of(m.name) for m in factors.matrices}, found["own"])


def whole_bytes(factors: Factors) -> int:
    """Of one query's whole gradient."""
    return 4 * sum(one.size for one in factors.squares.values())


def whole_gradients(
    model: Model, factors: Factors, queries: Queries, settings: InfluenceSettings,
) -> Iterator[tuple[Int[np.ndarray, "q"], Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]:
    """Queries in parts that fit into `AT_ONCE` bytes: which they are, their gradients, these through the inverse."""
    tokens, scored = queries.tokens(model, settings.length)
    several = max(1, AT_ONCE // whole_bytes(factors))
    for rows, plain in gradients_by_parts(
            model, factors.matrices, tokens, scored, several, batch_tokens=settings.batch_tokens):
        yield rows, plain, factors.precondition(plain)


def scan(
    model: Model, factors: Factors, asked: Asked, training: Training, settings: InfluenceSettings, folder: Path,
) -> Float[np.ndarray, "Q n L"]:
    """Scores of every query and training sequence by layer, NaN where a sequence is no candidate of a query.

    One pass over the sequences serves all queries. Blocks of sequences are kept in `folder`.
    """
    chosen = candidates(model, factors, asked, training, settings, folder)
    wanted = np.flatnonzero(chosen.any(0))
    out = np.full((len(asked.queries), len(training.tokens), model.config.layers), np.nan, np.float32)
    made = pairwise(
        model, factors.matrices, asked.gradients, training.tokens.rows(wanted), batch_tokens=settings.batch_tokens,
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
    if settings.components:
        store = store_gradients(
            model, factors, training.tokens, folder / "gradients", components=settings.components, block=settings.block,
            batch_tokens=settings.batch_tokens)
        most = min(settings.candidates, len(training.tokens))
        found = np.empty((len(asked.queries), most), int)
        for rows, plain, _ in whole_gradients(model, factors, asked.queries, settings):
            found[rows] = store.nearest(plain, most)[0]
    else:
        tokens, _ = asked.queries.tokens(model, settings.length)
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
    known = order >= 0
    exact = np.full((*order.shape, scores.shape[2]), np.nan)
    found = _Read((*order.shape[:2], min(settings.shown, order.shape[2])), scores.shape[2])
    with progress(total=len(order), label="read", unit="queries") as bar:
        for part, _, turned in whole_gradients(model, factors, asked.queries, settings):
            rows = np.unique(order[part][known[part]])
            again = pairwise(model, factors.matrices, turned, training.tokens.rows(rows),
                             batch_tokens=settings.batch_tokens, show=False).sum(2)
            place = np.searchsorted(rows, np.maximum(order[part], 0))
            scored = np.where(known[part][..., None], again[np.arange(len(part))[:, None, None], place], np.nan)
            ahead = np.where(known[part], scored.sum(-1) * np.array([-1, 1])[:, None], np.inf)
            first = np.argsort(ahead, axis=-1, kind="stable")[..., :settings.shown]
            exact[part] = scored
            found.read(model, factors, turned, training, part, np.take_along_axis(order[part], first, -1),
                       np.take_along_axis(scored, first[..., None], -2), settings)
            bar.update(len(part))
    rough = np.where(known, scores[np.arange(len(order))[:, None, None], np.maximum(order, 0)].sum(-1), np.nan)
    agreement = np.corrcoef(rough[known], exact.sum(-1)[known])[0, 1] if known.sum() > 2 else np.nan
    return xr.Dataset(
        {name: (("query", "side", "rank"), values) for name, values in found.arrays().items()}
        | {"score": (("query", "side", "rank"), found.by_layer.sum(-1)),
           "by_layer": (("query", "side", "rank", "layer"), found.by_layer), "agreement": float(agreement)},
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


class _Read:
    """Sequences to be read, of all queries: rows, texts, and the influence that arises at each token."""

    def __init__(self, shape: tuple[int, ...], layers: int) -> None:
        self.row = np.full(shape, -1)
        self.by_layer = np.full((*shape, layers), np.nan)
        self.spurious = np.zeros(shape, bool)
        blank = {"text": "", "language": "", "pieces": "[]", "weights": "[]"}
        self.texts = {name: np.full(shape, value, object) for name, value in blank.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, as netCDF holds them."""
        return {"row": self.row, "spurious": self.spurious} | {
            name: values.astype(str) for name, values in self.texts.items()}

    def read(
        self, model: Model, factors: Factors, turned: Mapping[str, np.ndarray], training: Training,
        part: Int[np.ndarray, "q"], order: Int[np.ndarray, "q 2 r"], by_layer: Float[np.ndarray, "q 2 r L"],
        settings: InfluenceSettings,
    ) -> None:
        """The chosen sequences of some queries."""
        self.row[part], self.by_layer[part] = order, by_layer
        rows = np.unique(order[order >= 0])
        tokens = training.tokens.rows(rows)
        each = by_token(model, factors.matrices, turned, tokens, batch_tokens=settings.batch_tokens, show=False)
        written = [pieces(model.tokenizer, ids.tolist(), spaced=True) for ids in tokens.ids]
        for at in np.argwhere(order >= 0):
            chosen = order[tuple(at)]
            number = int(np.searchsorted(rows, chosen))
            values, place = each[number][at[0]], (part[at[0]], *at[1:])
            self.texts["text"][place] = storable(training.corpus.texts[chosen])
            self.texts["language"][place] = str(training.languages[chosen])
            self.texts["pieces"][place] = json.dumps([storable(piece) for piece in written[number]])
            self.texts["weights"][place] = json.dumps([float(f"{value:.4g}") for value in values])
            self.spurious[place] = bool(spurious(values))
