"""Latents of grammatical values: which they are, in how many languages, and whether later layers need them.

After Brinkmann et al. 2025, with the controls that make it say something. Latents of each value are chosen on one part
of the documents (`features.attribution`), probes trained on another, everything tested on a third; sharing stands
beside three chances (`features.universality`); ablation beside matched, specific and random latents, no-op and LEACE
(`features.conditions`), judged at later layers by probes that are trained anew (`features.causal`), under a rule fixed
beforehand (`features.claims`).
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import xarray as xr

from xlingjax import hosts
from xlingjax.analyses.features import probes
from xlingjax.analyses.features.attribution import probe_effects
from xlingjax.analyses.features.causal import Unit, run_unit
from xlingjax.analyses.features.cells import CHOOSE, TEST, TRAIN, Cells, make_cells
from xlingjax.analyses.features.claims import claims
from xlingjax.analyses.features.conditions import MATCHED, RANDOM, ROLES, choose_sets, erase_at, fit_erasers
from xlingjax.analyses.features.downstream_cells import downstream_effects
from xlingjax.analyses.features.examples import top_words
from xlingjax.analyses.features.reading import Activity, Reader
from xlingjax.analyses.features.settings import FeatureSettings
from xlingjax.analyses.features.summary import summary
from xlingjax.analyses.features.universality import latent_table, strongest, universality
from xlingjax.analyses.reading import longest
from xlingjax.analyses.results import read_tree, write_tree
from xlingjax.corpora.tokenising import tokenise
from xlingjax.corpora.words import Treebank, word_positions
from xlingjax.errors import InputError
from xlingjax.files import claim, slug
from xlingjax.models import Model, Splice
from xlingjax.progress import progress
from xlingjax.responses.jobs import params_fingerprint, tokenizer_fingerprint
from xlingjax.sae import Dictionary

__all__ = ["FeatureSettings", "grammatical_features", "summary"]

Pairs = Callable[[Mapping[str, Splice], str], xr.Dataset]
WordLatents = dict[int, tuple[np.ndarray, scipy.sparse.csr_matrix]]  # language -> words, their latents
Training = dict[int, dict[int, tuple[np.ndarray, np.ndarray]]]  # value -> language -> states, sides
PAIRED_DRAWS = 3  # of the random conditions, for minimal pairs


def grammatical_features(
    model: Model, dictionary: Dictionary, bank: Treebank, settings: FeatureSettings | None = None,
    workdir: str | Path | None = None, *, pairs: Pairs | None = None, show: bool | None = None,
) -> xr.DataTree:
    """The whole analysis of one dictionary.

    Args:
        model: with a fast tokenizer.
        dictionary: of any site and layer of it.
        bank: treebanks read with the features that are asked about, in two languages or more.
        workdir: keeps attribution downstream and each finished cell; killed and called again, it goes on from there.
        pairs: (edits, language) -> dataset, for minimal pairs; called for every cell's conditions.

    Returns:
        `probes`, `universality`, `latents`, `effects` (of every latent in every cell, and how active it is),
        `examples`, `downstream`, `causal`, `claims`, and `pairs` where asked for; see the functions that make them.
        `summary` says in sentences what they hold. Attributes: settings, identities, and `left_out`, cells without
        enough words, by name.

    Raises:
        InputError: model, dictionary and treebanks do not fit, too few words everywhere, or the workdir holds
            another experiment.
    """
    settings = settings or FeatureSettings()
    if model.tokenizer is None:
        raise InputError(f"model {model.name!r} has no tokenizer, so it reads no words; load it with tokenizer=")
    dictionary.require(model)
    tokens = tokenise(model.tokenizer, bank.texts, longest(model))
    places = word_positions(model.tokenizer, bank, tokens)
    cells = make_cells(bank, places[:, 0] >= 0, settings)
    reader = Reader(model, dictionary, bank, tokens, places, cells.words, settings)
    identity = {
        "settings": dataclasses.asdict(settings), "treebanks": bank.fingerprint,
        "model": model.fingerprint or params_fingerprint(model.params), "dictionary": _fingerprint(dictionary),
        "tokenizer": tokenizer_fingerprint(model.tokenizer), "pairs": pairs is not None}
    if workdir is None:
        found = _analyse(reader, cells, settings, None, pairs, show)
    else:
        with claim(Path(workdir), identity, "features") as folder:
            found = _analyse(reader, cells, settings, folder, pairs, show)
    tree = xr.DataTree.from_dict(found)
    tree.attrs = {
        "model": model.name, "site": dictionary.site, "layer": dictionary.layer, "dictionary": dictionary.config.kind,
        "latents": dictionary.config.latents, "later": json.dumps(reader.layers[1:]),
        "left_out": json.dumps(list(cells.left_out)), **{k: v for k, v in identity.items() if isinstance(v, str)},
        "settings": json.dumps(identity["settings"])}
    return tree


def _fingerprint(dictionary: Dictionary) -> str:
    held = [dictionary.described(), params_fingerprint(dictionary.params)]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()


def _analyse(
    reader: Reader, cells: Cells, settings: FeatureSettings, folder: Path | None, pairs: Pairs | None,
    show: bool | None,
) -> dict[str, xr.Dataset]:
    activity = _activity(reader, cells, settings)
    contrast, evidence, mean, latents = _choose(reader, cells, settings)
    ranked_by = evidence if settings.ranking == "evidence" else mean
    tops = strongest(ranked_by, settings.k, settings.seed)
    table = latent_table(ranked_by, tops, activity, cells, settings)
    active = {name: (("language", "latent"), getattr(activity, name)) for name in ("frequency", "mean")}
    found = {"universality": universality(ranked_by, activity, cells, settings), "latents": table,
             "effects": xr.Dataset({"evidence": (("value", "language", "latent"), evidence), **active}, coords={
                 "value": list(cells.values), "language": list(cells.languages)})}
    if settings.examples:
        found["examples"] = top_words(latents, table["latent"].values, reader.bank, cells, settings.examples)
    del latents
    rows = _most_words(cells, TRAIN)
    trained, training = _train(reader, cells, settings, rows)
    found["probes"] = _transfer(reader, cells, trained, settings)
    if settings.attributed and reader.later:
        found["downstream"] = _kept(folder, "downstream", functools.partial(
            downstream_effects, reader, cells, contrast, tops, trained, settings, show))
    largest = max(len(cells.of(v, g, TRAIN)[0]) for v, g in zip(*np.nonzero(cells.used)))
    units, untested = _units(cells, ranked_by, tops, activity, training, settings)
    made: dict[tuple[int, int], xr.Dataset] = {}
    paired = []
    for unit in progress(units, label="ablate", unit="cells", show=show):
        v, g = unit.value, unit.language
        name = f"{slug(cells.values[v])}-{slug(cells.languages[g])}"
        made[v, g] = _kept(folder, name, functools.partial(
            run_unit, reader, cells, unit, trained[g], largest, settings))
        if pairs is not None:
            paired.append(_kept(folder, f"pairs-{name}", functools.partial(_pair, reader, cells, unit, pairs)))
    if made:
        found["causal"] = _stack(made, cells).assign_attrs(
            roles=json.dumps(ROLES),
            own_layer="a sanity check: at the dictionary's own layer an ablation acts on the probe by the very "
            "identity that chose the latents", untested=json.dumps(untested),
            drop="mean over later layers of AUROC under no-op minus AUROC under the condition",
            interval=f"95 % over test documents, {settings.bootstraps} draws, the same in every condition")
        found["claims"] = claims(found["causal"])
    if paired:
        found["pairs"] = xr.concat(paired, "cell", join="outer", fill_value=np.nan)
    return found


def _kept(folder: Path | None, name: str, make: Callable[[], xr.Dataset]) -> xr.Dataset:
    """A dataset from the workdir where it is finished there; made and kept otherwise."""
    if folder is None:
        return make()
    path = folder / "cells" / f"{name}.nc"
    if not hosts.agreed(path.exists()):  # all hosts compute, or none does
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make()
        hosts.first_does(f"write {path}", lambda: write_tree(path, {"cell": made}))
    return read_tree(path)["cell"]


def _activity(reader: Reader, cells: Cells, settings: FeatureSettings) -> Activity:
    """Over the sentences whose words choose latents, in each language."""
    bank = reader.bank
    choosing = np.unique(bank.row[cells.words[cells.part == CHOOSE]])
    language = np.array([cells.languages.index(name) for name in bank.languages[choosing].tolist()])
    return reader.activity(choosing, language, len(cells.languages))


def _most_words(cells: Cells, part: int) -> int:
    return max(len(cells.any_of(g, part)) for g in range(len(cells.languages)))


def _languages(cells: Cells) -> list[int]:
    return [g for g in range(len(cells.languages)) if cells.used[:, g].any()]


def _choose(
    reader: Reader, cells: Cells, settings: FeatureSettings,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, WordLatents]:
    """Contrast, evidence, mean effect of every latent in every cell [V, G, M]; the words' latents by language."""
    directions = reader.dictionary.directions
    contrast, evidence, mean = np.full((3, len(cells.values), len(cells.languages), len(directions)), np.nan)
    latents = {}
    rows = _most_words(cells, CHOOSE)
    for g in _languages(cells):
        at = cells.any_of(g, CHOOSE)
        words = cells.words[at]
        own = reader.states(words)[0, :1, :, :directions.shape[1]]
        w = probes.fit_language(own, at, cells, CHOOSE, g, rows, settings.l2)[0]
        latents[g] = words, reader.latents(words)
        for v in np.flatnonzero(cells.used[:, g]):
            inside = np.flatnonzero(cells.side[v, at] >= 0)
            effects = probe_effects(latents[g][1][inside], cells.side[v, at[inside]] == 1, w[v], directions)
            contrast[v, g], evidence[v, g], mean[v, g] = effects
    return contrast, evidence, mean, latents




