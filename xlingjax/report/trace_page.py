"""The page of a trace: a summary in words that says only what its numbers carry, then the figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from xlingjax.files import slug
from xlingjax.report import trace_figures as figures
from xlingjax.report.page import Section, Table, marked, render, write
from xlingjax.report.pairs import mean_over
from xlingjax.report.trace_words import summary, until_last_sound


def datasets(tree: xr.DataTree, kind: str) -> dict[str, xr.Dataset]:
    """Group name -> dataset of one kind ("experts", "claims", "ladder", "calls").

    What follows the last sound checkpoint is left to the table of health.
    """
    if kind not in tree.children:
        return {}
    found = {name: node.to_dataset(inherit=False) for name, node in tree[kind].children.items()}
    found = {name: until_last_sound(tree, one) if "checkpoint" in one.dims else one
             for name, one in found.items()}
    names = {name: found[name].attrs.get("group", name) for name in found}
    return {names[name]: dataset for name, dataset in found.items()}


def write_report(tree: xr.DataTree, folder: str | Path, more: Sequence[Section] = ()) -> Path:
    """Writes `report.html` and its figures as PNG; returns the page's path.

    Args:
        tree: what `analyses.trace.trace` returns.
        folder: where the files go.
        more: sections of other experiments on the same checkpoints.
    """
    sections = [*build(tree), *more]
    model = tree.attrs["model"].rstrip("/").rsplit("/", 1)[-1]
    title = f"Shared neurons over pre-training: {model} on {tree.attrs['corpus']}"
    footer = (f"corpus {tree.attrs['corpus_fingerprint'][:16]} · settings {tree.attrs['settings']} · "
              f"concepts left out for want of sentences: {len(json.loads(tree.attrs['dropped_concepts']))} · "
              f"{tree.attrs['replicates']}")
    page = render(title, summary(tree), sections, footer)
    return write(Path(folder), page, sections)


def build(tree: xr.DataTree) -> list[Section]:
    """The sections of the page."""
    claims, experts = datasets(tree, "claims"), datasets(tree, "experts")
    sections = [_sharing(claims), _layers(claims, experts), _ladder(tree, claims)]
    if any("run" in one.dims for one in claims.values()):
        sections.insert(1, _each_run(claims))
    if "probe" in tree.children:
        probe = until_last_sound(tree, tree.children["probe"].to_dataset(inherit=False))
        sections.append(Section("Language identity by layer", [*figures.probe(probe), _confusions(probe)]))
    if "language_neurons" in tree.children:
        sections.append(_language_neurons(
            until_last_sound(tree, tree.children["language_neurons"].to_dataset(inherit=False))))
    sections += [_concepts(experts, claims), _pairs(experts, claims), _reach(claims, experts),
                 _length(datasets(tree, "matched")), _neurons(tree), _health(tree)]
    return sections


def _sharing(claims: Mapping[str, xr.Dataset]) -> Section:
    parts: list[object] = []
    for group, one in claims.items():
        parts.append(figures.sharing(one, group, slug(group)))
        last = one.isel(checkpoint=-1)
        shown = {
            "overlap": "overlap", "overlap_low": "low", "overlap_high": "high", "null": "joint null",
            "band": "its band", "p": f"p ({one.attrs['p']})", "name_null": "name null", "name_band": "its band",
            "name_p": "p", "ceiling": "ceiling", "chance_stratified": "stratified", "chance_marginal": "marginal",
            "same_half": "same half", "shared_fraction": "shared fraction", "shared_fraction_low": "low",
            "shared_fraction_high": "high", "estimable": "estimable"}
        rows = [[str(pairs), *(float(last[what].sel(pairs=pairs)) for what in shown)] for pairs in one["pairs"].values]
        parts.append(Table(
            ["pairs", *shown.values()],
            rows, f"Last sound checkpoint, group “{group}”, {one.attrs['concepts']} concepts, k = {one.attrs['k']}; "
            f"smallest attainable p {one.attrs['smallest_p']:.3f}, of names {one.attrs['smallest_name_p']:.3f}"))
    parts.append(figures.persistence(claims))
    return Section("Sharing over training", parts)


def _each_run(claims: Mapping[str, xr.Dataset]) -> Section:
    """Every run's own numbers, so that a mean hides none."""
    rows = []
    for group, one in claims.items():
        last = one.isel(checkpoint=-1)
        for name in one["run"].values:
            for pairs in one["pairs"].values:
                at = last.sel(run=name, pairs=pairs)
                rows.append([group, str(pairs), str(name), *(float(at[f"{what}_runs"]) for what in (
                    "overlap", "null", "band", "name_null", "name_band", "ceiling", "shared_fraction"))])
    return Section("Run by run", [Table(
        ["group", "pairs", "run", "overlap", "joint null", "its band", "name null", "its band", "ceiling",
         "shared fraction"], rows,
        "Last sound checkpoint of every run; the interval of the mean rests on as many numbers as there are runs")])


