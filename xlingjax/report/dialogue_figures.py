"""The figures of dialogue transfer: losses by condition with intervals, differences, experts shared by layer."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

from xlingjax.report import style
from xlingjax.report.page import Figure

OFFSET = 0.13  # between the conditions of one kind of model


def losses(scores: xr.Dataset, kinds: Mapping[str, str]) -> Figure:
    """Bits per character on test replies, a panel a language."""
    at = scores.sel(split="test").isel(turns=0)
    languages, conditions = _names(at, "language"), _names(at, "condition")
    with style.panels(len(languages), height=0.9 + 0.85 * at.sizes["kind"]) as (canvas, axes):
        for panel, language in zip(axes, languages):
            for c, condition in enumerate(conditions):
                one = at.sel(language=language, condition=condition)
                y = np.arange(one.sizes["kind"]) + OFFSET * (c - (len(conditions) - 1) / 2)
                _whiskers(panel, one["bits_per_character"], one["bits_per_character_low"],
                          one["bits_per_character_high"], y, style.PALETTE[c], style.MARKERS[c], condition)
            _kinds(panel, _names(at, "kind"), kinds)
            panel.set_xscale("log")  # a model before fine-tuning may need several times as many
            panel.xaxis.set_major_formatter(ScalarFormatter())
            panel.xaxis.set_minor_formatter(ScalarFormatter())
            panel.set_xlabel("bits per character")
            panel.set_title(language)
        style.legend_below(canvas, axes[0], columns=3)
        return Figure("dialogue_losses", style.png(canvas), "bits per character by language, model and condition", (
            "Loss of the replies of test dialogues, leaked ones left out; lower is better. Bits per character compare "
            "tokenizers and models, perplexity does not. Lines: 95 % of a bootstrap over dialogues and runs. “Before” "
            "is the source model as it comes, “from scratch” the same shape with as many updates from random "
            "parameters, the others were fine-tuned on and tested with contexts of other dialogues, or none."))


def differences(found: xr.Dataset, kinds: Mapping[str, str], conditions: Sequence[str]) -> Figure:
    """Fine-tuned minus each condition of `found`, a panel a language; `conditions` keep the colours that they have."""
    languages, against = _names(found, "language"), _names(found, "against")
    with style.panels(len(languages), height=0.9 + 0.75 * found.sizes["kind"]) as (canvas, axes):
        for panel, language in zip(axes, languages):
            panel.axvline(0, color=style.NULL, linewidth=1)
            for c, name in enumerate(against):
                one = found.sel(language=language, against=name)
                y = np.arange(one.sizes["kind"]) + OFFSET * (c - (len(against) - 1) / 2)
                look = conditions.index(name)
                _whiskers(panel, one["change"], one["low"], one["high"], y, style.PALETTE[look], style.MARKERS[look],
                          name)
            _kinds(panel, _names(found, "kind"), kinds)
            panel.set_xlabel("fine-tuned minus other, bits/character")
            panel.set_title(language)
        style.legend_below(canvas, axes[0], columns=2)
        return Figure("dialogue_differences", style.png(canvas), "fine-tuned models against other conditions", (
            "In bits per character. Left of zero the fine-tuned model needs fewer bits. Against “from scratch”: what "
            "the source language's training is worth. Against “shuffled context” and “reply only”: what the turns "
            "before a reply are worth. Both models of a difference answer the same dialogues, "
            "which are drawn together."))


def sharing(found: xr.Dataset, kind: str) -> Figure:
    """Experts shared with the source language, layer by layer, a panel a language."""
    languages, conditions = _names(found, "language"), _names(found, "condition")
    layers = found["layer"].values
    with style.panels(len(languages)) as (canvas, axes):
        for panel, language in zip(axes, languages):
            for c, condition in enumerate(conditions):
                one = found.sel(language=language, condition=condition)
                panel.plot(layers, one["shared"], color=style.PALETTE[c], marker=style.MARKERS[c], label=condition)
                panel.plot(layers, one["shared_band"], color=style.PALETTE[c], linestyle=":", linewidth=1,
                           label=f"{condition}: most under permuted labels")
            panel.plot(layers, found.sel(language=language).isel(condition=0)["shared_chance"], color=style.CHANCE,
                       linestyle="--", linewidth=1, label="chance")
            panel.set_xticks(layers, [str(layer) for layer in layers])
            panel.set_xlabel("layer")
            panel.set_ylabel("shared experts, share of k")
            panel.set_ylim(bottom=0)
            panel.set_title(language)
        style.legend_below(canvas, axes[0], columns=2)
        return Figure(f"dialogue_sharing_{kind}", style.png(canvas), f"shared experts of the {kind} by layer", (
            f"The {found.attrs['k']} neurons of {found.attrs['site']} that detect a concept best in the source "
            "language on one half of the documents, and those in the target on the other half: how many are the same, "
            f"mean over {found.attrs['concepts']} concepts. Dotted: the most that permuted labels gave; dashed: "
            "random neurons."))


def _whiskers(axes: Axes, value: xr.DataArray, low: xr.DataArray, high: xr.DataArray, y: np.ndarray, colour: str,
              marker: str, label: str) -> None:
    axes.hlines(y, low, high, color=colour, linewidth=1.4)
    axes.plot(value, y, color=colour, marker=marker, linestyle="none", label=label)


def _kinds(axes: Axes, names: list[str], kinds: Mapping[str, str]) -> None:
    axes.set_yticks(range(len(names)), [kinds[name].split(" (")[0] for name in names])
    axes.invert_yaxis()


def _names(found: xr.Dataset, dimension: str) -> list[str]:
    return [str(name) for name in found[dimension].values]