def _train(
    reader: Reader, cells: Cells, settings: FeatureSettings, rows: int,
) -> tuple[dict[int, np.ndarray], Training]:
    """Language -> probes [L, V, D + 1]; and value -> language -> training words at the own place, with sides."""
    trained: dict[int, np.ndarray] = {}
    training: Training = {v: {} for v in range(len(cells.values))}
    for g in _languages(cells):
        at = cells.any_of(g, TRAIN)
        states = reader.states(cells.words[at])[0]
        trained[g] = probes.fit_language(states, at, cells, TRAIN, g, rows, settings.l2)
        own = states[0, :, :reader.dictionary.config.inputs]
        for v in np.flatnonzero(cells.used[:, g]):
            inside = cells.side[v, at] >= 0
            training[int(v)][g] = own[inside], cells.side[v, at[inside]] == 1
    return trained, training


def _transfer(
    reader: Reader, cells: Cells, trained: Mapping[int, np.ndarray], settings: FeatureSettings,
) -> xr.Dataset:
    """AUROC of each language's probes on test words of every language that has the value."""
    shape = (len(cells.values), len(cells.languages), len(cells.languages), len(reader.layers))
    found, low, high = np.full((3, *shape), np.nan)
    draws = probes.document_draws(cells, settings.bootstraps, settings.seed)
    for b in _languages(cells):
        test = cells.any_of(b, TEST)
        states = reader.states(cells.words[test])[0]
        for v in np.flatnonzero(cells.used[:, b]).tolist():
            at, has = cells.of(v, b, TEST)
            inside = states[:, np.searchsorted(test, at)]
            for a in np.flatnonzero(cells.used[v]).tolist():
                own = a == b
                weight = draws[cells.document[at]] if own else np.ones((len(at), 1), int)
                areas = probes.areas(probes.logits(inside, trained[a][:, v]), has, weight)
                found[v, a, b] = areas[:, 0]
                if own:
                    low[v, a, b], high[v, a, b] = np.nanquantile(areas[:, 1:], (0.025, 0.975), axis=1)
    axes = ("value", "language", "language_b", "layer")
    return xr.Dataset(
        {"auroc": (axes, found), "auroc_low": (axes, low), "auroc_high": (axes, high),
         "words": (("value", "language", "part", "side"), np.minimum(cells.counts, settings.words)),
         "used": (("value", "language"), cells.used)},
        coords={"value": list(cells.values), "language": list(cells.languages), "language_b": list(cells.languages),
                "layer": reader.layers, "part": ["choose", "train", "test"], "side": ["without", "with"]},
        attrs={"chance": 0.5, "probe": "trained in language, tested on other documents of language_b"})