def _layers(claims: Mapping[str, xr.Dataset], experts: Mapping[str, xr.Dataset]) -> Section:
    parts: list[object] = []
    for group, one in experts.items():
        pairs = claims[group]["members"].values[0].astype(bool)
        parts += [figures.layers(one, pairs, group, slug(group)),
                  figures.curve_over_k(one, pairs, group, slug(group))]
    return Section("Where: layers, and the size of the set", parts)


def _ladder(tree: xr.DataTree, claims: Mapping[str, xr.Dataset]) -> Section:
    ladders = datasets(tree, "ladder")
    first = next(iter(claims.values()))
    classes = {str(name): first["members"].sel(pairs=name).values.astype(bool)
               for name in first["pairs"].values if name != "seen"}
    rows = []
    for group, one in ladders.items():
        for rung in one["rung"].values:
            for name, pairs in classes.items():
                at = one.sel(rung=rung)
                numbers = [float(mean_over(at[what], pairs)) for what in (
                    "overlap", "null_overlap", "name_null", "shared_fraction", "positives_left")]
                rows.append([group, str(rung), name, *numbers])
    return Section("Anchors against abstraction", [
        figures.ladder(ladders, classes),
        Table(["group", "rung", "pairs", "overlap", "joint null", "name null", "shared fraction", "left"], rows,
              "Means over language pairs at the last sound checkpoint; “left”: positives (sentences, for the "
              "last rung) still counted")])


def _pairs(experts: Mapping[str, xr.Dataset], claims: Mapping[str, xr.Dataset]) -> Section:
    return Section("Language by language", [
        figures.matrices(one, group, slug(group)) for group, one in experts.items()])


def _concepts(experts: Mapping[str, xr.Dataset], claims: Mapping[str, xr.Dataset]) -> Section:
    rows = []
    for group, one in experts.items():
        last = one.isel(checkpoint=-1, adjustment=0).sel(k=one.attrs["k"])
        pairs = claims[group]["members"].isel(pairs=0).astype(bool)
        own, others = (last[what].where(pairs).mean(("language", "language_b")).values
                       for what in ("overlap", "kind_overlap"))
        ceiling = last["ceiling"].where(pairs.any("language_b") | pairs.any("language").rename(
            language_b="language")).mean("language").values
        for c in np.argsort(-own, kind="stable"):
            rows.append([group, str(one["concept"].values[c]), str(one["kind"].values[c]), float(own[c]),
                         float(others[c]), float(ceiling[c])])
    return Section("Concept by concept", [
        "Where a concept shares no more with itself in another language than with other concepts of its kind there, "
        "the neurons may mark what the kind has in common.",
        Table(["group", "concept", "kind", "overlap", "overlap with others of its kind", "ceiling"], rows,
              "Means over pairs of pre-training languages at the last sound checkpoint")])


def _language_neurons(found: xr.Dataset) -> Section:
    rows = []
    for name in found["checkpoint"].values:
        for removed in found["removed"].values:
            at = found.sel(checkpoint=name, removed=removed)
            others = at["damage"].sel(language=[g for g in found["language"].values if g != removed])
            rows.append([str(name), str(removed), int(at["size"]), float(at["damage"].sel(language=removed)),
                         float(others.mean()), float(at["own"]), float(at["own_random"].mean()),
                         float(at["own_random"].max())])
    return Section("Neurons of one language", [
        figures.damage(found),
        Table(["checkpoint", "taken away", "neurons", "damage to itself", "to the others", "difference",
               "of random neurons: mean", "largest"], rows,
              "Loss in nats a token without the neurons minus with them, on documents that did not find them")])


def _reach(claims: Mapping[str, xr.Dataset], experts: Mapping[str, xr.Dataset]) -> Section:
    return Section("Reliability and breadth", [
        figures.reach(one, claims[group]["members"].values[0].astype(bool), group, slug(group))
        for group, one in experts.items()])


