"""The experiment: at each checkpoint experts are found, forced beside their controls, and what is written judged."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from xlingjax.analyses.checkpoints import checkpoint_coordinates, over_checkpoints
from xlingjax.analyses.reading import Matrix, longest
from xlingjax.analyses.results import storable
from xlingjax.analyses.sources import Source
from xlingjax.analyses.steering import effects
from xlingjax.analyses.steering.claims import LEVEL, claims
from xlingjax.analyses.steering.conditions import (
    AS_PERPLEXED,
    CONTROLS,
    EXPERTS,
    ROLES,
    UNFORCED,
    Chosen,
    Condition,
    choose,
    require_concepts,
    sizes,
)
from xlingjax.analyses.steering.settings import SteerSettings
from xlingjax.analyses.steering.summary import summarise
from xlingjax.analyses.steering.switching import switch_on
from xlingjax.corpora.corpus import Corpus
from xlingjax.errors import InputError
from xlingjax.files import claim
from xlingjax.judging.concepts import ConceptJudge, fit_concepts
from xlingjax.judging.languages import UNDETERMINED, LanguageJudge, LibraryLanguages, confusion, fit_languages
from xlingjax.kernels.resampling import document_halves, independent_blocks
from xlingjax.kernels.traces import holm
from xlingjax.models import Model
from xlingjax.progress import progress
from xlingjax.responses.collecting import collect
from xlingjax.responses.jobs import read_sites

Say = Callable[[str], None]
JUDGES = ("ngrams", "library")


class Judges:
    """Both judges and how they err, from documents that found no expert.

    Args:
        corpus: these documents.
        kind: "ngrams", trained on them, or "library", py3langid.
        concepts: those that are judged.
    """

    def __init__(self, corpus: Corpus, kind: str, concepts: Sequence[str], seed: int) -> None:
        if kind not in JUDGES:
            raise InputError(f"judge {kind!r} is unknown; choose among {', '.join(JUDGES)}")
        self.languages: LanguageJudge
        if kind == "ngrams":
            self.languages, rest = fit_languages(corpus, seed)
        else:
            self.languages, rest = LibraryLanguages(corpus.language_names), corpus
        self.confusion = confusion(self.languages, rest)
        self.broken = confusion(self.languages, rest, broken=True)
        self.concepts: ConceptJudge = fit_concepts(corpus.with_concepts(concepts), seed)


def steer(
    sources: Sequence[Source], corpus: Corpus, settings: SteerSettings, workdir: str | Path, *, judge: str = "ngrams",
    tokenizer: Any = None, say: Say | None = None,
) -> xr.DataTree:
    """Forces a concept's neurons at each checkpoint, and says which language answers, beside all controls.

    Half of the documents find experts and their values, the other half train and test the judges. Killed and
    started again, it goes on with the checkpoint it was at.

    Args:
        sources: the checkpoints, in order.
        corpus: labelled sentences in several languages.
        settings: see `SteerSettings`.
        workdir: responses and the result of each checkpoint are kept here.
        judge: of languages, "ngrams" or "library".
        tokenizer: folder or repository of the tokenizer, where the checkpoints bring none.
        say: gets one line a checkpoint.

    Returns:
        `effects` over checkpoints (see `summary.summarise`, with `displacement`, `neurons` of each condition), `claims`
        by `what` ("share", "joint"; see `claims.claims`),
        `experts`, the forced neurons, `samples`, texts to read, `judges`, how they err, `switched`, what switching
        on each language's neurons does (`switching.switch_on`; `q`: its p by Holm's method over languages).

    Raises:
        InputError: checkpoints, corpus and settings do not fit, or the workdir holds another experiment.
    """
    say = say or (lambda text: None)
    blocks = independent_blocks(corpus.documents, corpus.parallel)
    half = document_halves(blocks, corpus.languages, settings.seed)
    finding, judging = corpus.rows(half == 0), corpus.rows(half == 1)
    require_concepts(finding, settings)
    judges = Judges(judging, judge, [settings.concept], settings.seed)
    identity = {"corpus": corpus.fingerprint, "settings": dataclasses.asdict(settings), "judge": judge,
                "tokenizer": str(tokenizer)}
    with claim(Path(workdir), identity, "steer") as folder:
        found = over_checkpoints(
            sources, folder, lambda model, home: checkpoint(model, finding, judges, settings, home), settings.dtype,
            tokenizer, lambda number, source, made: say(
                f"{number + 1}/{len(sources)} {source.label}: {line(made['effects'], settings)}"),
            lambda model: require_fit(model, settings))
    return _join(found, sources, corpus, settings, judge)


def require_fit(model: Model, settings: SteerSettings) -> None:
    """`InputError` for settings that a model cannot meet: sites, neurons, prompts."""
    sites = model.neuron_sites if settings.sites is None else read_sites(model, settings.sites)
    total, wanted = model.neurons(sites).total, max(settings.k or 0, *(settings.ks or (0,)))
    if wanted > total:
        raise InputError(f"k is {wanted}, but {model.name} has {total:,} neurons at {', '.join(sites)}; choose a "
                         "smaller one or more sites")
    longest, limit = effects.read_prompts(model, settings).tokens.shape[1], model.config.max_length
    if limit and longest + settings.max_new_tokens > limit:
        raise InputError(
            f"a prompt of {longest} tokens and max_new_tokens {settings.max_new_tokens} exceed the {limit} positions "
            f"of {model.name}; shorten the prompt or lower max_new_tokens")


def checkpoint(
    model: Model, finding: Corpus, judges: Judges, settings: SteerSettings, folder: Path,
) -> dict[str, xr.Dataset]:
    """One checkpoint: `effects`, `experts`, `samples`, `judges` and, unless `settings.switch` is "none", `switched`."""
    responses = collect(
        model, finding, settings.sites, settings.pool, folder / "responses", batch_tokens=settings.batch_tokens,
        max_length=longest(model))
    chosen = choose(Matrix(responses), responses.neurons, finding, settings)
    languages = list(judges.languages.names) if settings.switch != "none" else []
    texts = (len(chosen.conditions) + 1 + 2 * len(languages)) * settings.rows
    with progress(total=texts + effects.BISECTIONS * effects.tries(settings).rows, label="texts", unit="texts") as bar:
        made = _write_all(model, chosen, judges, settings, bar.update)
        switched = {} if not languages else {"switched": switch_on(
            model, finding, judges.languages, made.written[UNFORCED], settings, bar.update)}
    written, judged, conditions = made.written, made.judged, made.conditions
    summary = summarise(judged, judges.languages.names, judges.confusion, judges.concepts, settings.concept,
                        settings.draws, settings.seed)
    summary["displacement"] = ("condition", np.array([made.moved.get(name, 0.0) for name in written]))
    summary["neurons"] = ("condition", np.array([sizes(conditions).get(name, 0) for name in written]))
    summary["temperature"] = ("condition", np.array([
        made.temperature if name == AS_PERPLEXED else settings.temperature for name in written]))
    summary.attrs |= {"concept": settings.concept, "source_language": settings.source_language, "k": chosen.k,
                      "other_language": chosen.other_language, "other_concept": chosen.other_concept,
                      "doses": json.dumps(chosen.doses)}
    places = [responses.neurons.neuron(int(flat)) for flat in conditions[EXPERTS].neurons]
    experts = xr.Dataset(
        {"ap": ("rank", chosen.ap[:len(places)]), "site": ("rank", [place.site for place in places]),
         "layer": ("rank", [place.layer for place in places]), "unit": ("rank", [place.unit for place in places]),
         "value": ("rank", conditions[EXPERTS].value)}, coords={"rank": np.arange(1, len(places) + 1)})
    return {"effects": summary, "experts": experts, "samples": _samples(written, judged, judges),
            "judges": _judges(judges, settings), **switched}


class Made(NamedTuple):
    """Texts and verdicts of every condition, and what was forced in each."""

    written: dict[str, effects.Written]
    judged: dict[str, effects.Judged]
    conditions: dict[str, Condition]
    moved: dict[str, float]
    temperature: float  # of the unforced texts that are as perplexed


def _write_all(
    model: Model, chosen: Chosen, judges: Judges, settings: SteerSettings, advance: Callable[[int], None],
) -> Made:
    nothing = {UNFORCED: chosen.conditions[UNFORCED]}
    written = effects.write(model, nothing, settings, advance)
    conditions, moved = _matched(model, chosen, written[UNFORCED], settings)
    written |= effects.write(
        model, {name: one for name, one in conditions.items() if name != UNFORCED}, settings, advance)
    judge = functools.partial(
        effects.judge, model, languages=judges.languages, concepts=judges.concepts, settings=settings)
    judged = {name: judge(one) for name, one in written.items()}
    warm = effects.equal_temperature(model, nothing[UNFORCED], float(judged[EXPERTS].nats.mean()), settings, advance)
    written[AS_PERPLEXED] = effects.write(
        model, nothing, dataclasses.replace(settings, temperature=warm), advance)[UNFORCED]
    judged[AS_PERPLEXED] = judge(written[AS_PERPLEXED])
    first = [UNFORCED, EXPERTS, *(name for name in CONTROLS if name != UNFORCED)]
    order = sorted(written, key=lambda name: first.index(name) if name in first else len(first))
    written, judged = {name: written[name] for name in order}, {name: judged[name] for name in order}
    return Made(written, judged, conditions, moved, warm)


def _matched(
    model: Model, chosen: Chosen, unforced: effects.Written, settings: SteerSettings,
) -> tuple[dict[str, Condition], dict[str, float]]:
    """The conditions with random neurons' displacement scaled to the experts', and how far each one moves."""
    conditions = dict(chosen.conditions)
    moved = {name: 0.0 if name == UNFORCED else effects.displacement(model, one, unforced, settings)
             for name, one in conditions.items()}
    for random, forced in chosen.matched.items():
        conditions[random], moved[random] = effects.with_matched_norm(
            model, conditions[random], moved[forced], unforced, settings)
    return conditions, moved


def _samples(
    written: Mapping[str, effects.Written], judged: Mapping[str, effects.Judged], judges: Judges,
) -> xr.Dataset:
    names = [*judges.languages.names, UNDETERMINED]
    conditions = list(written)
    verdicts = [[names[i] for i in judged[name].verdict] for name in conditions]
    return xr.Dataset(
        {"text": (("condition", "row"), [[storable(text) for text in written[name].texts] for name in conditions]),
         "verdict": (("condition", "row"), verdicts),
         "nats": (("condition", "row"), np.stack([judged[name].nats for name in conditions])),
         "called": (("condition", "row", "language"), np.stack([judged[name].called for name in conditions])),
         "hit": (("condition", "row", "language"), np.stack([judged[name].hits for name in conditions]))},
        coords={"condition": conditions, "language": list(judges.concepts.languages)})


def _judges(judges: Judges, settings: SteerSettings) -> xr.Dataset:
    c, column = judges.concepts, judges.concepts.concepts.index(settings.concept)
    found: dict[str, Any] = {}
    for name, errors in (("classifier", c.classifier), ("lexicon", c.lexicon)):
        found |= {f"{name}_sensitivity": ("language", errors.sensitivity[:, column]),
                  f"{name}_false_positives": ("language", errors.false_positives[:, column])}
    found["agreement"] = ("language", c.agreement[:, column])
    found["markers"] = ("language", [" ".join(words[column]) for words in c.markers])
    found["tested_with"] = ("language", c.classifier.present[:, column])
    found["tested_without"] = ("language", c.classifier.absent[:, column])
    found["broken"] = ("verdict", judges.broken.sum(0))
    return xr.Dataset(
        found, coords={"language": list(c.languages), "verdict": [*judges.languages.names, UNDETERMINED]})


def _missing(dataset: xr.Dataset) -> dict[str, Any]:
    """What stands where a condition or a rank is missing, of each variable's own type."""
    blank = {"U": "", "O": "", "b": False, "i": -1}
    return {str(name): blank.get(values.dtype.kind, np.nan) for name, values in dataset.data_vars.items()}


