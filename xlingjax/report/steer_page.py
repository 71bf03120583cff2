"""The page of a steering experiment: each condition beside its controls, in words and figures, and texts to read."""

import html
import json
import re
from pathlib import Path

import numpy as np
import xarray as xr

from xlingjax.report import steer_figures as figures
from xlingjax.report.page import Markup, Section, Table, render, write

SHOWN = 4  # texts a condition


def write_steer_report(tree: xr.DataTree, folder: str | Path) -> Path:
    """Writes `report.html` and its figures as PNG; returns the page's path."""
    effects = _dataset(tree, "effects")
    sections = [
        Section("Which language answers", [figures.shares(effects), _table(effects)]),
        Section("Over training", [figures.over_training(effects)]),
        Section("How many neurons it takes", [figures.dose(effects)]),
        Section("Fluency", [_fluency(effects)]),
        *([Section("Switching languages on", [figures.switching(_dataset(tree, "switched")),
                                              _switching(_dataset(tree, "switched"))])]
          if "switched" in tree.children else []),
        Section("Texts to read", [_samples(tree, effects)]),
        Section("The judges and their errors", _judges(tree, effects)),
        Section("The forced neurons", [_experts(tree)])]
    title = (f"Forcing “{effects.attrs['concept']}” as found in {effects.attrs['source_language']}: "
             f"{tree.attrs['model'].rstrip('/').rsplit('/', 1)[-1]}")
    footer = (f"corpus {tree.attrs['corpus_fingerprint'][:16]} · settings {tree.attrs['settings']} · "
              f"judge {tree.attrs['judge']}")
    return write(Path(folder), render(title, steer_summary(tree), sections, footer), sections)


def steer_section(tree: xr.DataTree) -> Section:
    """The experiment in short, for the page of a trace."""
    effects = _dataset(tree, "effects")
    return Section(f"Forcing “{effects.attrs['concept']}” as found in {effects.attrs['source_language']}", [
        *steer_summary(tree), figures.shares(effects), figures.over_training(effects),
        *([figures.switching(_dataset(tree, "switched"))] if "switched" in tree.children else [])])


def _dataset(tree: xr.DataTree, name: str) -> xr.Dataset:
    node = tree[name]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)


def steer_summary(tree: xr.DataTree) -> list[str]:
    """The sentences at the head of the page, each decided by the rule of the tree's `claims`."""
    effects = _dataset(tree, "effects")
    source, concept = effects.attrs["source_language"], effects.attrs["concept"]
    found, joint = (_dataset(tree, "claims").sel(what=what) for what in ("share", "joint"))
    named = figures.roles(effects)
    controls = json.loads(effects.attrs["controls"])
    out = []
    for label in effects["checkpoint"].values:
        at = effects.sel(checkpoint=label)
        forced = at.sel(condition=named.experts)
        if np.isnan(float(forced["nats"])):
            out.append(f"Checkpoint {label}: no experts.")
            continue
        beside = [f"{source} {_change(forced, 'share', verdict=source)} against unforced"]
        beside += [f"{name} {_change(at.sel(condition=name), 'share', verdict=source)}"
                   for name in controls[1:] if name in at["condition"].values]
        rises = [str(name) for name in at["language"].values if name != source and _rose(found, label, name)]
        out.append(f"Checkpoint {label}: {_verdict(found, named, label, source, f'the share of {source}')} "
                   f"({'; '.join(beside)})." + (f" Beyond all controls rise: {', '.join(rises)}." if rises else ""))
        if not np.isnan(float(forced["d_joint"].sel(language=source))):
            what = f"the share of texts in {source} that show “{concept}”"
            out.append(f"Checkpoint {label}: {_verdict(joint, named, label, source, what)} "
                       f"({_change(forced, 'joint', language=source)} against unforced).")
    last = effects.isel(checkpoint=-1).sel(condition=named.experts)
    out.append(f"Fluency at the last checkpoint: {float(last['d_nats']):+.2f} nats a token against unforced "
               f"[{float(last['d_nats_low']):+.2f}, {float(last['d_nats_high']):+.2f}].")
    if "switched" in tree.children:
        out.append(_switching_words(_dataset(tree, "switched"), _dataset(tree, "claims").attrs["level"]))
    out.append("One pre-training run: intervals and tests are over seeds of generation and say nothing of other runs.")
    return out


