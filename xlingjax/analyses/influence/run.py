"""The experiment: at each checkpoint factors are fitted, training sequences scored, and languages compared."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from xlingjax.analyses.checkpoints import join_checkpoints, over_checkpoints
from xlingjax.analyses.influence.crossing import (
    Sentences,
    choose_sentences,
    rank_translations,
    ratio_by_layer,
    translations,
)
from xlingjax.analyses.influence.queries import Queries, halved
from xlingjax.analyses.influence.scanning import Asked, Training, ask, extremes, read_hits, read_training, scan
from xlingjax.analyses.influence.settings import InfluenceSettings
from xlingjax.analyses.reading import chosen_losses, longest
from xlingjax.analyses.sources import Source
from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.files import claim
from xlingjax.influence.factors import fit_factors
from xlingjax.influence.planning import plan_influence
from xlingjax.kernels.tails import power_law, top_share
from xlingjax.kernels.traces import holm, simultaneous_band
from xlingjax.models import Model

Say = Callable[[str], None]
LEVEL = 0.05
TAIL = 0.01  # of the sequences, at least LEAST_TAIL of them
LEAST_TAIL = 50


class Asking(NamedTuple):
    """What every checkpoint is asked."""

    texts: Corpus
    parallel: Corpus
    queries: Queries | None = None

    def of(self, model: Model, settings: InfluenceSettings) -> tuple[Queries, Sentences]:
        """The queries and the translated sentences that this model can read; the same for all of one tokenizer."""
        sentences = choose_sentences(
            self.parallel, settings.pairs, settings.seed, model.tokenizer, min(settings.length, longest(model)))
        few = sentences.each * np.arange(len(sentences.languages))[:, None] + np.arange(
            min(settings.asked, sentences.each))
        return self.queries or halved(sentences.corpus, few.reshape(-1)), sentences


def trace_influence(
    sources: Sequence[Source], texts: Corpus, parallel: Corpus, settings: InfluenceSettings, workdir: str | Path, *,
    queries: Queries | None = None, tokenizer: Any = None, say: Say | None = None,
) -> xr.DataTree:
    """Which training sequences made each checkpoint say what the queries say, and whether it crosses languages.

    Killed and started again, it goes on where it was: factors, gradients of queries and scores are kept by parts.

    Args:
        sources: the checkpoints, decoders, in order.
        texts: what they were trained on, or a sample of it; a text is a training sequence.
        parallel: translated sentences that training has not seen.
        queries: what is asked of the training sequences; by default `settings.asked` sentences of `parallel` in each
            language, their first half the prompt.
        tokenizer: folder or repository of the tokenizer, where the checkpoints bring none.
        say: gets one line a checkpoint.

    Returns:
        Over checkpoints: `queries` (loss, influence on itself, tail), `hits` (`scanning.read_hits`), `languages` (share
        of the most influential sequences by their language, beside the share of all), `ratio`
        (`crossing.ratio_by_layer`, where queries are translations), `translations` (`crossing.translations`); `claims`
        [measure, checkpoint], the means over pairs of languages against a band over all checkpoints, and `pairs`,
        adjusted p of each pair at the last checkpoint.

    Raises:
        InputError: checkpoints, texts and settings do not fit, or the workdir holds another experiment.
    """
    say = say or (lambda text: None)
    if settings.sequences:
        drawn = np.random.default_rng([settings.seed, 5]).permutation(len(texts))[:settings.sequences]
        texts = texts.rows(np.sort(drawn))
    asking = Asking(texts, parallel, queries)
    identity = {"texts": texts.fingerprint, "parallel": parallel.fingerprint,
                "queries": None if queries is None else queries.fingerprint,
                "settings": json.loads(json.dumps(dataclasses.asdict(settings))), "tokenizer": str(tokenizer)}
    with claim(Path(workdir), identity, "influence") as folder:
        found = over_checkpoints(
            sources, folder, lambda model, home: checkpoint(model, asking, settings, home), settings.dtype, tokenizer,
            lambda number, source, made: say(f"{number + 1}/{len(sources)} {source.label}: {line(made)}"),
            lambda model: require_fit(model, asking, settings, say))
    joined = join_checkpoints(found, sources)
    joined["claims"], joined["pairs"] = claims(joined["translations"])
    tree = xr.DataTree.from_dict(joined)
    tree.attrs = {"model": sources[0].name, "texts": texts.name, "texts_fingerprint": texts.fingerprint,
                  "parallel": parallel.name, "parallel_fingerprint": parallel.fingerprint, "level": LEVEL,
                  "settings": json.dumps(dataclasses.asdict(settings))}
    return tree


def require_fit(model: Model, asking: Asking, settings: InfluenceSettings, say: Say) -> None:
    """`InputError` for texts and queries that a model cannot read, and for more memory than there is."""
    if not model.config.causal or not model.config.head:
        raise InputError(f"model {model.name!r} is no decoder with a head, so it has no loss on text; take a decoder")
    length = min(settings.length, longest(model))
    queries, sentences = asking.of(model, settings)
    queries.tokens(model, length)
    training = read_training(model, asking.texts, length)
    planned = plan_influence(model, training.tokens, settings.factors, queries=max(len(queries), sentences.each))
    say(str(planned))
    planned.require()


def checkpoint(model: Model, asking: Asking, settings: InfluenceSettings, folder: Path) -> dict[str, xr.Dataset]:
    """One checkpoint: what `trace_influence` joins."""
    settings = dataclasses.replace(settings, length=min(settings.length, longest(model)))
    queries, sentences = asking.of(model, settings)
    training = read_training(model, asking.texts, settings.length)
    drawn = np.sort(np.random.default_rng([settings.seed, 3]).permutation(len(training.tokens))[:settings.fitted])
    factors = fit_factors(model, training.tokens.rows(drawn), settings.factors, folder / "factors")
    asked = ask(model, factors, queries, settings, folder / "queries.npz", settings.rank)
    scores = scan(model, factors, asked, training, settings, folder / "scores")
    made = {"queries": _queries(model, asked, scores, settings),
            "hits": read_hits(model, factors, asked, training, scores, settings),
            "languages": _languages(asked, training, scores, settings)}
    if queries.aligned:
        made["ratio"] = ratio_by_layer(asked, training, scores, settings)
    made["translations"] = translations(
        rank_translations(model, factors, sentences, settings), sentences, training.corpus.language_names, settings)
    return made


def _queries(
    model: Model, asked: Asked, scores: Float[np.ndarray, "Q n L"], settings: InfluenceSettings,
) -> xr.Dataset:
    totals = scores.sum(-1)
    tails = []
    for row in totals:
        known = row[~np.isnan(row)]
        tails.append(power_law(known, max(LEAST_TAIL, round(TAIL * len(known))), seed=settings.seed))
    queries = asked.queries
    return xr.Dataset(
        {"prompt": ("query", np.array(queries.prompts)), "completion": ("query", np.array(queries.completions)),
         "language": ("query", queries.languages.astype(str)), "parallel": ("query", queries.parallel.astype(str)),
         "nats": ("query", _nats(model, queries, settings)), "own": ("query", asked.own),
         "exponent": ("query", [one.exponent for one in tails]), "distance": ("query", [one.distance for one in tails]),
         "tail_p": ("query", [one.p for one in tails]), "tail": ("query", [one.size for one in tails]),
         "top_share": ("query", [top_share(row[~np.isnan(row)], TAIL) for row in totals]),
         "positive": ("query", np.nanmean(np.where(np.isnan(totals), np.nan, totals > 0), 1)),
         "scored": ("query", (~np.isnan(totals)).sum(1))})


def _nats(model: Model, queries: Queries, settings: InfluenceSettings) -> Float[np.ndarray, "Q"]:
    """Of a token of each completion."""
    losses, counts = chosen_losses(model, *queries.tokens(model, settings.length), settings.batch_tokens)
    return losses / counts


def _languages(
    asked: Asked, training: Training, scores: Float[np.ndarray, "Q n L"], settings: InfluenceSettings,
) -> xr.Dataset:
    """`share` [source, language] of the most influential sequences of a query; `chance`, of all that are scored."""
    top = extremes(scores, settings.rescored)[:, 0]
    names, known = training.corpus.language_names, ~np.isnan(scores[..., 0])
    share = np.array([[np.mean(training.languages[row[row >= 0]] == name) for name in names] for row in top])
    chance = np.array([[np.mean(training.languages[row] == name) for name in names] for row in known])
    by_source = lambda values: np.stack([
        values[asked.queries.languages == name].mean(0) for name in asked.queries.language_names])
    pair = ("source", "language")
    return xr.Dataset({"share": (pair, by_source(share)), "chance": (pair, by_source(chance))},
                      coords={"source": list(asked.queries.language_names), "language": list(names)},
                      attrs={"top": settings.rescored})


def claims(translations: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Whether translations stand higher than other sentences, and higher than an untrained model ranks them.

    `above`: the mean over pairs of different languages that were trained on exceeds a band that the null leaves
    anywhere, over all checkpoints and for each measure apart, with probability 0.05. `crosses`: it does so normalised
    and without anchors, and without anchors exceeds the untrained checkpoint (step 0), where there is one: punctuation
    and tokens without meaning rank translations before anything is learned. `gain`, `gain_low`, `gain_high` [measure,
    checkpoint]: the change against it on the same documents drawn anew, NaN without one.

    The second dataset, `q`: at the last checkpoint, p of each pair by Holm's method over pairs.
    """
    trained = translations.sel(pairs="trained", drop=True)
    bands = []
    for name in translations["measure"].values:
        one = trained.sel(measure=name).transpose("checkpoint", ...)
        bands.append(simultaneous_band(one["mean"].values, one["draws"].transpose("draw", "checkpoint").values, LEVEL))
    dims = ("measure", "checkpoint")
    found = xr.Dataset({"band": (dims, [band.upper for band in bands]), "p": (dims, [band.p for band in bands])},
                       coords={"measure": translations["measure"], "checkpoint": translations["checkpoint"]})
    found["above"] = (found["p"] <= LEVEL) & (trained["mean"] > trained["mean_null"])
    found = found.assign(_gains(trained))
    bare = found.sel(measure="without anchors", drop=True)
    learned = (bare["gain_low"] > 0) | bool(np.isnan(bare["gain"]).all())
    found["crosses"] = found["above"].sel(measure="normalised", drop=True) & bare["above"] & learned
    last = translations.isel(checkpoint=-1)
    apart = ~np.eye(last.sizes["source"], dtype=bool)
    adjusted = np.full(last["p"].transpose("measure", "source", "target").shape, np.nan)
    for number, values in enumerate(last["p"].transpose("measure", "source", "target").values):
        adjusted[number][apart] = holm(values[apart])
    pairs = xr.Dataset({"q": (("measure", "source", "target"), adjusted)},
                       coords={name: last[name] for name in ("measure", "source", "target")})
    return found, pairs


