"""The experiment: source models, fine-tuning in each language beside its controls, losses, replies, shared experts."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from xlingjax.analyses.dialogue_transfer import answers, data, sharing, summary
from xlingjax.analyses.dialogue_transfer.settings import (
    BEFORE,
    CONTROLS,
    LEVEL,
    SCRATCH,
    TUNED,
    DialogueSettings,
    describe,
    targets,
)
from xlingjax.analyses.dialogue_transfer.starts import NAMES, Start
from xlingjax.analyses.dialogue_transfer.tuning import Trained, as_the_original, encoded, score, train
from xlingjax.analyses.results import read_tree, storable, write_tree
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.dialogues import Dialogues, windows
from xlingjax.errors import InputError
from xlingjax.files import claim, slug
from xlingjax.judging.languages import fit_languages
from xlingjax.judging.replies import DRAWS, Exchange, measure_replies

Say = Callable[[str], None]
SCORES = "scores.nc"


class Transfer:
    """The experiment's parts, each in a folder of its own under `workdir`; what is there is read and not made again.

    Args:
        starts: kind -> model before fine-tuning (`starts`). dialogues: with the targets' train, valid and test.
        settings: all else. source: dialogues of the source language, by default those in `dialogues`, which the models
            are trained on first, unless `settings.source_updates` is 0 or there are none.
        concepts: labelled sentences in source and target languages, for the experts they share; None leaves that out.
        say: gets a line a training.

    Raises:
        InputError: models, dialogues and settings do not fit.
    """

    def __init__(
        self, starts: Mapping[str, Start], dialogues: Dialogues, settings: DialogueSettings, workdir: Path,
        source: Dialogues | None = None, concepts: Corpus | None = None, say: Say = lambda text: None,
    ) -> None:
        if not starts:
            raise InputError("no model to fine-tune; name one kind at least")
        self.starts, self.settings, self.workdir, self.say = dict(starts), settings, Path(workdir), say
        self.languages = targets(dialogues.language_names, settings)
        self.dialogues, self.concepts = dialogues, concepts if settings.sharing else None
        self.parts = {name: data.read_part(dialogues, name, settings) for name in self.languages}
        if source is None and settings.source_language in dialogues.language_names:
            source = dialogues.only(settings.source_language)
        self.source = source if settings.source_updates else None
        if self.source is not None:
            for split in ("train", "valid"):
                self.source.only(settings.source_language, split)
        self._before: dict[str, Start] = {}

    def identity(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return {
            "settings": dataclasses.asdict(self.settings), "dialogues": self.dialogues.fingerprint,
            "source": None if self.source is None else self.source.fingerprint,
            "concepts": None if self.concepts is None else self.concepts.fingerprint,
            "models": {kind: {**start.identity(), "config": describe(start.config)}
                       for kind, start in self.starts.items()}}

    def before(self, kind: str) -> Start:
        """The model before fine-tuning: the given one, after training on the source's dialogues where there are any."""
        if kind not in self._before:
            self._before[kind] = self._source_model(kind)
        return self._before[kind]

    def _source_model(self, kind: str) -> Start:
        start, settings = self.starts[kind], self.settings
        if self.source is None:
            return start
        of = {split: windows(self.source.only(settings.source_language, split), settings.earlier)
              for split in ("train", "valid")}
        made = train(start, of["train"], of["valid"], settings, settings.source_updates, 0,
                     self.workdir / "source" / kind, {"kind": kind, "language": settings.source_language})
        return dataclasses.replace(made.start, name=f"{start.name}, trained on {settings.source_language} turns")

    def trained(self, language: str, kind: str, condition: str, run: int) -> Trained:
        """One model after fine-tuning; trained where it is not yet."""
        start = self.before(kind)
        if condition == BEFORE:
            return Trained(start, 0, 0.0)
        if condition == SCRATCH:
            start = start.fresh(self.settings.seed + run)
        splits = {split: data.as_condition(found, condition, self.settings.seed)
                  for split, found in self.parts[language].splits.items()}
        return train(start, splits["train"], splits["valid"], self.settings, self.settings.updates, run,
                     self._folder(language, kind, condition, run) / "fit",
                     {"kind": kind, "language": language, "condition": condition, "run": run})

    def _folder(self, language: str, kind: str, condition: str, run: int) -> Path:
        return self.workdir / "runs" / slug(language) / kind / f"{slug(condition)}-{run}"

    def scores(self, language: str, kind: str, condition: str, run: int) -> xr.Dataset:
        """Losses of one model on its held-out windows: nats by `valid` and `test`; where it was best, as attributes."""
        path = self._folder(language, kind, condition, run) / SCORES
        if not path.exists():
            made = self.trained(language, kind, condition, run)
            out: dict[str, Any] = {}
            for split in data.HELD_OUT:
                found = data.as_condition(self.parts[language].splits[split], condition, self.settings.seed)
                turns = encoded(made.start, found, self.settings)
                scored = score(made.start, turns, self.settings)
                out[split] = split, scored.nats
                if split == "test":
                    padded = (np.nan if condition in CONTROLS else
                              as_the_original(made.start, turns, self.settings))
                    self.say(f"{language} {kind} {condition}, run {run}: test perplexity "
                             f"{np.exp(scored.nats.sum() / scored.tokens.sum()):.1f}")
            write_tree(path, {"scores": xr.Dataset(
                out, attrs={"step": made.step, "epochs": made.epochs, "padded_perplexity": padded})})
        return read_tree(path)["scores"]

    def cells(self) -> tuple[dict[tuple[str, str, str], summary.Cell], xr.Dataset]:
        """Losses of every model by (language, kind, split), and a table of the trainings."""
        found: dict[tuple[str, str, str], summary.Cell] = {}
        where = ("language", "kind", "condition", "run")
        shape = (len(self.languages), len(self.starts), len(self.settings.conditions), self.settings.seeds)
        table = {name: np.full(shape, np.nan) for name in ("step", "epochs", "padded_perplexity")}
        for i, language in enumerate(self.languages):
            part = self.parts[language]
            for j, kind in enumerate(self.starts):
                runs = {name: [self.scores(language, kind, name, run) for run in self.settings.seeds_of(name)]
                        for name in self.settings.conditions}
                for c, name in enumerate(runs):
                    for run, one in enumerate(runs[name]):
                        for what, values in table.items():
                            values[i, j, c, run] = one.attrs[what]
                for split in data.HELD_OUT:
                    turns = encoded(self.starts[kind], part.splits[split], self.settings)
                    found[language, kind, split] = summary.Cell(
                        {name: np.stack([one[split].values for one in held]) for name, held in runs.items()},
                        np.array([len(reply) for reply in turns.replies]), turns.characters,
                        part.splits[split].documents, part.leaked[split])
        return found, xr.Dataset(
            {name: (where, values) for name, values in table.items()},
            coords={"language": list(self.languages), "kind": list(self.starts),
                    "condition": list(self.settings.conditions), "run": np.arange(self.settings.seeds)})

    def answered(self, language: str, kind: str, condition: str) -> xr.Dataset:
        """Replies of the first run of a condition to test windows, in `row`, and how dialogues go on, in `dialogue`."""
        path = self._folder(language, kind, condition, 0) / "replies.nc"
        if not path.exists():
            settings, part = self.settings, self.parts[language]
            start = self.trained(language, kind, condition, 0).start
            chosen = data.only_scored(part.splits["test"], settings.replies, part.leaked["test"], settings.seed)
            replies = answers.answer_windows(start, chosen, settings) if len(chosen) else []
            went_on = answers.converse(start, part.splits["test"], settings)
            text = lambda rows: np.array([storable(row) for row in rows], str)
            write_tree(path, {"replies": xr.Dataset(
                {"document": ("row", text(chosen.documents.tolist())),
                 "context": ("row", text("\n".join(context) for context in chosen.contexts)),
                 "reply": ("row", text(replies)), "reference": ("row", text(chosen.replies)),
                 "said": ("dialogue", text("\n".join(one.turns) for one in went_on)),
                 "written": ("dialogue", text("\n".join(one.written) for one in went_on))})})
        return read_tree(path)["replies"]

    def shared(self, language: str, kind: str) -> xr.Dataset | None:
        """Experts shared with the source language before and after; None for an LSTM, or where sentences lack."""
        if self.concepts is None:
            return None
        two = sharing.of_two(self.concepts, self.settings.source_language, language)
        if two is None or sharing.readers(self.starts[kind]) is None:
            return None
        path = self.workdir / "sharing" / slug(language) / f"{kind}.nc"
        if not path.exists():
            models = {name: self.trained(language, kind, name, 0).start
                      for name in self.settings.conditions if name not in CONTROLS}
            write_tree(path, {"shared": sharing.shared_experts(
                models, two, self.settings.source_language, language, self.settings)})
        return read_tree(path)["shared"]


