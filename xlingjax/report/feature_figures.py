"""The figures of grammatical features: sharing beside chance, latents by language, and what ablation takes away."""

import json
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from xlingjax.files import slug
from xlingjax.report import style
from xlingjax.report.page import Figure, Slides

CHANCES = {"even": "drawn evenly", "activity": "drawn by activity"}
ROWS = 20  # latents of a matrix


class Roles(NamedTuple):
    """The kinds of conditions that every figure shows, as the analysis names them."""

    no_op: str
    shared: str
    matched: str
    specific: str
    leace: str


def roles(causal: xr.Dataset) -> Roles:
    """As the result names them."""
    return Roles(**json.loads(causal.attrs["roles"]))


def at_k(found: xr.Dataset) -> xr.Dataset:
    """Sharing at the number of latents used elsewhere, or the largest there is."""
    ks = found["k"].values
    return found.sel(k=found.attrs["k"] if found.attrs["k"] in ks else ks[-1])


def breadth(found: xr.Dataset) -> Figure:
    """In how many languages the strongest latents of each value are, beside chance."""
    at = at_k(found)
    values = [str(name) for name in at["value"].values]
    x = at["languages"].values
    with style.panels(len(values), height=2.6) as (canvas, grid):
        for axes, value in zip(grid, values):
            one = at.sel(value=value)
            axes.bar(x, np.nan_to_num(one["breadth"].values), color=style.PALETTE[0], alpha=0.6, label="latents found")
            for (name, label), colour, marker in zip(CHANCES.items(), style.PALETTE[1:], style.MARKERS):
                axes.plot(x, one[f"breadth_{name}"].values, color=colour, marker=marker, label=label)
            axes.set_yscale("symlog", linthresh=1)
            axes.set_ylim(0, None)
            axes.set_title(value)
            axes.set_xlabel("languages that have it in their top")
            axes.set_ylabel("latents")
        style.legend_below(canvas, grid[0], columns=4)
        return Figure("features_breadth", style.png(canvas), "latents by the number of languages that share them", (
            f"The {int(at['k'])} latents of each language that speak most for a value, by the number of languages that "
            "have them. Lines: what chance gives if as many are drawn evenly from the latents that are alive, or in "
            "proportion to their activity (a latent that is always on is strong for anything). The table has a third "
            "chance, other features."))


def over_k(found: xr.Dataset) -> Figure:
    """The share of latents that two languages or more have, over the size of the top."""
    values = [str(name) for name in found["value"].values]
    x = found["k"].values
    with style.panels(len(values), height=2.6) as (canvas, grid):
        for axes, value in zip(grid, values):
            one = found.sel(value=value)
            axes.plot(x, one["share"].values, color=style.PALETTE[0], marker="o", label="found")
            for (name, label), colour in zip(CHANCES.items(), style.PALETTE[1:]):
                axes.plot(x, one[f"share_{name}"].values, color=colour, label=label)
                axes.fill_between(x, one[f"share_{name}"].values, one[f"share_{name}_high"].values, color=colour,
                                  alpha=0.15, linewidth=0)
            axes.plot(x, one["met"].values, color=style.PALETTE[3], marker="s", linestyle="--", label="found elsewhere")
            axes.plot(x, one["met_names"].values, color=style.PALETTE[3], linestyle=":",
                      label="other features elsewhere")
            axes.set_xscale("log")
            axes.set_xticks(x, [str(k) for k in x])
            axes.minorticks_off()
            axes.set_ylim(0, 1)
            axes.set_title(value)
            axes.set_xlabel("latents of a language's top (k)")
            axes.set_ylabel("share of latents")
        style.legend_below(canvas, grid[0], columns=4)
        return Figure("features_over_k", style.png(canvas), "shared latents over the size of the top", (
            "Found: latents in the tops of two languages or more, of all in any top; bands from the mean of a chance "
            "to the 95 % quantile of its draws. Dashed: of a language's top what any other language has in its own; "
            "dotted: what they have in their tops of other features, the chance that keeps everything but the "
            "question."))