def _units(
    cells: Cells, effects: np.ndarray, tops: np.ndarray, activity: Activity, training: Training,
    settings: FeatureSettings,
) -> tuple[list[Unit], list[str]]:
    units, untested = [], []
    for v, g in zip(*(axis.tolist() for axis in np.nonzero(cells.used))):
        in_language = np.stack([activity.frequency[g], activity.mean[g]], 1)
        sets = choose_sets(effects[v], tops[v], cells.used[v], g, in_language, settings,
                           settings.seed + 1000 * v + g)
        if sets is None:
            untested.append(f"{cells.values[v]} in {cells.languages[g]}: no latent is in the tops of "
                            f"{settings.sharing} other languages")
        else:
            units.append(Unit(v, g, sets, fit_erasers(training[v], g)))
    return units, untested


def _conditions(reader: Reader, unit: Unit) -> Iterator[tuple[str, Splice]]:
    """Each condition as an edit of all rows alike, random ones a few draws only."""
    keep = unit.sets.keep(reader.width)
    drawn = {MATCHED: 0, RANDOM: 0}
    for i, (name, kind) in enumerate(zip(unit.sets.names, unit.sets.kinds)):
        drawn[kind] = drawn.get(kind, 0) + 1
        if kind not in (MATCHED, RANDOM) or drawn[kind] <= PAIRED_DRAWS:
            yield name, reader.silence(keep[i:i + 1])
    for name, eraser in zip(("leace", "leace elsewhere"), unit.erasers):
        yield name, erase_at(reader.dictionary.layer, (eraser,))


def _pair(reader: Reader, cells: Cells, unit: Unit, pairs: Pairs) -> xr.Dataset:
    language = cells.languages[unit.language]
    found = {name: pairs({reader.dictionary.site: edit}, language) for name, edit in _conditions(reader, unit)}
    return xr.concat(list(found.values()), "condition").assign_coords(
        condition=list(found), value=cells.values[unit.value], tested=language)


def _stack(made: Mapping[tuple[int, int], xr.Dataset], cells: Cells) -> xr.Dataset:
    """Cells along `value` and `language`; NaN where one was not tested."""
    first = next(iter(made.values()))
    shape = (len(cells.values), len(cells.languages))
    out: dict[str, Any] = {}
    for name, one in first.data_vars.items():
        values = np.full((*shape, *one.shape), np.nan)
        for (v, g), dataset in made.items():
            values[v, g] = dataset[name].values
        out[str(name)] = (("value", "language", *one.dims), values, one.attrs)
    coords = {name: coord for name, coord in first.coords.items()}
    return xr.Dataset(out, coords=coords | {"value": list(cells.values), "language": list(cells.languages)})