def dialogue_transfer(made: Transfer) -> xr.DataTree:
    """Does a dialogue model of one language carry over to others? Losses, replies and neurons beside their controls.

    Killed and started again, it goes on with the training it was at.

    Returns:
        `scores` and `differences` (`summary.summarise`), `claims` (`summary.transfer`), `trainings` (best update,
        epochs, perplexity as the original computed it), `parallel` (`summary.per_turn`, where languages are parallel),
        `replies` and `conversations` (texts), `measures/<language>` (`judging.replies`), `sharing/<kind>`
        (`sharing.shared_experts`, by language).

    Raises:
        InputError: another experiment in the workdir, or a training that fails.
    """
    settings, starts, dialogues = made.settings, made.starts, made.dialogues
    with claim(made.workdir, made.identity(), "dialogue transfer"):
        cells, trainings = made.cells()
        groups: dict[str, xr.Dataset] = {"trainings": trainings}
        groups["scores"], groups["differences"] = summary.summarise(
            cells, settings.conditions, settings.draws, settings.seed)
        groups["claims"] = summary.transfer(groups["differences"])
        together = summary.per_turn(cells, data.parallel_rows(made.parts), settings.conditions, settings.draws,
                                    settings.seed)
        if together is not None:
            groups["parallel"] = together
        groups |= _answers(made)
        if settings.replies:
            groups |= {f"measures/{slug(name)}": one for name, one in _measures(made, groups["replies"]).items()}
        groups |= _sharing(made)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "dialogues": dialogues.name, "dialogues_fingerprint": dialogues.fingerprint, "level": LEVEL,
        "notes": json.dumps(dialogues.notes()), "settings": json.dumps(dataclasses.asdict(settings)),
        "models": json.dumps({kind: made.before(kind).name for kind in starts}),
        "parameters": json.dumps({kind: _count(start.params) for kind, start in starts.items()}),
        "kinds": json.dumps({kind: NAMES[kind] for kind in starts}),
        "roles": json.dumps({"before": BEFORE, "tuned": TUNED, "scratch": SCRATCH}),
        "source_language": settings.source_language, "runs": settings.seeds,
        "source": "" if made.source is None else f"{made.source.name}, {settings.source_updates} updates"}
    return tree