def _rose(found: xr.Dataset, label: str, name: str) -> bool:
    one = found.sel(checkpoint=label, language=name)
    return bool(one["claimed"]) and float(one["change"]) > 0


def _verdict(found: xr.Dataset, named: figures.Roles, label: str, language: str, what: str) -> str:
    one = found.sel(checkpoint=label, language=language)
    if bool(one["claimed"]):
        return (f"forcing {'raises' if float(one['change']) > 0 else 'lowers'} {what} beyond every control "
                f"(p = {float(one['p']):.2g}, Holm over languages and checkpoints)")
    nearest = str(one["nearest"].item())
    beyond = {named.random: "what random neurons do that move the residual stream as far",
              named.as_perplexed: "what unforced texts show that are as perplexed"}
    if nearest == named.unforced:
        return f"forcing changes {what} by nothing that can be told"
    return f"forcing does not change {what} beyond {beyond[nearest]}"


def _switching_words(switched: xr.Dataset, level: float) -> str:
    last = switched.isel(checkpoint=-1)
    own, other = ([float(last["d_share"].sel(switched=name, kind=kind, verdict=name)) for name in
                   last["switched"].values] for kind in switched["kind"].values)
    works = [str(name) for name, change, than, q in zip(last["switched"].values, own, other, last["q"].values)
             if q < level and change > than]
    return (f"Switching a language's own neurons on at the last checkpoint changes its share by {np.mean(own):+.2f} on "
            f"average, random neurons by {np.mean(other):+.2f}; above random (Holm over languages): "
            f"{', '.join(works) if works else 'none'}.")


def _change(at: xr.Dataset, what: str, **where: str) -> str:
    one = at.sel(where)
    return (f"{float(one[f'd_{what}']):+.2f} [{float(one[f'd_{what}_low']):+.2f}, {float(one[f'd_{what}_high']):+.2f}]")


def _table(effects: xr.Dataset) -> Table:
    rows = []
    languages = [str(name) for name in effects["language"].values]
    for label in effects["checkpoint"].values:
        for name in figures.main_conditions(effects):
            at = effects.sel(checkpoint=label, condition=name)
            if np.isnan(float(at["nats"])):
                continue
            both = [(float(at["corrected"].sel(language=one)), float(at["d_share"].sel(verdict=one)))
                    for one in languages]
            rows.append([str(label), name, int(at["neurons"]), float(at["displacement"]),
                         *(f"{share:.2f} ({change:+.2f})" for share, change in both),
                         float(at["share"].sel(verdict=figures.UNDETERMINED))])
    return Table(["checkpoint", "condition", "neurons", "moves the stream by", *languages, "undetermined"], rows,
                 "Shares of languages, corrected by the judge's confusion matrix; in brackets the raw share minus "
                 "unforced. “Moves”: mean norm of the change in the last residual stream")


def _fluency(effects: xr.Dataset) -> Table:
    rows = []
    for name in effects["condition"].values:
        at = effects.isel(checkpoint=-1).sel(condition=name)
        rows.append([str(name), float(at["nats"]), float(np.exp(at["nats"])), float(at["d_nats_low"]),
                     float(at["d_nats_high"]), float(at["repetition"])])
    return Table(["condition", "nats a token", "perplexity", "minus unforced: low", "high", "repeated bigrams"], rows,
                 "Last checkpoint, under the unforced model")