def _gains(trained: xr.Dataset) -> dict[str, xr.DataArray]:
    """Means minus those of the untrained checkpoint, with intervals over the same documents."""
    untrained = np.flatnonzero(trained["step"].values == 0)
    if not len(untrained):
        blank = xr.full_like(trained["mean"], np.nan)
        return {"gain": blank, "gain_low": blank, "gain_high": blank}
    before = trained[["mean", "boots"]].isel(checkpoint=int(untrained[0]), drop=True)
    before = before.drop_vars(["step", "tokens_seen"], errors="ignore")
    drawn = trained["boots"] - before["boots"]
    low, high = (drawn.quantile(share, "boot").drop_vars("quantile") for share in (0.025, 0.975))
    return {"gain": trained["mean"] - before["mean"], "gain_low": low, "gain_high": high}


def line(made: Mapping[str, xr.Dataset]) -> str:
    """What a checkpoint showed, in one line."""
    found = made["translations"]
    said = ", ".join(f"{name} {float(found['mean'].sel(measure=name, pairs='trained')):.2f}"
                     for name in ("normalised", "without anchors", "shared tokens"))
    agree = float(made["hits"]["agreement"])
    return f"AUC of translations: {said} (chance 0.5); scores agree with those of whole gradients by {agree:.3f}"