def matrices(latents: xr.Dataset) -> Slides:
    """Latents by languages, a picture a value: how much each speaks for the value."""
    values = [str(name) for name in latents["value"].values]
    languages = [str(name) for name in latents["language"].values]
    figures = []
    for value in values:
        one = latents.sel(value=value).isel(entry=slice(0, ROWS))
        kept = one["latent"].values >= 0
        rows = [f"{int(number)}{' *' if artefact else ''}{' ±' if flips else ''}" for number, artefact, flips in zip(
            one["latent"].values[kept], one["artefact"].values[kept], one["flips"].values[kept])]
        effect = one["effect"].transpose("entry", "language").values[kept]
        inside = one["in_top"].transpose("entry", "language").values[kept]
        top = max(float(np.nanmax(np.abs(effect), initial=0)), 1e-6)
        with style.figure(width=2.2 + 0.6 * len(languages), height=1.6 + 0.24 * max(len(rows), 1)) as (canvas, grid):
            axes = grid[0, 0]
            image = axes.imshow(effect.reshape(len(rows), -1) if rows else np.full((1, len(languages)), np.nan),
                                cmap=style.DIVERGING, vmin=-top, vmax=top, aspect="auto")
            axes.set_xticks(range(len(languages)), languages, rotation=40, ha="right")
            axes.set_yticks(range(len(rows)), rows, fontsize=8)
            axes.grid(False)
            for (a, b), member in np.ndenumerate(inside):
                if member:
                    axes.plot(b, a, marker="o", markersize=3, color="black")
            axes.set_title(value)
            axes.set_ylabel("latent")
            canvas.colorbar(image, ax=axes, label="effect on the probe's logit")
            figures.append(Figure(f"features_latents_{slug(value)}", style.png(canvas), f"latents of {value}", ""))
    return Slides("features_latents", tuple(figures), tuple(values), "Value", (
        f"Up to {ROWS} latents, those in the tops of most languages first. Colour: evidence for the value (red) or "
        "against it, in logits of the probe, words with it minus words without; dots: among the strongest of that "
        "language. * in the tops of nearly every cell, which tells no value from another; ± for the value in one "
        "language and against it in another. Move the slider, or use the arrow keys on it."))


def ablation(causal: xr.Dataset) -> Slides:
    """What later probes lose under each condition, a dot a language, a picture a value."""
    values = [str(name) for name in causal["value"].values]
    kinds = list(dict.fromkeys(causal["kind"].values.astype(str).tolist()))
    shown = [kind for kind in kinds if kind != roles(causal).no_op]
    languages = [str(name) for name in causal["language"].values]
    figures = []
    for value in values:
        with style.figure(width=8.6, height=0.44 * len(shown) + 1.6) as (canvas, grid):
            axes = grid[0, 0]
            for row, kind in enumerate(shown):
                _condition(axes, causal.sel(value=value), kind, row, languages)
            axes.axvline(0, color=style.NULL, linewidth=0.8)
            axes.set_yticks(range(len(shown)), shown)
            axes.set_ylim(len(shown) - 0.5, -0.5)
            axes.set_xlabel("AUROC that probes trained anew at later layers lose")
            axes.set_title(value)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
            figures.append(Figure(f"features_ablation_{slug(value)}", style.png(canvas), f"ablation for {value}", ""))
    return Slides("features_ablation", tuple(figures), tuple(values), "Value", (
        "A dot a language, with its 95 % interval over documents; random conditions: mean over draws, and the range "
        "that 95 % of them lie in. “shared” latents were chosen in other languages and on other documents. What they "
        "carry is the part that neither matched random latents nor the language's own take away. Move the slider, or "
        "use the arrow keys on it."))


