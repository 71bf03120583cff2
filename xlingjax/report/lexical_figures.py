"""The figures of a lexical transfer: scores beside the floors, and the layers in which languages share experts."""

import numpy as np
import xarray as xr

from xlingjax.report import style
from xlingjax.report.page import Figure

COLOURS = {"transfer": style.PALETTE[0], "start": style.PALETTE[2], "baseline": style.PALETTE[1], "floor": style.NULL}


def chance(measure: str) -> str:
    """What has the score that a task calls chance."""
    return {"accuracy": "the most frequent class", "f1": "a span drawn at random"}.get(measure, "the task's own chance")


def scores(found: xr.Dataset, measure: str) -> Figure:
    """Every system in every language, with intervals and chance."""
    languages, systems = found["language"].values, found["system"].values
    rows = np.arange(len(systems))[::-1]
    end = min(1.0, 1.1 * float(np.nanmax([found[name].max() for name in ("high", "seed_score", "chance")]))) or 1.0
    roles = [str(role) for role in found["role"].values]
    with style.figure(len(languages), width=2.4 + 2.2 * len(languages), height=1.2 + 0.26 * len(systems),
                      sharey=True) as (canvas, grid):
        for axes, language in zip(grid[0], languages):
            at = found.sel(language=language)
            for row, role, score, low, high, seeds in zip(
                    rows, roles, at["score"].values, at["low"].values, at["high"].values, at["seed_score"].values):
                axes.plot([low, high], [row, row], color=COLOURS[role], linewidth=3, alpha=0.5)
                axes.plot([score], [row], "o", color=COLOURS[role])
                axes.plot(seeds, np.full(len(seeds), row), "|", color=COLOURS[role], markersize=7)
            axes.axvline(float(at["chance"]), color=style.CHANCE, linestyle=":")
            axes.set_title(str(language))
            axes.set_xlabel(measure)
            axes.set_xlim(0, end)
        grid[0, 0].set_yticks(rows, systems)
        return Figure("lexical_scores", style.png(canvas), f"{measure} of every system by language", (
            f"Dots: means over seeds; bars: {found.attrs['level']:.0%} of samples of documents; strokes: single "
            f"seeds; dotted: {chance(measure)}. Blue: transferred embeddings; green: the same from other starts; "
            "red: models that read both languages from the start; grey: floors."))


def layers(experts: xr.Dataset, first: str) -> Figure:
    """Overlap of experts by layer between the first language and each other one."""
    others = [str(name) for name in experts["language"].values if name != first]
    conditions = [str(name) for name in experts["condition"].values]
    with style.panels(len(others), height=2.9, sharey=True) as (canvas, grid):
        for axes, other in zip(grid, others):
            for condition, colour, marker in zip(conditions, style.PALETTE, style.MARKERS):
                at = experts.sel(condition=condition, language=first, language_b=other)
                axes.plot(at["layer"], at["layer_overlap"], color=colour, marker=marker, label=condition)
                axes.plot(at["layer"], at["layer_null"], color=colour, linestyle=":")
            axes.set_title(f"{first} and {other}")
            axes.set_xticks(experts["layer"].values)
            axes.set_xlabel("layer")
        grid[0].set_ylabel("shared experts, share of k")
        style.legend_below(canvas, grid[0])
        return Figure("lexical_layers", style.png(canvas), "shared experts by layer", (
            "Neurons of each layer that are experts of a concept in both languages, as a share of the whole set of k; "
            "experts of one language from half of the documents, of the other from the other half; mean over concepts. "
            "Dotted: the same with the labels permuted jointly in all languages."))