def written_conditions(settings: DialogueSettings) -> tuple[str, ...]:
    """Whose replies are written: the fine-tuned model, and those that it is set against."""
    return (BEFORE, TUNED, *((SCRATCH,) if settings.scratch else ()))


def _answers(made: Transfer) -> dict[str, xr.Dataset]:
    columns: dict[str, list[str]] = {name: [] for name in (
        "language", "kind", "condition", "document", "context", "reply", "reference")}
    spoken: dict[str, list[str]] = {name: [] for name in ("language", "kind", "condition", "said", "written")}
    for language in made.languages:
        for kind in made.starts:
            for condition in written_conditions(made.settings):
                one = made.answered(language, kind, condition)
                for table, size in ((columns, one.sizes.get("row", 0)), (spoken, one.sizes.get("dialogue", 0))):
                    for name, value in (("language", language), ("kind", kind), ("condition", condition)):
                        table[name] += [value] * size
                    for name in table:
                        if name in one:
                            table[name] += one[name].values.tolist()
    return {"replies": xr.Dataset({name: ("row", np.array(values, str)) for name, values in columns.items()}),
            "conversations": xr.Dataset({name: ("row", np.array(values, str)) for name, values in spoken.items()})}


def _measures(made: Transfer, replies: xr.Dataset) -> dict[str, xr.Dataset]:
    """Automatic measures of every model's replies, a table a language; none where replies are of one dialogue."""
    training = made.dialogues.only(split="train")
    judge = fit_languages(training.corpus(), made.settings.seed)[0] if len(training.language_names) > 1 else None
    out = {}
    for language in made.languages:
        systems: dict[str, list[str]] = {}
        exchanges: list[Exchange] = []
        for kind in made.starts:
            for condition in written_conditions(made.settings):
                of = {"language": language, "kind": kind, "condition": condition}
                held = replies.isel(row=np.all([replies[name] == value for name, value in of.items()], axis=0))
                systems[f"{kind}, {condition}"] = held["reply"].values.tolist()
                exchanges = [Exchange(context.splitlines()[-1], said, document) for context, said, document in zip(
                    *(held[name].values.tolist() for name in ("context", "reference", "document")))]
        if len({one.document for one in exchanges}) > 1:
            out[language] = measure_replies(
                systems, exchanges, language, judge, min(DRAWS, made.settings.draws), made.settings.seed)
    return out


def _sharing(made: Transfer) -> dict[str, xr.Dataset]:
    out = {}
    for kind in made.starts:
        held = {language: one for language in made.languages
                if (one := made.shared(language, kind)) is not None}
        if held:
            out[f"sharing/{kind}"] = xr.concat(list(held.values()), "language", combine_attrs="override").assign_coords(
                language=list(held))
    return out


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def chat(made: Transfer, language: str, kind: str) -> answers.Chat:
    """A conversation with the first fine-tuned model of a language and kind, trained where it is not yet.

    Raises:
        InputError: a language or kind that is not of the experiment.
    """
    for what, value, known in (("language", language, made.languages), ("kind", kind, tuple(made.starts))):
        if value not in known:
            raise InputError(f"{what} {value!r} is not of this experiment; choose among {', '.join(known)}")
    with claim(made.workdir, made.identity(), "dialogue transfer"):
        return answers.Chat(made.trained(language, kind, TUNED, 0).start, made.settings)
