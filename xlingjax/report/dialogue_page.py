"""The page of dialogue transfer: what the source language is worth in each language and kind of model, and replies."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from xlingjax.report import dialogue_figures as figures
from xlingjax.report.page import Section, Table, render, write

SHOWN = 4  # replies a model and language
MEASURES = ("words", "characters", "repetition", "repeated", "copied", "copied_chance", "empty", "bleu", "bleu_chance",
            "chrf", "chrf_chance", "distinct_1", "distinct_2", "right_language", "undetermined")


def write_dialogue_report(tree: xr.DataTree, folder: str | Path) -> Path:
    """Writes `report.html` and its figures as PNG; returns the page's path."""
    kinds = json.loads(tree.attrs["kinds"])
    scores, found = _dataset(tree, "scores"), _dataset(tree, "claims")
    before = json.loads(tree.attrs["roles"])["before"]
    beside = found.sel(against=[name for name in _names(found, "against") if name != before])
    sections = [
        Section("Losses", [figures.losses(scores, kinds), _losses(scores, "test"), _losses(scores, "valid")]),
        Section("What the source is worth", [
            *([figures.differences(beside, kinds, _names(scores, "condition"))] if beside.sizes["against"] else []),
            _differences(found, kinds)]),
        *([Section("The same turn in every language", [_parallel(_dataset(tree, "parallel"), kinds)])]
          if "parallel" in tree.children else []),
        Section("Leaked turns, and perplexity as the original has it", [_leaks(scores), _padded(tree, scores)]),
        *([Section("Neurons shared with the source", _sharing(tree))] if "sharing" in tree.children else []),
        Section("Replies", [*_measures(tree), _replies(tree), _conversations(tree)]),
        Section("Trainings", [_trainings(tree)]),
        Section("The dialogues", json.loads(tree.attrs["notes"]) or ["No defect was found in them."])]
    footer = f"dialogues {tree.attrs['dialogues_fingerprint'][:16]} · settings {tree.attrs['settings']}"
    title = f"From {tree.attrs['source_language']} to {', '.join(_names(scores, 'language'))}: dialogue models"
    return write(Path(folder), render(title, dialogue_summary(tree), sections, footer), sections)


def _dataset(tree: xr.DataTree, name: str) -> xr.Dataset:
    node = tree[name]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)


def dialogue_summary(tree: xr.DataTree) -> list[str]:
    """The sentences at the head of the page, each decided by the rule of the tree's `claims`."""
    found, scores, kinds = _dataset(tree, "claims"), _dataset(tree, "scores"), json.loads(tree.attrs["kinds"])
    roles, source = json.loads(tree.attrs["roles"]), tree.attrs["source_language"]
    out = []
    for language in _names(found, "language"):
        words = []
        for kind in _names(found, "kind"):
            at = scores.sel(language=language, kind=kind, split="test", condition=roles["tuned"]).isel(turns=0)
            said = f"{kinds[kind].split(' (')[0]} perplexity {float(at['perplexity']):.1f}, " \
                   f"{float(at['bits_per_character']):.2f} bits per character"
            if roles["scratch"] in found["against"].values:
                said += f"; {_worth(found.sel(language=language, kind=kind, against=roles['scratch']), source)}"
            words.append(said)
        out.append(f"{language}: {'. '.join(words)}.")
    contexts = [name for name in _names(found, "against") if name not in roles.values()]
    for name in contexts:
        one = found.sel(against=name)
        where = [f"{language} {kind}" for language in _names(found, "language") for kind in _names(found, "kind")
                 if bool(one["helps"].sel(language=language, kind=kind))]
        out.append(f"The turns before a reply are worth something against “{name}” in "
                   f"{', '.join(where) if where else 'no language and model'}.")
    if "sharing" in tree.children:
        out += _shared_words(tree, source)
    out.append(f"Models before fine-tuning: {'; '.join(json.loads(tree.attrs['models']).values())}. "
               f"{tree.attrs['runs']} runs of each fine-tuning; intervals are over dialogues and these runs, and say "
               "nothing of other source models.")
    return out


