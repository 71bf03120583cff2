"""The figures of a steering experiment: each condition beside the unforced texts of the same seeds."""

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from xlingjax.report import style
from xlingjax.report.page import Figure, Slides

UNDETERMINED = "undetermined"
MAIN = ("unforced", "experts", "random neurons")


def main_conditions(effects: xr.Dataset) -> list[str]:
    """Conditions but for the other doses, which have a figure of their own."""
    doses = set(json.loads(effects.attrs["doses"]).values()) - {"experts"}
    return [str(name) for name in effects["condition"].values if str(name) not in doses]


def colours(verdicts: Sequence[str]) -> dict[str, str]:
    """One colour a language; grey for "undetermined"."""
    return {name: style.NULL if name == UNDETERMINED else style.PALETTE[i % 7] for i, name in enumerate(verdicts)}


def shares(effects: xr.Dataset) -> Slides:
    """Which language each condition writes, at every checkpoint."""
    conditions, verdicts = main_conditions(effects), [str(name) for name in effects["verdict"].values]
    colour = colours(verdicts)
    figures = []
    labels = [str(name) for name in effects["checkpoint"].values]
    for label in labels:
        at = effects.sel(checkpoint=label, condition=conditions)
        with style.figure(width=8.6, height=0.42 * len(conditions) + 1.6) as (canvas, grid):
            axes = grid[0, 0]
            left = np.zeros(len(conditions))
            for number, name in enumerate(verdicts):
                values = np.nan_to_num(at["share"].sel(verdict=name).values)
                axes.barh(range(len(conditions)), values, left=left, color=colour[name], label=name,
                          hatch="//" if 7 <= number < len(verdicts) - 1 else None, edgecolor="white", linewidth=0.5)
                left += values
            axes.set_yticks(range(len(conditions)), conditions)
            axes.invert_yaxis()
            axes.set_xlim(0, 1)
            axes.set_xlabel("share of texts")
            axes.set_title(f"checkpoint {label}")
            axes.grid(False)
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
            figures.append(Figure(f"steer_shares_{label}", style.png(canvas), f"languages of the texts at {label}", ""))
    return Slides("steer_shares", tuple(figures), tuple(labels), "Checkpoint", (
        f"The language of {effects.attrs['rows']} texts a condition, as the judge says it; grey: undetermined. "
        "“unforced” has the same seeds and an edit that reaches no neuron; “random neurons” are as many in every layer "
        "and site, and move the residual stream as far. What the forced neurons do is the difference from these two "
        "bars, not the bar alone. Move the slider, or use the arrow keys on it."))


def over_training(effects: xr.Dataset) -> Figure:
    """The source language's share and the concept's presence over checkpoints."""
    source = effects.attrs["source_language"]
    checkpoints = [str(name) for name in effects["checkpoint"].values]
    x = np.arange(len(checkpoints))
    with style.figure(2, width=8.6, height=3.6) as (canvas, grid):
        for axes, what, title in zip(grid[0], ("share", "joint"), (
                f"texts in {source}", f"texts in {source} that show the concept")):
            for i, name in enumerate(MAIN):
                if name not in effects["condition"].values:
                    continue
                at = effects.sel(condition=name).sel({"verdict" if what == "share" else "language": source})
                low, high = at[what] - at[f"{what}_low"], at[f"{what}_high"] - at[what]
                shift = (i - 1) * 0.08
                axes.errorbar(x + shift, at[what], yerr=[np.maximum(low, 0), np.maximum(high, 0)], capsize=2,
                              color=style.NULL if name == "unforced" else style.PALETTE[0 if name == "experts" else 1],
                              marker=style.MARKERS[i], label=name)
            axes.set_xticks(x, checkpoints, rotation=40, ha="right")
            axes.set_xlabel("checkpoint")
            axes.set_ylabel("share of texts")
            axes.set_ylim(0, 1)
            axes.set_title(title)
        style.legend_below(canvas, grid[0, 0], columns=3)
        return Figure("steer_over_training", style.png(canvas), "source language and concept over checkpoints", (
            f"Left: how many texts the judge places in {source}, whose experts were forced. Right: how many are in it "
            "and show the concept by its classifier, corrected for its errors on held-out sentences. Bars: "
            f"{effects.attrs['interval']}. One pre-training run: another seed may give another curve."))


def dose(effects: xr.Dataset) -> Figure:
    """The effect of forcing fewer and more experts, with what it costs in fluency."""
    doses = {int(k): name for k, name in json.loads(effects.attrs["doses"]).items()}
    known = [(k, name) for k, name in sorted(doses.items()) if name in effects["condition"].values]
    at = effects.isel(checkpoint=-1).sel(condition=[name for _, name in known])
    source, x = effects.attrs["source_language"], [k for k, _ in known]
    with style.figure(3, width=9.6, height=3.2) as (canvas, grid):
        for axes, what, where, label in (
                (grid[0, 0], "d_share", {"verdict": source}, f"texts in {source}, minus unforced"),
                (grid[0, 1], "d_joint", {"language": source}, f"in {source} with the concept, minus unforced"),
                (grid[0, 2], "d_nats", {}, "nats a token, minus unforced")):
            values = at.sel(where)
            axes.axhline(0, color=style.NULL, linewidth=0.8)
            axes.plot(x, values[what], marker="o", color=style.PALETTE[0])
            axes.fill_between(
                x, values[f"{what}_low"], values[f"{what}_high"], color=style.PALETTE[0], alpha=0.18, linewidth=0)
            axes.axvline(effects.attrs["k"], color=style.NULL, linestyle=":")
            axes.set_xscale("log")
            axes.set_xticks(x, [str(k) for k in x], rotation=60, fontsize=8)
            axes.minorticks_off()
            axes.set_xlabel("experts forced (k)")
            axes.set_ylabel(label, fontsize=8)
        return Figure("steer_dose", style.png(canvas), "dose response over k", (
            "The last checkpoint: what forcing the k best experts changes, beside what it costs: the loss of the texts "
            "under the unforced model. An effect that comes only where the loss has risen far is one of broken text. "
            f"Dotted: the k used elsewhere. Bands: {effects.attrs['interval']}."))
