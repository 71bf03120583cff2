"""The page of word probes: what a layer knows of words, beside controls, and what of it works in another language."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from xlingjax.files import slug
from xlingjax.report import style
from xlingjax.report.align_figures import clustered
from xlingjax.report.page import Figure, Section, Slides, Table, render, write


def tasks_of(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Task -> its dataset over checkpoints."""
    found = [node.to_dataset(inherit=False) for node in tree["words"].children.values()]
    return {one.attrs["task"]: one for one in found}


def write_word_report(tree: xr.DataTree, folder: str | Path) -> Path:
    """Writes `report.html` and its figures as PNG; returns the page's path."""
    tasks = tasks_of(tree)
    sections = [Section(task, [by_layer(found, task), transfer(found, task), nested(found, task), table(found)])
                for task, found in tasks.items()]
    if len(next(iter(tasks.values()))["checkpoint"]) > 1:
        sections.insert(0, Section("Over training", [over_training(tasks)]))
    title = f"Word probes: {tree.attrs['model'].rstrip('/').rsplit('/', 1)[-1]} on {tree.attrs['corpus']}"
    footer = f"treebanks {tree.attrs['corpus_fingerprint'][:16]} · settings {tree.attrs['settings']}"
    return write(Path(folder), render(title, word_summary(tree), sections, footer), sections)


def own(found: xr.Dataset, name: str = "accuracy") -> np.ndarray:
    """Of probes tested in the language they were trained in, [..., layer, G]."""
    values = found[name].transpose(..., "layer", "language", "language_b").values
    return np.einsum("...gg->...g", values)


def across(found: xr.Dataset) -> np.ndarray:
    """Mean over the other languages that a probe is tested in, [..., layer]."""
    values = found["accuracy"].transpose(..., "layer", "language", "language_b").values
    off = ~np.eye(values.shape[-1], dtype=bool)
    return np.nanmean(values[..., off], axis=-1)


def best_layer(found: xr.Dataset) -> int:
    """Where probes do best in their own language at the last checkpoint."""
    values = np.nanmean(own(found.isel(checkpoint=-1)), axis=-1)
    return int(np.nanargmax(values)) if np.isfinite(values).any() else 0


def by_layer(found: xr.Dataset, task: str) -> Slides:
    """Accuracy by layer beside its controls, a picture a checkpoint."""
    labels = [str(label) for label in found["checkpoint"].values]
    figures = []
    for label in labels:
        at = found.sel(checkpoint=label)
        x = at["layer"].values
        mean = lambda name, at=at: at[name].mean("language").values
        with style.figure(2, width=9.2, height=3.2) as (canvas, grid):
            left, right = grid[0]
            left.plot(x, np.nanmean(own(at), -1), marker="o", label="own language, other documents")
            left.plot(x, mean("unseen"), marker="s", label="of forms never seen in training")
            left.plot(x, across(at), marker="^", label="in the other languages")
            for name, text, line in (("lookup", "look-up of forms", "--"), ("majority", "most frequent class", ":")):
                left.axhline(float(mean(name)), color=style.NULL, linestyle=line, label=text)
            left.set_ylim(0, 1)
            left.set_ylabel("balanced accuracy")
            right.plot(x, mean("selectivity"), marker="o", label="selectivity (accuracy minus control task's)")
            right.axhline(0, color=style.NULL, linewidth=0.8)
            twin = right.twinx()
            twin.plot(x, mean("compression"), marker="s", color=style.PALETTE[1], label="compression (right axis)")
            twin.set_ylabel("times shorter than the uniform code")
            twin.grid(False)
            for axes in (left, right):
                axes.set_xlabel("layer (0 = embedding)")
            style.legend_below(canvas, left)
            lines = [*right.get_lines()[:1], *twin.get_lines()]
            right.legend(lines, [str(line.get_label()) for line in lines], fontsize=7, loc="best")
            figures.append(
                Figure(f"words_{slug(task)}_{label}", style.png(canvas), f"{task} by layer at {label}", ""))
    return Slides(f"words_{slug(task)}", tuple(figures), tuple(labels), "Checkpoint", (
        f"Task “{task}”, classes {', '.join(json.loads(found.attrs['classes']))}; means over languages, "
        f"{found.attrs['trained']} training words in each. What a look-up of forms reaches is no knowledge of the "
        "class. Move the slider, or use the arrow keys on it."))


def transfer(found: xr.Dataset, task: str) -> Slides:
    """Trained in the row's language, tested in the column's, at every checkpoint."""
    layer = best_layer(found)
    labels = [str(label) for label in found["checkpoint"].values]
    values = found["accuracy"].sel(layer=layer).transpose("checkpoint", "language", "language_b").values
    order = clustered(values[-1])
    names = [str(name) for name in found["language"].values[order]]
    figures = []
    for i, label in enumerate(labels):
        with style.figure(width=5.6, height=4.4) as (canvas, grid):
            image = style.heat(grid[0, 0], values[i][np.ix_(order, order)], names, names, 1.0)
            grid[0, 0].set_xlabel("tested in")
            grid[0, 0].set_ylabel("trained in")
            grid[0, 0].set_title(f"{task}, layer {layer}, checkpoint {label}")
            canvas.colorbar(image, ax=grid[0, 0], label="balanced accuracy")
            figures.append(Figure(f"transfer_{slug(task)}_{i:02d}", style.png(canvas), f"transfer at {label}", ""))
    return Slides(f"transfer_{slug(task)}", tuple(figures), tuple(labels), "Checkpoint", (
        f"Layer {layer}, where probes do best in their own language at the last checkpoint. Classes that both "
        f"languages have; chance is one over their number, {_range(found['chance'].values)}. Blank: fewer than two "
        "common classes."))