def _worth(one: xr.Dataset, source: str) -> str:
    verdict = ("helps" if bool(one["helps"]) else "harms" if bool(one["harms"])
               else "makes no difference that can be told")
    return (f"the {source} start {verdict}: {float(one['change']):+.3f} bits per character against from scratch "
            f"[{float(one['low']):+.3f}, {float(one['high']):+.3f}]")


def _shared_words(tree: xr.DataTree, source: str) -> list[str]:
    out = []
    for kind, node in tree["sharing"].children.items():
        found = node.to_dataset(inherit=False)
        for language in _names(found, "language"):
            at = found.sel(language=language)
            said = [f"{name} {float(one['overlap']):.3f} (permuted labels at most {float(one['band']):.3f}, ceiling "
                    f"{float(one['ceiling']):.3f})"
                    for name in _names(found, "condition") for one in [at.sel(condition=name)]]
            out.append(f"Experts of the {kind} that {language} shares with {source}: {'; '.join(said)}.")
    return out


def _interval(at: xr.Dataset, name: str, digits: int) -> str:
    value, low, high = (float(at[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _losses(scores: xr.Dataset, split: str) -> Table:
    rows = []
    at = scores.sel(split=split).isel(turns=0)
    for language in _names(at, "language"):
        for kind in _names(at, "kind"):
            for condition in _names(at, "condition"):
                one = at.sel(language=language, kind=kind, condition=condition)
                rows.append([language, kind, condition, _interval(one, "perplexity", 1),
                             float(one["perplexity_sd"]), _interval(one, "bits_per_character", 3),
                             float(one["bits_per_character_sd"]), int(one["replies"]), int(one["dialogues"])])
    return Table(["language", "model", "condition", "perplexity", "sd of runs", "bits per character", "sd of runs",
                  "replies", "dialogues"], rows, f"{split}, leaked replies left out; the loss is of the reply's tokens "
                 "and its end, padding counts nowhere")


def _differences(found: xr.Dataset, kinds: Mapping[str, str]) -> Table:
    rows = [[language, kind, name, float(one["change"]), float(one["low"]), float(one["high"]), float(one["q"]),
             bool(one["claimed"])]
            for language in _names(found, "language") for kind in _names(found, "kind")
            for name in _names(found, "against")
            for one in [found.sel(language=language, kind=kind, against=name)]]
    return Table(["language", "model", "fine-tuned against", "bits per character", "low", "high", "p (Holm)",
                  "claimed"], rows, "Test replies; claimed where p, adjusted over languages, models and conditions, is "
                 f"below {found.attrs['level']:g}. Models: {'; '.join(kinds.values())}")


def _parallel(found: xr.Dataset, kinds: Mapping[str, str]) -> Table:
    rows = [[language, kind, *(_interval(found.sel(language=language, kind=kind, condition=name), "bits_per_turn", 1)
                               for name in _names(found, "condition"))]
            for language in _names(found, "language") for kind in _names(found, "kind")]
    return Table(["language", "model", *_names(found, "condition")], rows,
                 f"Bits of a reply, over the {found.attrs['turns']} test turns that are translations of each other in "
                 "these languages: the same is said, so neither tokens nor the length of words enter")


def _leaks(scores: xr.Dataset) -> Table:
    rows = []
    for language in _names(scores, "language"):
        for kind in _names(scores, "kind"):
            at = scores.sel(language=language, kind=kind, split="test")
            for condition in _names(scores, "condition"):
                one = at.sel(condition=condition)
                rows.append([language, kind, condition, int(one["leaked"].isel(turns=0)),
                             *(float(one["perplexity"].sel(turns=name)) for name in _names(scores, "turns"))])
    return Table(["language", "model", "condition", "leaked replies", *(
        f"perplexity, {name}" for name in _names(scores, "turns"))], rows,
        "Test replies that training has too; they stay in contexts")


def _padded(tree: xr.DataTree, scores: xr.Dataset) -> Table:
    found = _dataset(tree, "trainings")["padded_perplexity"].mean("run")
    rows = []
    for language in _names(scores, "language"):
        for kind in _names(scores, "kind"):
            for condition in _names(scores, "condition"):
                value = float(found.sel(language=language, kind=kind, condition=condition))
                if not np.isnan(value):
                    masked = scores.sel(language=language, kind=kind, condition=condition, split="test", turns="all")
                    rows.append([language, kind, condition, float(masked["perplexity"]), value])
    return Table(["language", "model", "condition", "perplexity", "as the original computed it"], rows,
                 "The original scored all tokens of a row, the padding among them, which is easily learned; its "
                 "encoder-decoder and LSTM figures masked it")


def _sharing(tree: xr.DataTree) -> list[object]:
    parts: list[object] = []
    for kind, node in tree["sharing"].children.items():
        found = node.to_dataset(inherit=False)
        parts.append(figures.sharing(found, kind))
        rows = [[language, condition, *(float(one[name]) for name in (
            "overlap", "null", "band", "p", "ceiling", "shared_fraction", "chance"))]
            for language in _names(found, "language") for condition in _names(found, "condition")
            for one in [found.sel(language=language, condition=condition)]]
        parts.append(Table(["language", "model", "overlap", "permuted labels", "their most", "p", "ceiling",
                            "shared fraction", "chance"], rows, f"{kind}, all layers"))
    return parts


def _measures(tree: xr.DataTree) -> list[object]:
    parts: list[object] = []
    for node in tree["measures"].children.values() if "measures" in tree.children else ():
        found = node.to_dataset(inherit=False)
        held = [name for name in MEASURES if name in found]
        rows = [[name, *(float(found[what].sel(replies=name)) for what in held)] for name in _names(found, "replies")]
        parts.append(Table(["replies of", *(name.replace("_", " ") for name in held)], rows,
                           f"{found.attrs['language']}: measures of replies beside the person's own and beside chance "
                           "(the same replies to other dialogues); none says that a reply is good"))
    return parts


def _replies(tree: xr.DataTree) -> Table:
    found = _dataset(tree, "replies")
    rows, seen = [], {}  # type: ignore[var-annotated]
    for language, kind, condition, context, reply, reference in zip(*(found[name].values.tolist() for name in (
            "language", "kind", "condition", "context", "reply", "reference"))):
        count = seen.setdefault((language, kind, condition), 0)
        if count < SHOWN:
            seen[language, kind, condition] = count + 1
            rows.append([language, kind, condition, context.splitlines()[-1], reply, reference])
    return Table(["language", "model", "condition", "turn before", "reply", "a person's reply"], rows,
                 "The first test replies, none chosen")


def _conversations(tree: xr.DataTree) -> Table:
    found = _dataset(tree, "conversations")
    rows = [[*(str(found[name].values[row]) for name in ("language", "kind", "condition")),
             *(" / ".join(str(found[name].values[row]).splitlines()) for name in ("said", "written"))]
            for row in range(found.sizes["row"])]
    return Table(["language", "model", "condition", "as people began", "as the model went on"], rows,
                 "The model writes both sides")


def _trainings(tree: xr.DataTree) -> Table:
    found = _dataset(tree, "trainings")
    count = json.loads(tree.attrs["parameters"])
    rows = []
    for language in _names(found, "language"):
        for kind in _names(found, "kind"):
            for condition in _names(found, "condition"):
                one = found.sel(language=language, kind=kind, condition=condition)
                steps = [int(step) for step in one["step"].values if not np.isnan(step)]
                rows.append([language, kind, int(count[kind]), condition, ", ".join(map(str, steps)),
                             float(one["epochs"].max())])
    return Table(["language", "model", "parameters", "condition", "best update of each run", "epochs at most"], rows,
                 f"Kept is what validation liked best. Source: {tree.attrs['source'] or 'the models as they came'}")


def _names(found: xr.Dataset, dimension: str) -> list[str]:
    return [str(name) for name in found[dimension].values]
