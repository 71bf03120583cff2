"""The page of grammatical features: sharing beside chance, ablation beside every control, words to read."""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from xlingjax.report import feature_figures as figures
from xlingjax.report.page import Markup, Section, Table, render, write

SHOWN = 2  # latents of a value whose words are shown


def write_feature_report(tree: xr.DataTree, folder: str | Path, summary: Sequence[str]) -> Path:
    """Writes `report.html` and its figures as PNG; returns the page's path.

    Args:
        tree: over checkpoints; pictures and tables show the last one, the first figure all of them.
        summary: the sentences at the head of the page.
    """
    sections = build(tree)
    title = (f"Grammatical features in {tree.attrs['model'].rstrip('/').rsplit('/', 1)[-1]}, "
             f"{tree.attrs['site']}, layer {tree.attrs['layer']}")
    footer = f"treebanks {tree.attrs['treebanks'][:16]} · settings {tree.attrs['settings']}"
    return write(Path(folder), render(title, summary, sections, footer), sections)


def build(tree: xr.DataTree) -> list[Section]:
    """The sections of the page."""
    whole = {name: node.to_dataset(inherit=False) for name, node in tree.children.items()}
    at = {name: found.isel(checkpoint=-1) if "checkpoint" in found.dims else found for name, found in whole.items()}
    sections = [
        Section("How many languages share a latent", [figures.breadth(at["universality"]), sharing(at["universality"]),
                                                      figures.over_k(at["universality"])]),
        Section("Latents and languages", [figures.matrices(at["latents"]),
                                          *([examples(at["latents"], at["examples"])] if "examples" in at else [])])]
    if "causal" in at:
        sections += [
            Section("What ablation takes away", [figures.ablation(at["causal"]), decisions(at["causal"], at["claims"]),
                                                 figures.by_layer(at["causal"])]),
            Section("What else it takes away", [specificity(at["causal"]), *losses(at["causal"])])]
    if "pairs" in at:
        sections.append(Section("Agreement", [pairs(at["pairs"])]))
    if "steering" in at:
        sections.append(Section("Steering", [steering(at["steering"]), samples(at["samples"])]))
    sections.append(Section("Probes", [probes(at["probes"])]))
    if "downstream" in at:
        sections.append(Section("Attribution further on", [downstream(at["downstream"])]))
    if "dictionary" in at:
        sections.append(Section("The dictionary", [dictionary(at["dictionary"])]))
    if "matched" in whole:
        sections.append(Section("The same latents at other checkpoints", [matched(whole["matched"])]))
    if whole["universality"].sizes.get("checkpoint", 1) > 1:
        sections.insert(0, Section("Over training", [figures.over_training(
            whole["universality"], whole["probes"], whole.get("claims"))]))
    return sections


def sharing(found: xr.Dataset) -> Table:
    """Each value's sharing beside chance."""
    at = figures.at_k(found)
    rows: list[list[object]] = []
    for value in at["value"].values:
        one = at.sel(value=value)
        row: list[object] = [str(value), int(at["used"].sel(value=value).sum()), float(one["share"])]
        for name in figures.CHANCES:
            row += [float(one[f"share_{name}"]), float(one[f"p_{name}"])]
        rows.append([*row, float(one["met"]), float(one["met_names"]), float(one["p_names"])])
    chances = [text for label in figures.CHANCES.values() for text in (label, "p")]
    header = ["value", "languages", "shared", *chances, "found elsewhere", "other features elsewhere", "p"]
    return Table(header, rows, (
        f"Shared: of the top {int(at['k'])} of the languages what two or more have. Found elsewhere: of a language's "
        "top what any other language has in its own, beside its tops of other features. p: share of "
        f"{at.attrs['draws']} draws that reach it"))


def examples(latents: xr.Dataset, words: xr.Dataset) -> Table:
    """The words that activate the first latents of each value most."""
    rows: list[list[object]] = []
    for value in latents["value"].values:
        one, said = latents.sel(value=value), words.sel(value=value)
        for entry in np.flatnonzero(one["latent"].values >= 0)[:SHOWN]:
            here = one.isel(entry=entry)
            flags = [*(["everywhere"] if here["artefact"] else []), *(["changes sign"] if here["flips"] else [])]
            for name in said["language"].values:
                at = said.isel(entry=entry).sel(language=name)
                known = at["activation"].notnull().values
                if known.any():
                    shown = zip(*(at[what].values[known] for what in ("text", "start", "end")))
                    rows.append([str(value), int(here["latent"]), int(here["languages"]), ", ".join(flags), str(name),
                                 Markup("<br>".join(spanned(str(text), int(a), int(b)) for text, a, b in shown))])
    return Table(["value", "latent", "languages", "flags", "language", "its strongest words"], rows,
                 f"The first {SHOWN} latents of each value; marked: the word that activates it most, of the sentences "
                 "that chose latents")


