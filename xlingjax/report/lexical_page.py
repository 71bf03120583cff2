"""The page of a lexical transfer: does a body read a language that it never saw? In words, tables and figures."""

from pathlib import Path

import numpy as np
import xarray as xr

from xlingjax.report import lexical_figures as figures
from xlingjax.report.page import Section, Table, render, write


def write_lexical_report(tree: xr.DataTree, folder: str | Path) -> Path:
    """Writes `report.html` and its figures as PNG; returns the page's path."""
    scores = _dataset(tree, "scores")
    measure = tree.attrs["measure"]
    sections = [
        Section("Zero-shot scores", [figures.scores(scores, measure), _scores(tree)]),
        Section("Above the floors?", [_gains(scores)]),
        *([Section("The same neurons?", [figures.layers(_dataset(tree, "experts"), tree.attrs["first"]),
                                         _experts(tree)])] if "experts" in tree.children else []),
        Section("Language modelling", [_losses(_dataset(tree, "losses")),
                                         _trained(_dataset(tree, "training"))]),
        Section("What freezing saves", [_costs(_dataset(tree, "costs"))]),
        Section("Text", [_text(_dataset(tree, "text"))])]
    title = f"A body of {tree.attrs['first']} that reads other languages by their embeddings: {tree.attrs['task']}"
    footer = (f"corpus {tree.attrs['corpus']} {tree.attrs['corpus_fingerprint'][:16]} · settings "
              f"{tree.attrs['settings']} · model {tree.attrs['config']} · xlingjax {tree.attrs['xlingjax']}")
    return write(Path(folder), render(title, lexical_summary(tree), sections, footer), sections)


def lexical_summary(tree: xr.DataTree) -> list[str]:
    """The sentences at the head of the page; what is above the floors is decided in the result."""
    scores = _dataset(tree, "scores")
    everywhere = scores.sel(language="all")
    roles = scores["role"].values
    out = []
    for system in scores["system"].values[roles == "transfer"]:
        at = everywhere.sel(system=system, transfer=system)
        verdict = "above all three floors" if bool(at["above"]) else "not above every floor"
        nearest = at["floor"].values[int(at["gain"].values.argmin())]
        out.append(f"{_named(system)}: {_interval(at, 'score')} on average over languages, {verdict} "
                   f"(the nearest is {nearest}, {_gain(at)}); in "
                   f"{tree.attrs['first']} itself {float(at['first']):.3f}.")
    for role in ("floor", "baseline", "start"):
        found = everywhere.sel(system=roles == role) if (roles == role).any() else None
        if found is not None:
            parts = [f"{name} {_interval(found.sel(system=name), 'score')}" for name in found["system"].values]
            if role == "floor":
                parts.append(f"{figures.chance(tree.attrs['measure'])} {float(everywhere['chance']):.3f}")
            out.append(f"{_PLURAL[role]}: {'; '.join(parts)}.")
    if "experts" in tree.children:
        out.append(_experts_words(tree))
    seeds = scores.sizes["seed"]
    out.append(f"Intervals are over documents; {seeds} run{'s' if seeds > 1 else ''} of training"
               + (", whose spread stands in the table." if seeds > 1 else ", so nothing is said of other runs."))
    return out


_PLURAL = {"floor": "Floors", "baseline": "Models that read both languages from the start, or static embeddings",
           "start": "Other starts of the embeddings"}


def _named(system: object) -> str:
    return f"Transferred, {system}"


def _interval(at: xr.Dataset, name: str) -> str:
    return f"{float(at[name]):.3f} [{float(at['low']):.3f}, {float(at['high']):.3f}]"


def _gain(at: xr.Dataset) -> str:
    one = at.isel(floor=int(at["gain"].values.argmin()))
    return f"{float(one['gain']):+.3f} [{float(one['gain_low']):+.3f}, {float(one['gain_high']):+.3f}]"


def _experts_words(tree: xr.DataTree) -> str:
    experts, first = _dataset(tree, "experts"), tree.attrs["first"]
    others = [name for name in experts["language"].values if name != first]
    parts = []
    for condition in experts["condition"].values:
        at = _at_k(experts).sel(condition=condition, language=first, language_b=others)
        parts.append(f"{condition} {float(at['overlap_mean'].mean()):.3f} (labels permuted "
                     f"{float(at['null_overlap'].mean()):.3f}, largest p {float(at['p'].max()):.2g})")
    return (f"Experts of concepts that {first} and another language share, as a share of k = {experts.attrs['k']}: "
            f"{'; '.join(parts)}.")