def _condition(axes: Axes, at: xr.Dataset, kind: str, row: int, languages: list[str]) -> None:
    """One row: every language's drop."""
    inside = at["kind"].values.astype(str) == kind
    one = at.isel(condition=inside)
    means = []
    for g, name in enumerate(languages):
        here = one.sel(language=name)
        drops = here["drop_refitted"].values
        if np.isnan(drops).all():
            continue
        if len(drops) == 1:
            low, high = float(here["drop_refitted_low"].values[0]), float(here["drop_refitted_high"].values[0])
        else:
            low, high = np.quantile(drops, (0.025, 0.975))
        mean = float(np.nanmean(drops))
        means.append(mean)
        y = row + 0.5 * (g / max(len(languages) - 1, 1) - 0.5)
        axes.plot([low, high], [y, y], color=style.PALETTE[g % len(style.PALETTE)], alpha=0.5, linewidth=1)
        axes.plot(mean, y, color=style.PALETTE[g % len(style.PALETTE)], linestyle="none",
                  marker=style.MARKERS[g // len(style.PALETTE) % len(style.MARKERS)], label=name if not row else None)
    if means:
        axes.plot([np.mean(means)] * 2, [row - 0.36, row + 0.36], color="black", linewidth=1.5)


def by_layer(causal: xr.Dataset) -> Slides:
    """AUROC by layer under the main conditions, probes as they were and trained anew; means over languages."""
    named = roles(causal)
    values = [str(name) for name in causal["value"].values]
    layers = [str(name) for name in causal["layer"].values]
    x = np.arange(len(layers))
    kinds = causal["kind"].values.astype(str)
    figures = []
    for value in values:
        with style.figure(2, width=8.6, height=3.0, sharey=True) as (canvas, grid):
            for axes, name in zip(grid[0], ("frozen", "refitted")):
                area = causal[name].sel(value=value).transpose("condition", "language", "layer").values
                for kind, colour, marker in zip(named, (style.NULL, *style.PALETTE), style.MARKERS):
                    known = area[kinds == kind]
                    if np.isfinite(known).any():
                        axes.plot(x, np.nanmean(known, axis=(0, 1)), color=colour, marker=marker, label=kind)
                axes.axhline(0.5, color=style.CHANCE, linestyle=":", linewidth=0.8)
                axes.set_xticks(x, layers, rotation=30, ha="right")
                axes.set_ylim(0.4, 1.0)
                axes.set_title(f"probes {'as they were' if name == 'frozen' else 'trained anew'}: {value}")
            grid[0, 0].set_ylabel("AUROC")
            style.legend_below(canvas, grid[0, 0], columns=5)
            figures.append(Figure(
                f"features_layers_{slug(value)}", style.png(canvas), f"probes for {value} by layer", ""))
    return Slides("features_layers", tuple(figures), tuple(values), "Value", (
        "Means over languages on test documents. The first place is the dictionary's own: there an ablation acts on "
        "the probe by the identity that chose the latents, so it is a check and no evidence. Dotted: chance. Move the "
        "slider, or use the arrow keys on it."))


def over_training(universality: xr.Dataset, probes: xr.Dataset, claims: xr.Dataset | None) -> Figure:
    """Sharing and probes of each value over checkpoints."""
    at = at_k(universality)
    labels = [str(label) for label in at["checkpoint"].values]
    x = np.arange(len(labels))
    with style.figure(2, width=9.2, height=3.4) as (canvas, grid):
        left, right = grid[0]
        for i, value in enumerate(at["value"].values):
            colour, marker = style.PALETTE[i % len(style.PALETTE)], style.MARKERS[i % len(style.MARKERS)]
            one = at.sel(value=value)
            left.plot(x, one["share"].values, color=colour, marker=marker, label=str(value))
            chance = np.fmax.reduce([one[f"share_{name}"].values for name in CHANCES])
            left.plot(x, chance, color=colour, linestyle=":")
            area = probes["auroc"].sel(value=value).isel(layer=0)
            own = np.einsum("kgg->kg", area.transpose("checkpoint", "language", "language_b").values)
            right.plot(x, np.nanmean(own, axis=1), color=colour, marker=marker)
            if claims is not None:
                counts = claims["counts"].sel(value=value).transpose("checkpoint", "language").values
                shown = np.nansum(counts.astype(float), axis=1)  # NaN where nothing was tested at a checkpoint
                for k in np.flatnonzero(shown):
                    left.annotate(str(int(shown[k])), (x[k], float(one["share"].values[k])), fontsize=7, ha="center",
                                  textcoords="offset points", xytext=(0, 5))
        left.set_ylabel(f"share of the top {int(at['k'])}")
        right.set_ylabel("AUROC of probes")
        left.set_ylim(0, 1)
        right.set_ylim(0.4, 1)
        right.axhline(0.5, color=style.CHANCE, linestyle=":")
        for axes in (left, right):
            axes.set_xticks(x, labels, rotation=40, ha="right")
            axes.set_xlabel("checkpoint")
        style.legend_below(canvas, left, columns=5)
        return Figure("features_training", style.png(canvas), "sharing and probes over checkpoints", (
            "A dictionary of its own at each checkpoint. Left: latents in the tops of two languages or more; dotted: "
            "the higher chance; numbers: languages in which the causal test counts. Right: in their own "
            "language, at the dictionary's layer. One pre-training run."))