def spanned(text: str, start: int, end: int) -> Markup:
    """A text with some of its characters marked.

    >>> spanned("two <dogs>", 5, 9)
    'two &lt;<mark>dogs</mark>&gt;'
    """
    return Markup(f"{html.escape(text[:start])}<mark>{html.escape(text[start:end])}</mark>{html.escape(text[end:])}")


def decisions(causal: xr.Dataset, claims: xr.Dataset) -> Table:
    """Every cell of the causal test beside its controls, and what the rule says."""
    named = figures.roles(causal)
    kinds = causal["kind"].values.astype(str)
    rows: list[list[object]] = []
    for value in causal["value"].values:
        for language in causal["language"].values:
            one, said = (found.sel(value=value, language=language) for found in (causal, claims))
            drop = one["drop_refitted"].values
            if np.isnan(drop[kinds == named.shared]).all():
                continue
            low, high = (float(one[f"drop_refitted_{end}"].values[kinds == named.shared][0]) for end in ("low", "high"))
            matched = drop[kinds == named.matched]
            rows.append([
                str(value), str(language), int(one["documents"]), int(one["taken"].values[kinds == named.shared][0]),
                f"{drop[kinds == named.shared][0]:.3f} [{low:.3f}, {high:.3f}]", float(np.nanmean(matched)),
                float(np.nanquantile(matched, 0.95)), float(np.nanmean(drop[kinds == named.specific])),
                float(np.nanmean(drop[kinds == named.leace])), float(said["p"]), str(said["nearest"].item()),
                bool(said["counts"])])
    return Table(["value", "language", "documents", "latents", "lost without shared", "without matched", "95 % of them",
                  "without its own", "under LEACE", "p (Holm)", "hardest control", "counts"], rows,
                 f"AUROC that probes trained anew at later layers lose on test documents. The rule, fixed beforehand: "
                 f"{claims.attrs['rule']}")


def specificity(causal: xr.Dataset) -> Table:
    """How far the probes of every value fall without the shared latents of each."""
    named = figures.roles(causal)
    inside = causal["kind"].values.astype(str)
    values = [str(name) for name in causal["value"].values]
    fall = causal["others"].transpose("value", "condition", "other", "language").values
    own = causal["drop_frozen"].transpose("value", "condition", "language").values
    rows: list[list[object]] = []
    for kind in (named.shared, named.matched):
        for v, value in enumerate(values):
            row: list[object] = [value, kind]
            for u in range(len(values)):
                at = own[v, inside == kind] if u == v else fall[v, inside == kind, u]
                row.append(float(np.nanmean(at)) if np.isfinite(at).any() else float("nan"))
            rows.append(row)
    return Table(["without latents of", "condition", *values], rows,
                 "AUROC that frozen probes of each value lose at later layers, mean over languages: a specific "
                 "ablation falls on the diagonal")


def losses(causal: xr.Dataset) -> list[Table]:
    """What each condition costs in cross-entropy."""
    if "d_loss" not in causal:
        return []
    kinds = causal["kind"].values.astype(str)
    change = causal["d_loss"].transpose("condition", "value", "language").values
    languages = [str(name) for name in causal["language"].values]
    rows: list[list[object]] = []
    for kind in dict.fromkeys(kinds.tolist()):
        at = change[kinds == kind]
        rows.append([kind, *(float(np.nanmean(at[..., g])) if np.isfinite(at[..., g]).any() else float("nan")
                             for g in range(len(languages)))])
    return [Table(["condition", *languages], rows, "Nats a token above no-op, mean over values")]