def line(summary: xr.Dataset, settings: SteerSettings) -> str:
    """What a checkpoint showed, in one line."""
    at = summary.sel(condition=EXPERTS)
    share = {str(name): float(at["share"].sel(verdict=name)) for name in at["verdict"].values}
    first = sorted(share, key=lambda name: -share[name])[:3]
    change = float(at["d_share"].sel(verdict=settings.source_language))
    return (f"forced, {', '.join(f'{name} {share[name]:.2f}' for name in first)}; {settings.source_language} "
            f"{change:+.2f} against unforced")


def _join(
    found: Sequence[Mapping[str, xr.Dataset]], sources: Sequence[Source], corpus: Corpus, settings: SteerSettings,
    judge: str,
) -> xr.DataTree:
    conditions = list(dict.fromkeys(str(name) for one in found for name in one["effects"]["condition"].values))
    joined = {}
    for name in ("effects", "experts", "samples", *(("switched",) if "switched" in found[0] else ())):
        parts = [one[name] for one in found]
        if name in ("effects", "samples"):  # a set of experts may be empty at one checkpoint and not at another
            parts = [part.reindex(condition=conditions, fill_value=_missing(part)) for part in parts]
        joined[name] = xr.concat(
            parts, "checkpoint", join="outer", combine_attrs="override", coords="minimal", compat="override",
            data_vars="all", fill_value=_missing(parts[0])).assign_coords(
            checkpoint_coordinates(sources))
    joined["judges"] = found[-1]["judges"]
    joined["effects"].attrs |= {"roles": json.dumps(ROLES), "controls": json.dumps(CONTROLS)}
    said = ["share", "joint"]
    joined["claims"] = xr.concat([claims(joined["effects"], what) for what in said], "what").assign_coords(
        what=said).assign_attrs(level=LEVEL)
    if "switched" in joined:
        p = joined["switched"]["p"].transpose("checkpoint", "switched")
        joined["switched"]["q"] = p.dims, np.stack([holm(one) for one in p.values])
    tree = xr.DataTree.from_dict(joined)
    tree.attrs = {"model": sources[0].name, "corpus": corpus.name, "corpus_fingerprint": corpus.fingerprint,
                  "settings": json.dumps(dataclasses.asdict(settings)), "judge": judge}
    return tree
