"""Across languages: does a translation influence a query more than other sentences of its language and length?

Three questions, each with what chance gives. Where does the translation of a query stand among sentences of its own
language, length and other documents (AUC; the null takes another sentence for the translation, the same one in all
languages)? How much influence have the sequences that matter most to a query on its translation (by layer; beside
them, on a query of another sentence)? And is it gone when prompt and completion stand the other way round?
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from xlingjax.analyses.influence.queries import halved
from xlingjax.analyses.influence.scanning import AT_ONCE, Asked, Training, ask, whole_bytes
from xlingjax.analyses.influence.settings import InfluenceSettings
from xlingjax.corpora.anchors import wordless
from xlingjax.corpora.batching import counted
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.parallel import parallel_rows
from xlingjax.corpora.tokenising import Tokens, pieces, tokenise
from xlingjax.errors import InputError
from xlingjax.influence.candidates import shared_tokens
from xlingjax.influence.factors import Factors
from xlingjax.influence.scoring import normalised
from xlingjax.kernels.matched_ranks import matched_ranks
from xlingjax.kernels.resampling import document_bootstrap, independent_blocks, joint_permutations
from xlingjax.models import Model
from xlingjax.progress import progress

MEASURES = ("influence", "normalised", "without anchors", "shared tokens", "flipped")


class Sentences(NamedTuple):
    """Translated sentences: m of them in each of G languages, row g m + i the i-th of language g."""

    corpus: Corpus
    each: int

    @property
    def languages(self) -> tuple[str, ...]:
        """In the order of the rows."""
        return self.corpus.language_names

    def of(self, language: int) -> slice:
        """Rows of one language."""
        return slice(language * self.each, (language + 1) * self.each)


def choose_sentences(corpus: Corpus, count: int, seed: int, tokenizer: Any, length: int) -> Sentences:
    """Sentences that every language has, drawn at random from those that the model can read whole in all of them.

    Sentences of a single word in some language are left out as well.

    Raises:
        InputError: fewer than three are left.
    """
    rows = parallel_rows(corpus)
    lengths = tokenise(tokenizer, corpus.texts, length + 1).lengths
    spare = 2  # a query joins its halves by a blank, and the halves may be turned round
    usable = np.array([lengths[row] <= length - spare and (len(text.split()) > 1 or len(text) > 3)
                       for row, text in enumerate(corpus.texts)])
    rows = rows[:, usable[rows].all(0)]
    if rows.shape[1] < 3:
        raise InputError(f"{rows.shape[1]} sentences of corpus {corpus.name!r} have at most {length} tokens in all "
                         "languages; give shorter ones, leave out a language, or raise length")
    drawn = np.sort(np.random.default_rng([seed, 7]).permutation(rows.shape[1])[:count])
    return Sentences(corpus.rows(rows[:, drawn].reshape(-1)), len(drawn))


class Ranks(NamedTuple):
    """AUC of item j among its distractors for query i, for measures x source x target languages."""

    auc: Float[np.ndarray, "X G G m m"]
    emptied: int  # pairs of a language and a sentence of which nothing was left to score without anchors


def rank_translations(model: Model, factors: Factors, sentences: Sentences, settings: InfluenceSettings) -> Ranks:
    """Every sentence of every language as a query, every other one as what might have influenced it.

    One pass over the sentences serves all queries; without anchors there is one for each language, whose pieces they
    are.
    """
    corpus, m, languages = sentences.corpus, sentences.each, sentences.languages
    tokens = tokenise(model.tokenizer, corpus.texts, settings.length)
    whole = halved(corpus, np.arange(len(corpus)))
    flipped = tokenise(model.tokenizer, whole.flipped, settings.length)
    blocks = independent_blocks(corpus.documents, corpus.parallel)
    score = lambda asked, what, scored=None: normalised(
        model, factors, asked.gradients, what, scored, batch_tokens=settings.batch_tokens, show=False)
    fits = len(whole) * whole_bytes(factors) <= 2 * AT_ONCE
    everyone = ask(model, factors, whole, settings, None, 0 if fits else settings.rank)
    straight, root = score(everyone, tokens)
    other, _ = score(everyone, flipped)
    auc = np.full((len(MEASURES), len(languages), len(languages), m, m), np.nan)
    emptied = 0
    with progress(total=len(languages), label="translations", unit="languages") as bar:
        for a in range(len(languages)):
            own = sentences.of(a)
            asked = everyone.rows(own)
            kept, empty = without_anchors(model, tokens, sentences, a)
            emptied += int(empty.sum())
            found = {"influence": straight[own] * root, "normalised": straight[own],
                     "without anchors": np.where(empty, 0, score(asked, tokens, kept)[0]),
                     "shared tokens": _shared(asked, tokens, model, settings)}
            found["flipped"] = found["normalised"]
            for b in range(len(languages)):
                to = sentences.of(b)
                for number, name in enumerate(MEASURES):
                    auc[number, a, b] = matched_ranks(
                        found[name][:, to], tokens.lengths[to], blocks[:m], blocks[to], settings.distractors,
                        settings.seed, other[own][:, to] if name == "flipped" else None)
            bar.update(1)
    return Ranks(auc, emptied)


def without_anchors(
    model: Model, tokens: Tokens, sentences: Sentences, a: int,
) -> tuple[list[Bool[np.ndarray, "t"]], Bool[np.ndarray, "n"]]:
    """Which tokens are scored if anchors are left to the context, and rows in which none is.

    Anchors of languages a and b are the pieces with a letter or digit that any sentence of a has in common with its
    translation into b. A row of anchors alone keeps one token, so that the model can read it.
    """
    m = sentences.each
    real = [np.unique(ids[~special]) for ids, special in zip(tokens.ids, tokens.special)]
    out = {}
    for b, name in enumerate(sentences.languages):
        shared = np.unique(np.concatenate([np.intersect1d(real[a * m + i], real[b * m + i]) for i in range(m)]))
        worded = ~wordless(pieces(model.tokenizer, shared.tolist()))
        out[name] = shared[worded] if b != a else shared[:0]
    left = list(counted(tokens, special=True, leave_out=out, languages=sentences.corpus.languages))
    empty = np.array([not one[1:].any() for one in left])
    for row in np.flatnonzero(empty):
        left[row] = np.arange(len(left[row])) == 1
    return left, empty


def _shared(asked: Asked, tokens: Tokens, model: Model, settings: InfluenceSettings) -> Float[np.ndarray, "m n"]:
    """What a look-up of tokens says: the weight of rare ones that query and sentence share."""
    own = asked.queries.tokens(model, settings.length)[0]
    order, values = shared_tokens(own, tokens, model.config.vocab_size, len(tokens))
    out = np.empty(values.shape)
    np.put_along_axis(out, order, values, axis=1)
    return out


def translations(
    ranks: Ranks, sentences: Sentences, trained: Sequence[str], settings: InfluenceSettings,
) -> xr.Dataset:
    """AUC of translations beside its null.

    `auc` [measure, source, target] with `low` and `high` (documents drawn anew), `null` and `p` (share of draws that
    reach it); and over pairs of different languages, of `pairs` "trained" (training texts have both) and "untrained",
    `mean`, `mean_low`, `mean_high`, `mean_null`, `mean_p` [measure, pairs], `draws` [measure, pairs, draw], and `boots`
    [measure, pairs, boot], the means over documents drawn anew, the same ones at every checkpoint. Under the
    null another sentence takes the translation's place, the same one in all languages, whole documents together.

    Args:
        trained: languages that the training texts have.
    """
    corpus, m, languages = sentences.corpus, sentences.each, sentences.languages
    blocks = independent_blocks(corpus.documents, corpus.parallel)[:m]
    moved = joint_permutations(blocks, corpus.parallel[:m], corpus.languages[:m], settings.permutations, settings.seed)
    weights = [document_bootstrap(blocks, settings.seed + draw) for draw in range(settings.draws)]
    own = np.diagonal(ranks.auc, axis1=-2, axis2=-1)  # [X, G, G, m]
    observed = np.nanmean(own, -1)
    null = np.stack([np.nanmean(ranks.auc[..., np.arange(m), draw], -1) for draw in moved], -1)
    boots = np.stack([_weighted(own, weight) for weight in weights], -1)
    low, high = np.quantile(boots, (0.025, 0.975), axis=-1)
    known = np.isin(languages, list(trained))
    apart = ~np.eye(len(languages), dtype=bool)
    classes = {"trained": apart & known & known[:, None], "untrained": apart & ~(known & known[:, None])}
    over = lambda values: np.stack([values[:, chosen].mean(1) if chosen.any() else np.full_like(values[:, 0, 0], np.nan)
                                    for chosen in classes.values()], 1)
    mean, draws, drawn = over(observed), over(null), over(boots)
    mean_low, mean_high = np.quantile(drawn, (0.025, 0.975), axis=-1)
    pair, both = ("measure", "source", "target"), ("measure", "pairs")
    return xr.Dataset(
        {"auc": (pair, observed), "low": (pair, low), "high": (pair, high), "null": (pair, null.mean(-1)),
         "p": (pair, _reached(observed, null)), "mean": (both, mean), "mean_low": (both, mean_low),
         "mean_high": (both, mean_high), "mean_null": (both, draws.mean(-1)), "mean_p": (both, _reached(mean, draws)),
         "draws": ((*both, "draw"), draws), "boots": ((*both, "boot"), drawn), "emptied": ranks.emptied},
        coords={"measure": list(MEASURES), "source": list(languages), "target": list(languages),
                "pairs": list(classes)},
        attrs={"sentences": m, "documents": len(np.unique(blocks)), "distractors": settings.distractors,
               "permutations": settings.permutations})


def _reached(observed: Float[np.ndarray, "*q"], null: Float[np.ndarray, "*q R"]) -> Float[np.ndarray, "*q"]:
    """Share of draws, the observation among them, that are as high."""
    p = (1 + (null >= observed[..., None] - 1e-12).sum(-1)) / (null.shape[-1] + 1)
    return np.where(np.isnan(observed), np.nan, p)


def _weighted(values: Float[np.ndarray, "*q m"], weight: Int[np.ndarray, "m"]) -> Float[np.ndarray, "*q"]:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.nansum(values * weight, -1) / (known * weight).sum(-1)


def ratio_by_layer(
    asked: Asked, training: Training, scores: Float[np.ndarray, "Q n L"], settings: InfluenceSettings,
) -> xr.Dataset:
    """Influence of the top sequences of a query on its translations, as a part of that on the query itself.

    Tops of a query are the most influential sequences of its own language. `ratio` [source, target, layer] and
    `unrelated`, the same for queries of other sentences in the target language; `whole` and `whole_unrelated`
    [source, target] over all layers, `low` and `high` by drawing queries anew. Each query's scores are divided by the
    root of its influence on itself. The queries must be the same ones in every language. NaN where training has no
    sequence in the source language.
    """
    languages = asked.queries.language_names
    m, layers = len(asked.queries) // len(languages), scores.shape[2]
    scaled = scores / np.sqrt(asked.own)[:, None, None]
    shape = (len(languages), len(languages), m, layers)
    above, other, below = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    for a, name in enumerate(languages):
        rows = np.flatnonzero(training.languages == name)
        if not len(rows):
            continue
        for i in range(m):
            order = rows[np.argsort(-np.nan_to_num(scaled[a * m + i, rows].sum(-1), nan=-np.inf))[:settings.tops]]
            for b in range(len(languages)):
                others = [b * m + j for j in range(m) if j != i]
                above[a, b, i] = np.nansum(scaled[b * m + i, order], 0)
                other[a, b, i] = np.nanmean(np.nansum(scaled[others][:, order], 1), 0) if others else np.nan
                below[a, b, i] = np.nansum(scaled[a * m + i, order], 0)
    rng = np.random.default_rng([settings.seed, 19])
    drawn = rng.integers(0, m, (settings.draws, m))
    part = lambda top, rows=slice(None): top[:, :, rows].sum(2) / below[:, :, rows].sum(2)
    total = lambda top, rows=slice(None): top[:, :, rows].sum((2, 3)) / below[:, :, rows].sum((2, 3))
    low, high = np.quantile(np.stack([total(above, rows) for rows in drawn]), (0.025, 0.975), axis=0)
    pair = ("source", "target")
    return xr.Dataset(
        {"ratio": ((*pair, "layer"), part(above)), "unrelated": ((*pair, "layer"), part(other)),
         "whole": (pair, total(above)), "whole_unrelated": (pair, total(other)), "low": (pair, low),
         "high": (pair, high)},
        coords={"source": list(languages), "target": list(languages), "layer": np.arange(layers)},
        attrs={"tops": settings.tops})
