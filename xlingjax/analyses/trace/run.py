"""The main job: every measure at every checkpoint of a pre-training run, resumed by checkpoint."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from xlingjax import hosts
from xlingjax.analyses import health
from xlingjax.analyses.checkpoints import checkpoint_coordinates
from xlingjax.analyses.concept_experts import concept_experts
from xlingjax.analyses.experts import pieces
from xlingjax.analyses.finished import FORMAT, RESULT, is_finished, record, recorded, sign
from xlingjax.analyses.language_neurons import language_neurons_at
from xlingjax.analyses.language_probe import probe_checkpoint
from xlingjax.analyses.reading import Matrix, longest
from xlingjax.analyses.results import read_tree, write_tree
from xlingjax.analyses.sources import Source, load_source
from xlingjax.analyses.trace import ladder
from xlingjax.analyses.trace.claims import CLASSES, claims, pair_classes
from xlingjax.analyses.trace.settings import TraceSettings, require_fit
from xlingjax.analyses.trace.usable import shuffled, usable
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.scripts import main_script
from xlingjax.corpora.tokenising import Tokens, tokenise
from xlingjax.errors import InputError
from xlingjax.files import canonical, claim, locked, slug
from xlingjax.kernels.traces import persistence
from xlingjax.models import Model
from xlingjax.models.hub import require_revisions
from xlingjax.models.placing import init_sharded
from xlingjax.models.series import series_of
from xlingjax.responses.collecting import collect
from xlingjax.responses.planning import Plan, plan
from xlingjax.responses.responses import Responses
from xlingjax.sharding import make_mesh

MATCHED = ("expert", "expert_ap", "ap_at_k", "null_ap_at_k", "prevalence", "overlap_mean",
           "covariate_ap", "covariate_p")  # what is compared before and after matching for length


Say = Callable[[str], None]


def trace(sources: Sequence[Source], corpus: Corpus, settings: TraceSettings, workdir: str | Path,
          *, tokenizer: Any = None, say: Say | None = None) -> xr.DataTree:
    """Language probes, concept experts, sharing and health over the checkpoints of one run.

    Killed anywhere and started again with the same arguments, it goes on with the checkpoint it was
    at and ends with the same result. Checkpoints may be added or left out in the same workdir: each
    one's own result is kept, and what joins them is made for the list at hand.

    Args:
        sources: the checkpoints, in order.
        corpus: labelled sentences in several languages.
        settings: see `TraceSettings`.
        workdir: responses and the result of each checkpoint are kept here.
        tokenizer: folder or repository of the tokenizer, where the checkpoints bring none.
        say: gets the plan and one line a checkpoint.

    Returns:
        A tree (attribute `last_sound`: the last checkpoint that is "ok"): `health`, `probe`, and
        for each group of concepts `experts/GROUP` and `claims/GROUP` over checkpoints; of the last
        sound checkpoint `matched/GROUP` (experts raw and with negatives matched by length),
        `ladder/GROUP`, `calls/GROUP`, and `neurons`, shared experts with the pieces that make them
        fire.

    Raises:
        InputError: checkpoints, corpus and settings do not fit, the workdir holds another trace, or a
            finished checkpoint is no longer the one it was.
    """
    with _job(sources, corpus, settings, workdir, tokenizer, say) as job:
        tree = job.run()
    tree.attrs |= {
        "corpus": job.corpus.name, "corpus_fingerprint": job.corpus.fingerprint,
        "model": sources[0].name, "settings": json.dumps(dataclasses.asdict(settings)),
        "dropped_concepts": json.dumps(job.dropped), "unseen": json.dumps(list(settings.unseen)),
        "replicates": "one run, descriptive"}
    return tree


def trace_part(sources: Sequence[Source], corpus: Corpus, settings: TraceSettings, workdir: str | Path,
               part: int, parts: int, *, tokenizer: Any = None, say: Say | None = None) -> list[str]:
    """The checkpoints of one of several jobs on one workdir; `trace` then joins what all have made.

    Args:
        sources, corpus, settings, workdir, tokenizer, say: as of `trace`, the same for every job.
        part: from 1 to `parts`; job i computes every parts-th checkpoint from the i-th on.
        parts: how many jobs there are.

    Returns:
        The labels of the checkpoints that this job has finished.

    Raises:
        InputError: as of `trace`; another process computes one of these checkpoints.
    """
    if not 1 <= part <= parts:
        raise InputError(f"part {part} of {parts} is none; count parts from 1 to {parts}")
    with _job(sources, corpus, settings, workdir, tokenizer, say, shared=True) as job:
        chosen = range(part - 1, len(sources), parts)
        job.finish(chosen)
        return [sources[number].label for number in chosen]


@contextlib.contextmanager
def _job(sources: Sequence[Source], corpus: Corpus, settings: TraceSettings, workdir: str | Path,
         tokenizer: Any, say: Say | None, shared: bool = False) -> Iterator["_Trace"]:
    """A trace with its workdir held, and everything checked that needs no checkpoint."""
    corpus, dropped = usable(corpus, settings.unseen, settings.minimum)
    if settings.shuffle:
        corpus = shuffled(corpus, settings.seed)
    groups = {group: corpus.with_concepts([name for name, of in zip(corpus.concepts, corpus.groups)
                                           if of == group]) for group in dict.fromkeys(corpus.groups)}
    identity = {
        "corpus": corpus.fingerprint, "settings": dataclasses.asdict(settings),
        "tokenizer": str(tokenizer)}
    with claim(Path(workdir), identity, "trace", shared) as folder:
        for name in {source.name for source in sources}:
            require_revisions(name, [
                (one.revision, one.subfolder) for one in sources
                if one.name == name and recorded(folder / one.label) is None])
        yield _Trace(sources, corpus, groups, dropped, settings, folder, tokenizer, say or (lambda text: None))


def plan_trace(model: Model, corpus: Corpus, checkpoints: int, settings: TraceSettings,
               workdir: Path) -> tuple[Plan, str]:
    """The plan of one checkpoint's responses, and what the whole trace will need in words."""
    one = plan(model, corpus, settings.sites, settings.pool, workdir,
               where=_where(settings), batch_tokens=settings.batch_tokens)
    lines = [
        f"trace of {checkpoints} checkpoints of {model.name.split('@')[0]}",
        f"corpus      {corpus.name}: {len(corpus):,} sentences, {len(corpus.language_names)} languages "
        f"({', '.join(corpus.language_names)}), {len(corpus.concepts)} concepts in "
        f"{len(set(corpus.groups))} groups",
        str(one),
        f"all         {checkpoints} x disk = {one.disk_bytes * checkpoints / 2**20:,.0f} MiB"]
    return one, "\n".join(lines)


