"""The experiment: the four steps for every language and seed, what stands beside them, and the trace on the result."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xlingjax.analyses.lexical_transfer.bag import bag_of_shared_pieces, near_shared_pieces, shared_pieces
from xlingjax.analyses.lexical_transfer.costs import step_costs
from xlingjax.analyses.lexical_transfer.data import Cleaned, Language, TransferData, clean, read_languages
from xlingjax.analyses.lexical_transfer.experts import shared_experts
from xlingjax.analyses.lexical_transfer.settings import LexicalSettings
from xlingjax.analyses.lexical_transfer.stages import Stage, digest, fine_tune, held_loss, score
from xlingjax.analyses.lexical_transfer.summary import table
from xlingjax.analyses.lexical_transfer.systems import BAG, RANDOM_BODY, ROLES, TOKENS, UNTRAINED, System, build
from xlingjax.analyses.results import read_tree, write_tree
from xlingjax.files import claim
from xlingjax.models.config import TransformerConfig
from xlingjax.tasks.spans import SpanAnswers
from xlingjax.tasks.task import Encoded, select
from xlingjax.transfer.banks import Banks, join, save_banks

TRACED = {TOKENS: "transferred", UNTRAINED: "untrained embeddings", RANDOM_BODY: "random body"}


def lexical_transfer(
    data: TransferData, config: TransformerConfig, settings: LexicalSettings, workdir: str | Path, *,
    say: Callable[[str], None] | None = None,
) -> xr.DataTree:
    """Reads languages through the body of another one, beside models that saw them and beside floors.

    Step 1: a masked LM is trained on the first language. Step 2: with its body frozen, the embeddings of another
    language are learned by the same objective. Step 3: the body is fine-tuned on a task in the first language, all
    embeddings frozen. Step 4: the other language's embeddings are swapped in and the task is scored, without having
    seen one of its labels. Each step is a folder in the workdir; killed and started again, it goes on where it was.

    Args:
        data: text and task.
        config: shape of the body, an encoder with a masked-LM head; its vocabulary is the tokenizer's. All
            systems have it.
        settings: all else.
        workdir: folder of the run.
        say: gets a line a step.

    Returns:
        `scores` (`summary.table`, and `first`, the score in the first language), `losses` of each bank on held-out
        text, `training`, the last training loss of every masked LM, `text` by language, `costs` of a step, and, where
        concepts are given, `experts` by `condition`.

    Raises:
        InputError: text, task and settings do not fit, or the folder holds another experiment.
    """
    say = say or (lambda text: None)
    about = {"texts": data.texts.fingerprint, "first": data.first, "task": repr(data.task),
             "examples": digest([[e.name, e.texts, e.language, e.document, e.split, e.label] for e in data.examples]),
             "config": config.to_dict(), "settings": dataclasses.asdict(settings)}
    with claim(Path(workdir), about, "lexical_transfer") as folder:
        cleaned = clean(data, settings)
        languages = read_languages(data, cleaned, settings)
        encoded = {name: _encoded(data, name, languages, settings) for name in languages}
        right: dict[tuple[str, str], list[np.ndarray]] = {}
        first: dict[str, list[float]] = {}
        losses: list[xr.Dataset] = []
        trained: list[dict[str, float]] = []
        parts: dict[str, xr.Dataset] = {}
        chance: dict[str, float] = {}
        for seed in range(settings.seeds):
            say(f"seed {seed + 1}/{settings.seeds}")
            stage = Stage(settings, seed, folder / f"seed{seed}", say)
            systems = build(data, cleaned, languages, config, stage)
            for name, found in _score_all(systems, data, languages, encoded, stage, first, chance).items():
                right.setdefault(name, []).append(found)  # those that stand beside the others have fewer seeds
            losses.append(_losses(systems, languages, settings))
            trained.append(stage.trained)
            if seed == 0:
                _keep_banks(systems, data, folder / "banks")
                parts["costs"] = _kept_costs(systems[0], languages, stage)
                if settings.traced and data.concepts is not None:
                    say("experts of concepts")
                    parts["experts"] = _experts(systems, data, settings)
        for other in data.others:
            right[BAG, other] = [_by_strings(data, other, languages)] * settings.seeds
    tests = {name: select(data.examples, [name], "test") for name in data.others}
    every = range(settings.seeds)
    whole = {key: [found[seed] if seed < len(found) else np.full(len(found[0]), np.nan) for seed in every]
             for key, found in right.items()}
    scores = table({key: np.stack(found) for key, found in whole.items()}, tests, ROLES, chance, settings.draws)
    # One number a system: those of a pair of languages have a body each, whose mean this is.
    scores["first"] = ("system", [float(np.mean(first.get(str(name), [np.nan]))) for name in scores["system"].values])
    tree = xr.DataTree.from_dict({
        "scores": scores, "losses": xr.concat(losses, "seed", join="outer"),
        "training": xr.Dataset(
            {"loss": (("seed", "model"), [[one.get(name, np.nan) for name in trained[0]] for one in trained])},
            {"model": list(trained[0])}),
        "text": _text(data, cleaned, languages, encoded), **parts})
    tree.attrs = {
        "first": data.first, "task": data.task.name, "measure": data.task.measures[0], "corpus": data.texts.name,
        "corpus_fingerprint": data.texts.fingerprint, "settings": json.dumps(dataclasses.asdict(settings)),
        "config": json.dumps(config.to_dict()), "xlingjax": importlib.metadata.version("xlingjax")}
    return tree


def _encoded(
    data: TransferData, name: str, languages: Mapping[str, Language], settings: LexicalSettings,
) -> dict[str, Encoded]:
    """Split -> rows with the language's own tokenizer."""
    splits = ("train", "test") if name == data.first else ("test",)
    return {split: data.task.encode(select(data.examples, [name], split), languages[name].tokenizer, settings.length)
            for split in splits}