def _scores(tree: xr.DataTree) -> Table:
    scores = _dataset(tree, "scores")
    rows = []
    for system in scores["system"].values:
        at = scores.sel(system=system)
        cells: list[object] = [str(system), str(at["role"].item()), float(at["first"])]
        for language in scores["language"].values:
            one = at.sel(language=language)
            cells += [float(one["score"]), float(one["low"]), float(one["high"]), float(one["spread"])]
        rows.append(cells)
    rows.append([figures.chance(tree.attrs["measure"]), "chance", None, *(
        cell for value in scores["chance"].values for cell in (float(value), None, None, None))])
    header = ["system", "what it is", tree.attrs["first"]]
    for language in scores["language"].values:
        header += [str(language), "low", "high", "sd of seeds"]
    return Table(header, rows, "Scores in the first language, and zero-shot in the others")


def _gains(scores: xr.Dataset) -> Table:
    rows = []
    for system in scores["transfer"].values:
        for language in scores["language"].values:
            at = scores.sel(transfer=system, language=language)
            rows.append([str(system), str(language), *(
                f"{float(one['gain']):+.3f} [{float(one['gain_low']):+.3f}, {float(one['gain_high']):+.3f}]"
                for one in (at.sel(floor=floor) for floor in scores["floor"].values)), bool(at["above"])])
    return Table(["system", "language", *(f"over {floor}" for floor in scores["floor"].values), "above all"], rows,
                 "Gain over each floor, on the same samples of documents")


def _at_k(experts: xr.Dataset) -> xr.Dataset:
    return experts.sel(k=experts.attrs["k"])


def _experts(tree: xr.DataTree) -> Table:
    experts, first = _at_k(_dataset(tree, "experts")), tree.attrs["first"]
    rows = []
    for condition in experts["condition"].values:
        for other in (name for name in experts["language"].values if name != first):
            at = experts.sel(condition=condition, language=first, language_b=other)
            ceiling = experts["ceiling"].sel(condition=condition, language=[first, other]).mean()
            rows.append([str(condition), str(other), float(at["overlap_mean"]), float(at["null_overlap"]),
                         float(at["null_overlap_sd"]), float(at["p"]), float(at["chance_uniform"]), float(ceiling),
                         float(at["shared_fraction"].mean("concept") if "concept" in at["shared_fraction"].dims
                               else at["shared_fraction"])])
    return Table(["condition", "language", "overlap", "labels permuted", "sd", "p", "sets at random", "ceiling",
                  "shared fraction"], rows,
                 f"Experts in {first} against those in each language, {experts.sizes['concept']} concepts; ceiling: "
                 "one language against itself, on other documents. Controls: untrained embeddings, and a random body")


def _losses(losses: xr.Dataset) -> Table:
    mean = losses["loss"].mean("seed")
    rows = [[str(system), *(float(value) for value in mean.sel(system=system).values)]
            for system in losses["system"].values if np.isfinite(mean.sel(system=system)).any()]
    return Table(["system", *map(str, losses["language"].values)], rows,
                 "Held-out masked-LM loss through each language's own vocabulary, nats a hidden token, mean over seeds")


def _trained(training: xr.Dataset) -> Table:
    rows = [[str(model), *map(float, training["loss"].sel(model=model).values)] for model in training["model"].values]
    return Table(["masked LM", *(f"seed {seed}" for seed in range(training.sizes["seed"]))], rows,
                 "Training loss over the last steps, nats a hidden token, each in its own vocabulary. A model that has "
                 "not come far below the loss of single frequencies has not learned its languages in these steps")


def _costs(costs: xr.Dataset) -> Table:
    rows = [[f"{name} learned", *(float(costs[what].sel(learned=name)) * factor for what, factor in (
        ("operations", 1e-9), ("temporary_bytes", 1e-6), ("state_bytes", 1e-6), ("seconds", 1e3))),
        int(costs["tokens_per_second"].sel(learned=name))] for name in costs["learned"].values]
    return Table(["", "10^9 operations", "MB in the step", "MB throughout", "ms a step", "tokens a second"], rows,
                 "One masked-LM step, by the compiler's count and the clock")


def _text(text: xr.Dataset) -> Table:
    columns = ("lines", "removed", "tokens", "pieces", "shared_pieces", "test_examples", "test_documents", "cut")
    rows = [[str(name), *(int(text[column].sel(language=name)) for column in columns)]
            for name in text["language"].values]
    return Table(["language", "lines", "of them in the first language, removed", "tokens", "pieces",
                  "pieces shared with the first", "test examples", "test documents", "texts cut"], rows,
                 "What was read, and what was tested on")


def _dataset(tree: xr.DataTree, name: str) -> xr.Dataset:
    node = tree[name]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)
