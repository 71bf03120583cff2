"""The figures of a steering experiment: each condition beside the unforced texts of the same seeds."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from xlingjax.report import style
from xlingjax.report.page import Figure, Slides

UNDETERMINED = "undetermined"


class Roles(NamedTuple):
    """The names of the conditions that every figure shows."""

    experts: str
    random: str
    as_perplexed: str
    unforced: str

    def colours(self) -> dict[str, str]:
        """One colour a condition; grey for what no neuron was forced in."""
        return {name: style.NULL if name == self.unforced else colour for name, colour in zip(self, style.PALETTE)}


def roles(effects: xr.Dataset) -> Roles:
    """As the experiment names them."""
    return Roles(**json.loads(effects.attrs["roles"]))


def main_conditions(effects: xr.Dataset) -> list[str]:
    """Conditions but for the other doses, which have a figure of their own."""
    doses = {name for both in json.loads(effects.attrs["doses"]).values() for name in both} - set(roles(effects))
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
        "and site, and move the residual stream as far; “as perplexed” are unforced texts at the temperature at which "
        "the model finds them as unlikely as the forced ones. What the forced neurons do is the difference from these "
        "three bars, not the bar alone. Move the slider, or use the arrow keys on it."))


def over_training(effects: xr.Dataset) -> Figure:
    """The source language's share and the concept's presence over checkpoints."""
    source = effects.attrs["source_language"]
    checkpoints = [str(name) for name in effects["checkpoint"].values]
    x = np.arange(len(checkpoints))
    named = roles(effects)
    main = (named.experts, *json.loads(effects.attrs["controls"]))
    with style.figure(2, width=8.6, height=3.6) as (canvas, grid):
        for axes, what, title in zip(grid[0], ("share", "joint"), (
                f"texts in {source}", f"texts in {source} that show the concept")):
            for i, name in enumerate(main):
                if name not in effects["condition"].values:
                    continue
                at = effects.sel(condition=name).sel({"verdict" if what == "share" else "language": source})
                low, high = at[what] - at[f"{what}_low"], at[f"{what}_high"] - at[what]
                shift = (i - 1.5) * 0.08
                axes.errorbar(x + shift, at[what], yerr=[np.maximum(low, 0), np.maximum(high, 0)], capsize=2,
                              color=named.colours()[name],
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
    doses = sorted((int(k), names) for k, names in json.loads(effects.attrs["doses"]).items())
    last, source = effects.isel(checkpoint=-1), effects.attrs["source_language"]
    ticks = [k for k, _ in doses]
    named = roles(effects)
    colour = named.colours()
    with style.figure(3, width=9.6, height=3.2) as (canvas, grid):
        for axes, what, where, label in (
                (grid[0, 0], "d_share", {"verdict": source}, f"texts in {source}, minus unforced"),
                (grid[0, 1], "d_joint", {"language": source}, "those with the concept, minus unforced"),
                (grid[0, 2], "d_nats", {}, "nats a token, minus unforced")):
            axes.axhline(0, color=style.NULL, linewidth=0.8)
            for kind, label_of in enumerate((named.experts, named.random)):
                known = [(k, names[kind]) for k, names in doses if names[kind] in last["condition"].values]
                values = last.sel(where).sel(condition=[name for _, name in known])
                x = [k for k, _ in known]
                axes.plot(x, values[what], marker=style.MARKERS[kind], color=colour[label_of], label=label_of)
                axes.fill_between(x, values[f"{what}_low"], values[f"{what}_high"], color=colour[label_of], alpha=0.18,
                                  linewidth=0)
            axes.axvline(effects.attrs["k"], color=style.NULL, linestyle=":")
            axes.set_xscale("log")
            axes.set_xticks(ticks, [str(k) for k in ticks], rotation=60, fontsize=8)
            axes.minorticks_off()
            axes.set_xlabel("neurons forced (k)")
            axes.set_ylabel(label, fontsize=8)
        style.legend_below(canvas, grid[0, 0])
        return Figure("steer_dose", style.png(canvas), "dose response over k", (
            "The last checkpoint: what forcing the k best experts changes, beside as many random neurons that move the "
            "residual stream as far, and what it costs: the loss of the texts under the unforced model. An effect "
            "that comes only where the loss has risen far is one of broken text. "
            f"Dotted: the k used elsewhere. Bands: {effects.attrs['interval']}."))


def switching(switched: xr.Dataset) -> Slides:
    """What is written with a language's neurons switched on, minus unforced: own neurons beside random ones."""
    names, verdicts = ([str(name) for name in switched[of].values] for of in ("switched", "verdict"))
    labels = [str(name) for name in switched["checkpoint"].values]
    top = max(0.05, float(np.nanmax(np.abs(switched["d_share"].values))))
    figures = []
    for label in labels:
        with style.figure(2, width=9.6, height=0.42 * len(names) + 2.2, sharey=True) as (canvas, grid):
            for axes, kind in zip(grid[0], switched["kind"].values):
                values = switched["d_share"].sel(checkpoint=label, kind=kind).transpose("switched", "verdict").values
                image = style.heat(axes, values, names, verdicts, top, signed=True)
                axes.set_title(str(kind))
                axes.set_xlabel("language of the texts")
            grid[0, 0].set_ylabel("switched on")
            canvas.colorbar(image, ax=list(grid[0]), label="share of texts, minus unforced", shrink=0.8)
            figures.append(Figure(f"steer_switched_{label}", style.png(canvas),
                                  f"languages of the texts at {label} with a language switched on", ""))
    return Slides("steer_switched", tuple(figures), tuple(labels), "Checkpoint", (
        "Each row: the neurons of one language are set to their median over its sentences, at every position. On the "
        "diagonal, how much more often that language is then written. Right: as many random neurons that move the "
        "residual stream as far. Neurons that carry a language light up the left diagonal and not the right one."))