def _score_all(
    systems: list[System], data: TransferData, languages: Mapping[str, Language],
    encoded: Mapping[str, Mapping[str, Encoded]], stage: Stage, first: dict[str, list[float]],
    chance: dict[str, float],
) -> dict[tuple[str, str], np.ndarray]:
    """Fine-tunes each body once a first bank and noise, and scores every system with its bank swapped in.

    `first` gets the scores in the first language by system, `chance` what the task's own baseline has by language.
    """
    measure = data.task.measures[0]
    tuned: dict[str, tuple] = {}
    found = {}
    for system in systems:
        own = system.first.tokenizer is languages[data.first].tokenizer

        def rows(name: str, split: str, own: bool = own, system: System = system) -> Encoded:
            if own:
                return encoded[name][split]
            return data.task.encode(
                select(data.examples, [name], split), system.first.tokenizer, stage.settings.length)

        if system.tuned not in tuned:
            body, head = fine_tune(
                stage, system.tuned, system.body, system.first, data.task, rows(data.first, "train"), system.noise)
            scores = score(body, system.first, head, data.task, rows(data.first, "test"), stage.settings.task_rows)
            tuned[system.tuned] = (body, head, scores.means()[measure])
        body, head, in_first = tuned[system.tuned]
        first.setdefault(system.name, []).append(in_first)
        scores = score(body, system.bank, head, data.task, rows(system.other, "test"), stage.settings.task_rows)
        found[system.name, system.other] = scores.values[measure]
        chance.setdefault(system.other, float(scores.chance[measure].mean()))
        stage.say(f"  {system.name}, {system.other}: {found[system.name, system.other].mean():.3f} "
                  f"({in_first:.3f} in {data.first})")
    return found


def _by_strings(data: TransferData, other: str, languages: Mapping[str, Language]) -> np.ndarray:
    """The floor of a language that reads strings only."""
    test = select(data.examples, [other], "test")
    if isinstance(data.task, SpanAnswers):
        return near_shared_pieces(languages[other].tokenizer, test, data.task)
    return bag_of_shared_pieces(
        (languages[data.first].tokenizer, languages[other].tokenizer), select(data.examples, [data.first], "train"),
        test)


def _losses(systems: list[System], languages: Mapping[str, Language], settings: LexicalSettings) -> xr.Dataset:
    """Held-out masked-LM loss of each language's own vocabulary, nats a hidden token."""
    names = list(dict.fromkeys(one.name for one in systems))
    values = np.full((len(names), len(languages)), np.nan)
    for system in systems:
        for bank, language in ((system.first, None), (system.bank, system.other)):
            name = bank.name if language is None else language
            if name in languages and bank.tokenizer is languages[name].tokenizer:
                values[names.index(system.name), list(languages).index(name)] = held_loss(
                    system.body, bank, languages[name], settings)
    return xr.Dataset({"loss": (("system", "language"), values)}, {"system": names, "language": list(languages)})


def _keep_banks(systems: list[System], data: TransferData, folder: Path) -> None:
    """The transferred banks, as `load_banks` and `load_model` read them."""
    if not (folder / "banks.json").exists():
        chosen = [one for one in systems if one.name == TOKENS]
        save_banks(Banks(chosen[0].body, {data.first: chosen[0].first} | {one.other: one.bank for one in chosen}),
                   folder)


def _kept_costs(system: System, languages: Mapping[str, Language], stage: Stage) -> xr.Dataset:
    """Times differ from run to run, so those of the first run are kept."""
    path = stage.folder / "costs.nc"
    if not path.exists():
        write_tree(path, {"costs": step_costs(system.body, system.bank, languages[system.other], stage)})
    return read_tree(path)["costs"]


def _experts(systems: list[System], data: TransferData, settings: LexicalSettings) -> xr.Dataset:
    assert data.concepts is not None
    made: dict[str, xr.Dataset] = {}
    for name, condition in TRACED.items():
        chosen = [one for one in systems if one.name == name and one.other in data.concepts.language_names]
        models = {data.first: join(chosen[0].body, chosen[0].first)}
        models |= {one.other: join(one.body, one.bank) for one in chosen}
        made[condition] = shared_experts(models, data.concepts, settings, 0)
    found = xr.concat(made.values(), "condition", join="outer", combine_attrs="override", data_vars="all")
    return found.assign_coords(condition=list(made))


def _text(
    data: TransferData, cleaned: Cleaned, languages: Mapping[str, Language],
    encoded: Mapping[str, Mapping[str, Encoded]],
) -> xr.Dataset:
    names = list(languages)
    tokenizer: Any = languages[data.first].tokenizer
    tests = [encoded[name]["test"] for name in names]
    return xr.Dataset(
        {"lines": ("language", [cleaned.lines[name] for name in names]),
         "removed": ("language", [cleaned.removed[name] for name in names]),
         "tokens": ("language", [cleaned.tokens[name] for name in names]),
         "pieces": ("language", [len(languages[name].tokenizer) for name in names]),
         "shared_pieces": ("language", [len(shared_pieces(tokenizer, languages[name].tokenizer)) for name in names]),
         "test_examples": ("language", [len(one.examples) for one in tests]),
         "test_documents": ("language", [len({e.document for e in one.examples}) for one in tests]),
         "cut": ("language", [one.counts.get("cut", 0) for one in tests])},
        {"language": names})