def _range(values: np.ndarray) -> str:
    low, high = np.nanmin(values), np.nanmax(values)
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def nested(found: xr.Dataset, task: str) -> Figure:
    """How few units carry the task, and whether languages have the same ones."""
    layer = best_layer(found)
    at = found.isel(checkpoint=-1).sel(layer=layer)
    with style.figure(2, width=9.2, height=3.2) as (canvas, grid):
        left, right = grid[0]
        for name in at["language"].values:
            left.plot(at["units"].values, at["nested"].sel(language=name), color=style.PALETTE[0], alpha=0.35)
        left.plot(at["units"].values, at["nested"].mean("language"), color=style.PALETTE[0], marker="o", label="mean")
        left.axhline(float(np.nanmean(own(found.isel(checkpoint=-1))[layer])), color=style.CEILING, linestyle="--",
                     label="all units")
        left.set_xscale("log")
        left.set_ylim(0, 1)
        left.set_xlabel("units of the probe, largest weights first")
        left.set_ylabel("balanced accuracy")
        last = found.isel(checkpoint=-1)["units_shared"].transpose("layer", "language", "language_b").values
        off = ~np.eye(last.shape[-1], dtype=bool)
        right.plot(found["layer"].values, last[:, off].mean(-1), marker="o", label="two languages' probes")
        right.axhline(found.attrs["units_chance"], color=style.NULL, linestyle=":", label="chance")
        right.set_ylim(0, 1)
        right.set_xlabel("layer (0 = embedding)")
        right.set_ylabel("share of 20 units in common")
        for axes in (left, right):
            axes.legend(fontsize=7)
        return Figure(f"nested_{slug(task)}", style.png(canvas), f"nested probes of {task}", (
            f"Last checkpoint. Left, layer {layer}: probes on nested sets of units, a thin line a language. Right: "
            "whether the 20 units with the largest weights are the same in two languages; by chance alone they would "
            "be where the dotted line is."))


def over_training(tasks: dict[str, xr.Dataset]) -> Figure:
    """Own-language accuracy and transfer of each task over checkpoints, at its best layer."""
    with style.panels(len(tasks), height=2.8) as (canvas, grid):
        for axes, (task, found) in zip(grid, tasks.items()):
            layer, labels = best_layer(found), [str(label) for label in found["checkpoint"].values]
            x = np.arange(len(labels))
            axes.plot(x, np.nanmean(own(found)[:, layer], -1), marker="o", label="own language")
            axes.plot(x, across(found)[:, layer], marker="^", label="other languages")
            axes.plot(x, found["unseen"].sel(layer=layer).mean("language"), marker="s", label="unseen forms")
            axes.axhline(float(found["lookup"].mean()), color=style.NULL, linestyle="--", label="look-up of forms")
            axes.axhline(float(found["majority"].mean()), color=style.NULL, linestyle=":", label="most frequent class")
            axes.set_xticks(x, labels, rotation=40, ha="right")
            axes.set_ylim(0, 1)
            axes.set_title(f"{task}, layer {layer}")
        style.legend_below(canvas, grid[0], columns=5)
        return Figure("words_training", style.png(canvas), "word probes over checkpoints", (
            "Balanced accuracy in the layer where it is highest in the own language at the last checkpoint; means over "
            "languages. One pre-training run."))


def table(found: xr.Dataset) -> Table:
    """Each language at the last checkpoint, in the best layer."""
    layer = best_layer(found)
    at = found.isel(checkpoint=-1).sel(layer=layer)
    rows: list[list[object]] = []
    values = at["accuracy"].transpose("language", "language_b").values
    for g, name in enumerate(at["language"].values):
        one = at.sel(language=name)
        low, high = (float(at[f"accuracy_{end}"].sel(language=name, language_b=name)) for end in ("low", "high"))
        others = np.delete(values[g], g)
        rows.append([str(name), values[g, g], low, high, float(np.nanmean(others)) if np.isfinite(others).any() else
                     float("nan"), *(float(one[what]) for what in ("unseen", "lookup", "majority", "control",
                                                                    "selectivity", "compression")),
                     int(one["tested"]), int(one["tested_unseen"])])
    return Table(["language", "accuracy", "low", "high", "in other languages", "unseen forms", "look-up",
                  "most frequent", "control task", "selectivity", "compression", "tested", "of unseen form"], rows,
                 f"Last checkpoint, layer {layer}; {found.attrs['interval']}")


def word_summary(tree: xr.DataTree) -> list[str]:
    """One sentence a task, with what has to be beaten."""
    out = []
    for task, found in tasks_of(tree).items():
        layer = best_layer(found)
        last = found.isel(checkpoint=-1).sel(layer=layer)
        mean = lambda name, last=last: float(last[name].mean())
        inside = float(np.nanmean(own(found.isel(checkpoint=-1))[layer]))
        out.append(
            f"{task}: {inside:.2f} in its own language on other documents (look-up of forms {mean('lookup'):.2f}, most "
            f"frequent class {mean('majority'):.2f}), {mean('unseen'):.2f} of forms never seen, "
            f"{float(across(found.isel(checkpoint=-1))[layer]):.2f} in the other languages (chance "
            f"{_range(found['chance'].values)}); layer {layer}, checkpoint {found['checkpoint'].values[-1]}.")
    out.append("One pre-training run, descriptive; what a probe can read a model need not use.")
    return out