def _where(settings: TraceSettings) -> Mapping[str, Any] | None:
    return None if settings.first_token else {"first": False}


class _Trace:
    """One trace under way."""

    def __init__(self, sources: Sequence[Source], corpus: Corpus, groups: Mapping[str, Corpus],
                 dropped: list[str], settings: TraceSettings, folder: Path, tokenizer: Any, say: Say) -> None:
        self.sources, self.corpus, self.groups, self.dropped = sources, corpus, groups, dropped
        self.settings, self.folder, self.tokenizer, self.say = settings, folder, tokenizer, say
        self.tokens: Tokens | None = None
        self.planned = False
        self.mesh = make_mesh(settings.mesh) if settings.mesh else None
        self.model: Model | None = None
        self.loaded: Source | None = None

    def finish(self, chosen: Iterable[int]) -> None:
        """Computes those of the chosen checkpoints that are not finished."""
        earlier: dict[str, str] = {}
        numbers = list(chosen)
        done = hosts.agreed([is_finished(
            self.folder / self.sources[number].label, self.sources[number], self.tokenizer,
            functools.partial(self._load, self.sources[number])) for number in numbers])
        for number, finished in zip(numbers, done):
            source = self.sources[number]
            path = self.folder / source.label / RESULT
            if not finished:
                signed = sign(source, self.tokenizer)
                self._load(source)  # what does not fit is said before the checkpoint has a folder
                with contextlib.ExitStack() as held:
                    hosts.first_does(f"claiming {path.parent}", functools.partial(
                        held.enter_context, locked(path.parent)))
                    made = self._checkpoint(source)
                    hosts.first_does(f"writing {path}", functools.partial(
                        self._write, path, made, source, signed))
            groups = read_tree(path)
            groups["health"] = _judged(groups["health"], source, earlier)
            self.say(f"{number + 1}/{len(self.sources)} {source.label}: {_line(groups)}")

    def _write(self, path: Path, made: Mapping[str, xr.Dataset], source: Source, signed: Any) -> None:
        write_tree(path, made)
        record(path.parent, source, signed, self._load(source))

    def run(self) -> xr.DataTree:
        self.finish(range(len(self.sources)))
        found: dict[str, dict[str, xr.Dataset]] = {}
        earlier: dict[str, str] = {}
        for source in self.sources:  # also what was just made is read, so that a resumed run cannot differ
            groups = read_tree(self.folder / source.label / RESULT)
            groups["health"] = _judged(groups["health"], source, earlier)
            found[source.label] = groups
        joined = _join(list(found.values()), self.sources)
        last = self._final(found, _last_sound(joined["health"]))
        scripts = self._scripts()
        classes = pair_classes(self.corpus.language_names, scripts, self.settings.unseen)
        for name, corpus in self.groups.items():
            raw = joined[f"experts/{slug(name)}"].isel(adjustment=0, drop=True)
            made = claims(raw, classes, seed=self.settings.seed, sound=joined["health"]["status"].values == "ok")
            stay = persistence(raw["expert"].transpose(
                "checkpoint", "language", "concept", "rank").values)
            kept = xr.DataArray(stay).mean(("dim_2", "dim_3")).values
            made["persistence"] = (("checkpoint", "checkpoint_b"), kept)
            made = made.assign_coords(checkpoint_b=made["checkpoint"].values)
            made.attrs |= {"group": name, "concepts": len(corpus.concepts)}
            joined[f"claims/{slug(name)}"] = made
        tree = xr.DataTree.from_dict({**joined, **last})
        tree.attrs["last_sound"] = _last_sound(joined["health"])
        tree.attrs["scripts"] = json.dumps(scripts)
        tree.attrs["classes"] = json.dumps({name: CLASSES[name] for name in classes})
        return tree

    def _load(self, source: Source) -> Model:
        if self.loaded != source:
            self.model = None  # one checkpoint is freed before the next is loaded
            self.model = load_source(source, self.settings.dtype, self.mesh, self.tokenizer)
            self.loaded = source
            require_fit(self.model, self.settings)
            self.tokens = tokenise(self.model.tokenizer, self.corpus.texts, longest(self.model))
        assert self.model is not None
        if not self.planned:
            self.planned = True
            _, text = plan_trace(self.model, self.corpus, len(self.sources), self.settings, self.folder)
            self.say(text)
        return self.model

    def _responses(self, source: Source, model: Model, pool: str | None = None) -> Responses:
        return collect(model, self.corpus, self.settings.sites, pool or self.settings.pool,
                       self.folder / source.label / (pool or "responses"), where=_where(self.settings),
                       batch_tokens=self.settings.batch_tokens,
                       max_length=longest(model))

    def _options(self) -> dict[str, Any]:
        settings = self.settings
        return {"k": settings.k, "permutations": settings.permutations, "halvings": settings.halvings,
                "bootstraps": settings.bootstraps, "seed": settings.seed}

    def _checkpoint(self, source: Source) -> dict[str, xr.Dataset]:
        model, settings = self._load(source), self.settings
        assert self.tokens is not None
        responses = self._responses(source, model)
        losses = health.language_losses(model, self.corpus, self.tokens, settings.batch_tokens)
        bad = sum(sum(layers) for layers in responses.attrs["nonfinite"].values())
        faults = health.faults(losses, model.config.vocab_size, model.health, bad, settings.unseen)
        losses = losses.assign(faults=faults, fingerprint=model.fingerprint,
                               nonfinite_weights=sum(model.health.values()), nonfinite_responses=bad)
        out = {"health": losses}
        if settings.probe is not None:
            out["probe"] = probe_checkpoint(
                model, self.corpus, self.tokens, settings.probe, settings.seed, settings.batch_tokens)
        if settings.language_neurons:
            out["language_neurons"] = language_neurons_at(
                model, self.corpus, settings.language_neurons, batch_tokens=settings.batch_tokens, seed=settings.seed)
        matrix = Matrix(responses)
        for name, corpus in self.groups.items():
            found = concept_experts(
                matrix, **ladder.expert_inputs(corpus, self.tokens), strata=responses.neurons.strata,
                adjustments=("raw",), **self._options())
            places = [(site, layer) for site, (layers, _) in responses.neurons.shapes.items()
                      for layer in range(layers)]
            out[f"experts/{slug(name)}"] = found.assign_coords(
                stratum_site=("stratum", [site for site, _ in places]),
                stratum_layer=("stratum", [layer for _, layer in places])).assign_attrs(group=name)
        return out

    def _final(self, found: Mapping[str, Mapping[str, xr.Dataset]], label: str) -> dict[str, xr.Dataset]:
        """What is asked of the last sound checkpoint, computed once for it and the step 0 beside it."""
        first = self.sources[0].label if self.sources[0].step == 0 else None
        decided = [[one, (recorded(self.folder / one) or {}).get("model")] for one in (label, first) if one]
        digest = hashlib.sha256(canonical([FORMAT, *decided]).encode()).hexdigest()
        path = self.folder / f"final-{digest[:16]}.nc"
        if not hosts.agreed(path.exists()):
            made = self._last(found[label], label, None if first is None else found[first])
            hosts.first_does(f"writing {path}", lambda: write_tree(path, made))
        return read_tree(path)

    def _last(self, groups: Mapping[str, xr.Dataset], label: str,
              untrained_groups: Mapping[str, xr.Dataset] | None) -> dict[str, xr.Dataset]:
        """The ladder and the neurons of one checkpoint."""
        source = next(one for one in self.sources if one.label == label)
        model = self._load(source)
        assert self.tokens is not None
        responses = self._responses(source, model)
        matrix, strata = Matrix(responses), responses.neurons.strata
        places = self._responses(source, model, "argmax")
        fresh = self._fresh(model) if untrained_groups is None else None
        tokens, options = self.tokens, self._options()
        without_anchors = ladder.anchor_rungs(
            model, self.groups, tokens, matrix, strata,
            ladder.choose_pairs(self.corpus, self.settings.ladder_pairs),
            sites=self.settings.sites, pool=self.settings.pool,
            batch_tokens=self.settings.batch_tokens, **options)
        out: dict[str, xr.Dataset] = {}
        shown: list[pieces.SharedExpert] = []
        for name, corpus in self.groups.items():
            inputs = ladder.expert_inputs(corpus, tokens)
            raw = groups[f"experts/{slug(name)}"]
            by_length = concept_experts(
                matrix, **inputs, strata=strata, adjustments=("length",), length_permutations=2,
                **{**options, "halvings": 1, "permutations": 2})
            experts = xr.concat([raw[list(MATCHED)], by_length[list(MATCHED)]], "adjustment",
                                join="exact", combine_attrs="override").assign_attrs(group=name)
            out[f"matched/{slug(name)}"] = experts
            untrained = ladder.rung(
                untrained_groups[f"experts/{slug(name)}"] if untrained_groups is not None
                else concept_experts(fresh, **inputs, strata=strata, adjustments=("raw",), **options))
            rungs = {
                "tokens": ladder.token_rung(corpus, tokens, **options),
                "untrained": untrained,
                "trained": ladder.rung(raw),
                **without_anchors[name]}
            together = xr.concat(list(rungs.values()), "rung", join="outer", coords="minimal",
                                 compat="override", data_vars="all", combine_attrs="drop")
            out[f"ladder/{slug(name)}"] = together.assign_coords(rung=list(rungs)).assign_attrs(
                checkpoint=source.label, group=name, k=experts.attrs["k"])
            best, calls = pieces.shared_experts(
                model.tokenizer, corpus, tokens, responses, places, experts, name,
                self.settings.shown)
            out[f"calls/{slug(name)}"] = calls
            shown += best
        out["neurons"] = pieces.table(shown).assign_attrs(checkpoint=source.label)
        return out

    def _fresh(self, model: Model) -> Matrix:
        """Responses of the same architecture with random parameters, where no step 0 is traced."""
        key = jax.random.key(self.settings.seed)
        fresh = dataclasses.replace(
            model, params=init_sharded(model.config, key, self.settings.dtype, self.mesh),
            name="untrained", fingerprint="untrained")
        return Matrix(collect(fresh, self.corpus, self.settings.sites, self.settings.pool,
                              where=_where(self.settings), batch_tokens=self.settings.batch_tokens,
                              max_length=longest(model)))

    def _scripts(self) -> dict[str, str]:
        return {name: main_script(self.corpus.language(name).texts)
                for name in self.corpus.language_names}