def _switching(switched: xr.Dataset) -> Table:
    rows = []
    for label in switched["checkpoint"].values:
        at = switched.sel(checkpoint=label)
        for name, q in zip(at["switched"].values, at["q"].values):
            one = at.sel(switched=name, verdict=name)
            change = [f"{float(kind['d_share']):+.2f} [{float(kind['low']):+.2f}, {float(kind['high']):+.2f}]"
                      for kind in (one.sel(kind=kind) for kind in at["kind"].values)]
            nats = at["nats"].sel(switched=name)
            rows.append([str(label), str(name), int(one["neurons"]), float(at["unforced"].sel(verdict=name)), *change,
                         float(q), *(float(nats.sel(kind=kind)) for kind in at["kind"].values)])
    return Table(["checkpoint", "language", "neurons", "its share unforced", "change by its neurons",
                  "by random neurons", "p (Holm over languages)", "nats a token: its neurons", "random"], rows,
                 "Each language's neurons set to their median over its sentences, at every position; random neurons "
                 "are as many in every layer and site and move the residual stream as far; p: its neurons against "
                 "random ones")


def _samples(tree: xr.DataTree, effects: xr.Dataset) -> Table:
    samples, judges = _dataset(tree, "samples"), _dataset(tree, "judges")
    words = {word for line in judges["markers"].values for word in str(line).split()}
    rows = []
    for label in samples["checkpoint"].values:
        for name in figures.main_conditions(effects):
            at = samples.sel(checkpoint=label, condition=name)
            for row in range(min(SHOWN, at.sizes["row"])):
                text = at["text"].values[row]
                if at["verdict"].values[row]:
                    rows.append([str(label), name, row, str(at["verdict"].values[row]), highlighted(text, words)])
    return Table(["checkpoint", "condition", "seed", "language", "text"], rows,
                 "The first seeds, the same in every condition, none chosen; marked: words of the concept")


def highlighted(text: str, words: set[str]) -> Markup:
    """A text with some of its words marked, whatever their case.

    >>> highlighted("A Dog <barks>.", {"dog"})
    'A <mark>Dog</mark> &lt;barks&gt;.'
    """
    parts = re.split(r"(\w+)", text)
    return Markup("".join(
        f"<mark>{html.escape(part)}</mark>" if part.lower() in words else html.escape(part) for part in parts))


def _judges(tree: xr.DataTree, effects: xr.Dataset) -> list[object]:
    judges = _dataset(tree, "judges")
    verdicts = [str(name) for name in effects["verdict"].values]
    one = effects.isel(checkpoint=0)
    confusion = [[str(name), int(one["tested"].sel(language=name)),
                  *(float(one["confusion"].sel(language=name, verdict=verdict)) for verdict in verdicts)]
                 for name in one["language"].values]
    broken = judges["broken"].values
    confusion.append(["letters shuffled", int(broken.sum()), *map(float, broken / max(broken.sum(), 1))])
    errors = [[str(name), *(float(judges[what].sel(language=name)) for what in (
        "classifier_sensitivity", "classifier_false_positives", "lexicon_sensitivity", "lexicon_false_positives",
        "agreement")), int(judges["tested_with"].sel(language=name)), int(judges["tested_without"].sel(language=name)),
        str(judges["markers"].sel(language=name).item())] for name in judges["language"].values]
    return [
        Table(["language", "sentences", *verdicts], confusion,
              "How the judge of languages errs on held-out sentences: share of verdicts, a row each true language. "
              "Last row: the sentences of all languages with their letters shuffled, which have no language"),
        Table(["language", "classifier: sensitivity", "false positives", "words: sensitivity", "false positives",
               "agreement (kappa)", "with", "without", "marker words"], errors,
              f"How the judges of “{effects.attrs['concept']}” err on held-out sentences, and how many there were")]


def _experts(tree: xr.DataTree) -> Table:
    experts = _dataset(tree, "experts").isel(checkpoint=-1)
    rows = []
    for at in (experts.sel(rank=rank) for rank in experts["rank"].values[:20]):
        if not np.isnan(float(at["ap"])):
            rows.append([int(at["rank"]), str(at["site"].item()), int(at["layer"]), int(at["unit"]), float(at["ap"]),
                         float(at["value"])])
    settings = json.loads(tree.attrs["settings"])
    return Table(["rank", "site", "layer", "unit", "average precision", "forced to"], rows,
                 f"The best of them at the last checkpoint; value: {settings['value']}, positions: "
                 f"{settings['positions']}")