def _length(experts: Mapping[str, xr.Dataset]) -> Section:
    rows = []
    for group, one in experts.items():
        last = one.sel(adjustment="raw")
        prevalence = float(last["prevalence"].mean())
        at_k, null = float(last["ap_at_k"].mean()), float(last["null_ap_at_k"].mean())
        over = {name: float(np.nanmean(one.sel(
            adjustment=name, k=one.attrs["k"])["overlap_mean"].values[
                ~np.eye(one.sizes["language"], dtype=bool)])) for name in one["adjustment"].values}
        for covariate in last["covariate"].values:
            ap = last["covariate_ap"].sel(covariate=covariate)
            share = float((last["covariate_p"].sel(covariate=covariate) <= 0.05).mean())
            rows.append([group, str(covariate), float(ap.mean()), prevalence, share, at_k, null,
                         over.get("raw", float("nan")), over.get("length", float("nan"))])
    return Section("Length and position as detectors", [
        "Max-pooling favours long sentences, so token count, character count and position in the document "
        "are scored as if they were neurons.",
        Table(["group", "detector", "its AP", "prevalence", "share of cells with p ≤ 0.05",
               "AP of the k-th expert", "the same under the null", "overlap", "overlap, length matched"], rows,
              "Means over concepts and languages at the last sound checkpoint")])


def _neurons(tree: xr.DataTree) -> Section:
    parts: list[object] = []
    calls = datasets(tree, "calls")
    rows = []
    for group, one in calls.items():
        upper = np.triu(np.ones((one.sizes["language"],) * 2, bool), 1)
        counts = [float(one[call].sum("concept").transpose("language", "language_b").values[upper].sum())
                  for call in ("anchor", "length", "abstract")]
        total = sum(counts) or 1.0
        rows.append([group, int(total), *(count / total for count in counts),
                     float(one["first_token_share"].mean())])
    parts.append(Table(
        ["group", "shared experts", "anchor", "length", "abstract", "maxima at the first token"], rows,
        "Shared experts of all language pairs (same documents) and what explains them. Anchor: a maximising "
        "piece is the same in both languages. Length: no longer an expert against negatives of equal length. "
        "Abstract: neither explanation was found."))
    shown = tree.children["neurons"].to_dataset(inherit=False) if "neurons" in tree.children else xr.Dataset()
    for i in range(shown.sizes.get("expert", 0)):
        one = shown.isel(expert=i)
        examples = json.loads(str(one["examples"].item()))
        parts.append(Table(
            ["language", "sentence with the largest response"],
            [[language, marked(pieces, at)] for language, pieces, at in examples],
            f"“{one['concept'].item()}” ({one['group'].item()}): {one['site'].item()}, layer "
            f"{int(one['layer']) + 1}, unit {int(one['unit'])}; expert in {one['languages'].item()}; "
            f"mean AP {float(one['ap']):.2f}; called {one['call'].item()}"))
    return Section("Shared neurons and what makes them fire", parts)


def _confusions(probe: xr.Dataset) -> Table:
    last = probe.isel(checkpoint=-1)
    rows = [[int(layer), float(last["confused_within_script"].sel(layer=layer)),
             float(last["confused_across_scripts"].sel(layer=layer)),
             float(last["log_loss_bits"].sel(layer=layer))] for layer in last["layer"].values]
    return Table(["layer", "confused within the script", "confused across scripts", "log-loss (bits)"], rows,
                 f"Confusions at the last sound checkpoint, all tokens; log-loss against H(language) = "
                 f"{float(last['entropy_bits']):.2f} bits")


def _health(tree: xr.DataTree) -> Section:
    health = tree.children["health"].to_dataset(inherit=False)
    rows = []
    for name in health["checkpoint"].values:
        one = health.sel(checkpoint=name)
        tokens = float(one["tokens_seen"])
        rows.append([str(name), int(tokens) if tokens == tokens else None, str(one["status"].item()),
                     *(float(one["perplexity"].sel(language=g)) for g in health["language"].values)])
    return Section("Checkpoint health", [
        figures.losses(health),
        Table(["checkpoint", "tokens seen", "status", *(f"perplexity {g}" for g in health["language"].values)],
              rows, "Every checkpoint's fingerprint is compared with the earlier ones; non-finite weights and "
              "responses are counted")])