def _judged(health_of: xr.Dataset, source: Source, earlier: dict[str, str]) -> xr.Dataset:
    """Health with the verdict among the checkpoints before, to whose weights these are added."""
    series = series_of(source.name)
    known = series.defects if series else {}
    weights = str(health_of["fingerprint"].item())
    status = health.verdict(
        str(health_of["faults"].item()), weights, earlier, known.get(source.label, ""))
    earlier.setdefault(weights, source.label)
    return health_of.drop_vars("faults").assign(status=status)


def _last_sound(health: xr.Dataset) -> str:
    """The last checkpoint that is "ok"; without one, the last."""
    names, status = health["checkpoint"].values, health["status"].values
    sound = [str(name) for name, found in zip(names, status) if found == "ok"]
    return sound[-1] if sound else str(names[-1])


def _join(found: Sequence[Mapping[str, xr.Dataset]], sources: Sequence[Source]) -> dict[str, xr.Dataset]:
    """Datasets of the same name joined along `checkpoint`."""
    return {name: xr.concat(
        [groups[name] for groups in found], "checkpoint", join="exact", combine_attrs="drop_conflicts").assign_coords(
        checkpoint_coordinates(sources)) for name in found[0]}


def _line(groups: Mapping[str, xr.Dataset]) -> str:
    name, experts = next((n, d) for n, d in groups.items() if n.startswith("experts/"))
    one = experts.sel(adjustment="raw", k=experts.attrs["k"])
    off = ~np.eye(one.sizes["language"], dtype=bool)
    mean = lambda variable: float(one[variable].where(xr.DataArray(
        off, dims=("language", "language_b"))).mean())
    loss = float(groups["health"]["bits_per_character"].mean())
    return (f"{loss:.2f} bits a character, overlap {mean('overlap_mean'):.3f} "
            f"(null {mean('null_overlap'):.3f}) on {name.split('/')[1]}, "
            f"{groups['health']['status'].item()}")