def probes(found: xr.Dataset) -> Table:
    """Every value's probes at the dictionary's layer."""
    at = found.isel(layer=0)
    rows: list[list[object]] = []
    for value in at["value"].values:
        for language in at["language"].values:
            one = at.sel(value=value, language=language)
            if not bool(one["used"]):
                continue
            low, high = (float(one[f"auroc_{end}"].sel(language_b=language)) for end in ("low", "high"))
            others = one["auroc"].where(one["language_b"] != language).values
            rows.append([str(value), str(language), float(one["auroc"].sel(language_b=language)), low, high,
                         float(np.nanmean(others)) if np.isfinite(others).any() else float("nan"),
                         *(int(n) for n in one["words"].sel(part="test").values)])
    return Table(["value", "language", "AUROC", "low", "high", "in other languages", "words without", "with"], rows,
                 "Words with the value against words with another one of the same feature, other documents; chance 0.5")


def downstream(found: xr.Dataset) -> Table:
    """How attribution further on agrees with the own layer's and with exact ablation."""
    rows: list[list[object]] = []
    for value in found["value"].values:
        means = found.sel(value=value).mean("language")
        rows.append([str(value), *(float(means[name]) for name in (
            "agreement", "common", "exact_gradient", "exact_integrated", "incomplete"))])
    return Table(["value", "rank correlation with the own layer", "tops in common", "gradient against exact",
                  "integrated gradients against exact", "missed of the whole"], rows,
                 f"Attribution to the probe at {found.attrs['layer']}; means over languages")


def dictionary(found: xr.Dataset) -> Table:
    """How well the dictionary reconstructs, by language."""
    names = [str(name) for name, one in found.data_vars.items() if one.dims == ("language",)]
    rows: list[list[object]] = [[str(language), *(float(found[name].sel(language=language)) for name in names)]
                                for language in found["language"].values]
    return Table(["language", *(str(found[name].attrs.get("title", name.replace("_", " "))) for name in names)], rows,
                 found.attrs.get("what", ""))


def pairs(found: xr.Dataset) -> Table:
    """Accuracy on minimal pairs under each condition."""
    rows: list[list[object]] = []
    for cell in range(found.sizes["cell"]):
        one = found.isel(cell=cell)
        for condition in one["condition"].values:
            at = one.sel(condition=condition)
            accuracy = at["accuracy"].values
            if np.isfinite(accuracy).any():
                rows.append([str(one["value"].item()), str(one["tested"].item()), str(condition),
                             float(np.nanmean(accuracy))])
    return Table(["latents of", "language", "condition", "pairs right"], rows,
                 "Minimal pairs of agreement in the language tested; chance 0.5")


def steering(found: xr.Dataset) -> Table:
    """The wanted change beside the unwanted ones."""
    rows: list[list[object]] = []
    for change in found["change"].values:
        for language in found["language"].values:
            for condition in found["condition"].values:
                one = found.sel(change=change, language=language, condition=condition)
                if np.isnan(float(one["wanted"])):
                    continue
                rows.append([str(change), str(language), str(condition), int(one["words"]), float(one["wanted"]),
                             f"{float(one['d_wanted']):+.3f} [{float(one['d_wanted_low']):+.3f}, "
                             f"{float(one['d_wanted_high']):+.3f}]", float(one["unwanted"]),
                             float(one["same_language"]), float(one["nats"])])
    return Table(["change", "language", "condition", "judged words", "share with the wanted value", "minus unsteered",
                  "largest change of another value", "in the language", "nats a token"], rows, found.attrs["what"])


def samples(found: xr.Dataset) -> Table:
    """Texts to read, the first prompts, none chosen."""
    rows = [[str(one["change"].item()), str(one["language"].item()), str(one["condition"].item()),
             str(one["prompt"].item()), str(one["text"].item())]
            for one in (found.isel(sample=i) for i in range(found.sizes["sample"]))]
    return Table(["change", "language", "condition", "prompt", "continuation"], rows, "The first prompts, none chosen")


def matched(found: xr.Dataset) -> Table:
    """How many latents of one checkpoint are found again at another."""
    rows: list[list[object]] = []
    for pair in range(found.sizes["pair"]):
        one = found.isel(pair=pair)
        rows.append([str(one["checkpoint_a"].item()), str(one["checkpoint_b"].item()), float(one["cosine"]),
                     float(one["cosine_null"]), float(one["above"]), float(one["p"])])
    return Table(["checkpoint", "and", "median cosine of matched latents", "turned at random", "above 0.7", "p"], rows,
                 "Latents matched one to one by the cosine of what they write")

