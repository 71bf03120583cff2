"""The figures of an alignment: every measure beside what it is with translations shuffled."""

import itertools
from collections.abc import Mapping

import numpy as np
import scipy.cluster.hierarchy
import scipy.stats
import xarray as xr
from matplotlib.axes import Axes

from xlingjax.report import style
from xlingjax.report.page import Figure, Slides
from xlingjax.report.pairs import mean_over

PANELS: dict[str, tuple[str, ...]] = {
    "linear CKA, debiased": ("cka_debiased",), "canonical correlation": ("svcca", "pwcca"),
    "correlation of units (ANC)": ("anc",), "MEXA": ("mexa",),
    "translation is nearest (acc@1)": ("at_1", "centred_at_1", "csls_at_1"), "mutual neighbours": ("mutual",)}
NAMES = {"cka": "CKA", "cka_debiased": "CKA, debiased", "svcca": "SVCCA", "pwcca": "PWCCA", "anc": "ANC",
         "mexa": "MEXA", "at_1": "acc@1", "at_5": "acc@5", "centred_at_1": "acc@1, centred",
         "centred_at_5": "acc@5, centred",
         "csls_at_1": "acc@1, CSLS", "csls_at_5": "acc@5, CSLS", "mutual": "mutual neighbours"}
MATRICES = ("cka_debiased", "mexa")


def mean_both(values: xr.DataArray, pairs: np.ndarray) -> np.ndarray:
    """The mean over pairs in both orders: retrieval has a direction."""
    return mean_over(values, pairs | pairs.T)


def band(found: xr.Dataset, name: str, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over shuffles of the mean over pairs."""
    shuffled = mean_both(found[f"{name}_shuffled"].transpose(..., "shuffle", "language", "language_b"), pairs)
    return shuffled.mean(-1), shuffled.std(-1, ddof=1)


def best_layer(found: xr.Dataset, name: str, pairs: np.ndarray) -> int:
    """The layer in which a measure stands highest above its null, at the last checkpoint."""
    last = found.isel(checkpoint=-1)
    over = mean_both(last[name], pairs) - band(last, name, pairs)[0]
    return int(np.nanargmax(over)) if np.isfinite(over).any() else 0


def layers(found: xr.Dataset, classes: Mapping[str, np.ndarray]) -> Slides:
    """Every measure by layer, one picture a checkpoint."""
    labels = [str(label) for label in found["checkpoint"].values]
    figures = []
    for label in labels:
        at = found.sel(checkpoint=label)
        with style.panels(len(PANELS), height=2.7) as (canvas, grid):
            for axes, (title, names) in zip(grid, PANELS.items()):
                _layer_panel(axes, at, names, classes)
                axes.set_title(title)
                axes.set_xlabel("layer (0 = embedding)")
            figures.append(Figure(f"align_layers_{label}", style.png(canvas), f"measures by layer at {label}", ""))
    return Slides("align_layers", tuple(figures), tuple(labels), "Checkpoint", (
        f"Means over pairs of languages, {found.attrs['sentences']} sentences in each. Grey: the same with "
        "translations shuffled inside their documents, two standard deviations over shuffles; "
        f"{found.attrs['kept']:.0%} of the sentences keep their own translation in a shuffle, which lifts the grey. "
        "What lies in it says nothing of translations. Dotted: pairs with a language that training did not see. Move "
        "the slider, or use the arrow keys on it."))


def _layer_panel(axes: Axes, at: xr.Dataset, names: tuple[str, ...], classes: Mapping[str, np.ndarray]) -> None:
    x = at["layer"].values
    for name, colour, marker in zip(names, style.PALETTE, style.MARKERS):
        axes.plot(x, mean_both(at[name], classes["seen"]), color=colour, marker=marker, label=NAMES[name])
        if "unseen" in classes:
            axes.plot(x, mean_both(at[name], classes["unseen"]), color=colour, linestyle=":")
        null, sd = band(at, name, classes["seen"])
        axes.fill_between(x, null - 2 * sd, null + 2 * sd, color=style.NULL, alpha=0.3, linewidth=0)
    axes.set_ylim(min(0, axes.get_ylim()[0]), max(1e-3, axes.get_ylim()[1]))
    _named(axes, names)


def _named(axes: Axes, names: tuple[str, ...]) -> None:
    """A legend above the curves, where there is more than one measure."""
    low, high = axes.get_ylim()
    if len(names) > 1:
        axes.set_ylim(low, high + 0.22 * (high - low))
        axes.legend(fontsize=6, ncols=len(names), loc="upper center", columnspacing=0.8, handlelength=1.2)


def over_training(found: xr.Dataset, classes: Mapping[str, np.ndarray]) -> Figure:
    """Every measure over checkpoints, in the layer where it is highest at the last one."""
    labels = [str(label) for label in found["checkpoint"].values]
    x = np.arange(len(labels))
    with style.panels(len(PANELS), height=2.7) as (canvas, grid):
        for axes, (title, names) in zip(grid, PANELS.items()):
            for name, colour, marker in zip(names, style.PALETTE, style.MARKERS):
                layer = best_layer(found, name, classes["seen"])
                at = found.sel(layer=layer)
                axes.plot(x, mean_both(at[name], classes["seen"]), color=colour, marker=marker,
                          label=f"{NAMES[name]}, layer {layer}")
                if "unseen" in classes:
                    axes.plot(x, mean_both(at[name], classes["unseen"]), color=colour, linestyle=":")
                null, sd = band(at, name, classes["seen"])
                axes.fill_between(x, null - 2 * sd, null + 2 * sd, color=style.NULL, alpha=0.3, linewidth=0)
            axes.set_xticks(x, labels, rotation=40, ha="right")
            axes.set_ylim(min(0, axes.get_ylim()[0]), None)
            axes.set_title(f"{title}, layer {layer}" if len(names) == 1 else title)
            _named(axes, names)
        return Figure("align_training", style.png(canvas), "measures over checkpoints", (
            "Each measure in the layer where it stands highest above its null at the last checkpoint. Grey: "
            "translations shuffled, two standard deviations. Dotted: pairs with a language that training did not see. "
            "One run."))


def shape(found: xr.Dataset) -> Figure:
    """The cloud of each language by layer at the last checkpoint."""
    last = found.isel(checkpoint=-1)
    kinds = {"cosine of two sentences": "cosine", "of it, in three units": "rogue",
             "intrinsic dimension": "dimension", "local overlap (ILO)": "ilo"}
    with style.panels(len(kinds), height=2.7) as (canvas, grid):
        for axes, (title, name) in zip(grid, kinds.items()):
            for language, colour, line in zip(last["language"].values, itertools.cycle(style.PALETTE),
                                              ["-"] * len(style.PALETTE) + ["--"] * len(style.PALETTE)):
                axes.plot(last["layer"].values, last[name].sel(language=language), color=colour, linestyle=line,
                          label=str(language))
            axes.set_title(title)
            axes.set_xlabel("layer (0 = embedding)")
        axes.plot(last["layer"].values, last["ilo_mixed"].mean("language"), color=style.CEILING, linestyle=":",
                  label="languages shuffled")
        style.legend_below(canvas, axes, columns=6)
        return Figure("align_shape", style.png(canvas), "geometry of each language by layer", (
            "Last checkpoint. A high cosine between sentences that have nothing to do with each other makes cosines of "
            "translations high as well; where three units carry it, it is theirs. Local overlap: whether a sentence's "
            "nearest neighbours are of several languages, against languages that cannot be told apart (dotted)."))


def matrices(found: xr.Dataset, name: str, layer: int) -> Slides:
    """Language x language at every checkpoint, languages in the order of their clusters at the last one."""
    labels = [str(label) for label in found["checkpoint"].values]
    at = found.sel(layer=layer)
    values = at[name].transpose("checkpoint", "language", "language_b").values
    order = clustered(values[-1])
    names = [str(one) for one in found["language"].values[order]]
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    figures = []
    for i, label in enumerate(labels):
        with style.figure(width=5.6, height=4.4) as (canvas, grid):
            image = style.heat(grid[0, 0], values[i][np.ix_(order, order)], names, names, max(top, 1e-3))
            grid[0, 0].set_title(f"{NAMES[name]}, layer {layer}, checkpoint {label}")
            canvas.colorbar(image, ax=grid[0, 0], label=NAMES[name])
            figures.append(Figure(f"align_{name}_{i:02d}", style.png(canvas), f"{NAMES[name]} at {label}", ""))
    return Slides(f"align_{name}", tuple(figures), tuple(labels), "Checkpoint", (
        f"{NAMES[name]} between languages in layer {layer}, neighbours by average linkage at the last checkpoint."))


def clustered(similarity: np.ndarray) -> np.ndarray:
    """The order of languages in which similar ones are neighbours (average linkage, optimal leaf order)."""
    both = (similarity + similarity.T) / 2
    if len(both) < 3 or not np.isfinite(both[~np.eye(len(both), dtype=bool)]).all():
        return np.arange(len(both))
    first, second = np.triu_indices(len(both), 1)
    apart = both[first, second].max() - both[first, second]
    tree = scipy.cluster.hierarchy.linkage(apart, "average", optimal_ordering=True)
    return scipy.cluster.hierarchy.leaves_list(tree)


def agreement(found: xr.Dataset, overlap: xr.DataArray | None = None) -> tuple[np.ndarray, list[str]]:
    """Spearman correlations of the measures above their nulls, over pairs of languages, mean over layers.

    Args:
        overlap: of experts, `language` x `language_b`; joins the measures over the languages that it has.

    Returns: [M, M] and the names; NaN where a measure does not vary.
    """
    last = found.isel(checkpoint=-1)
    first, second = np.triu_indices(last.sizes["language"], 1)
    columns = {}
    for name in NAMES:
        over = last[name] - last[f"{name}_shuffled"].mean("shuffle")
        values = over.transpose("layer", "language", "language_b").values
        columns[NAMES[name]] = (values + values.transpose(0, 2, 1))[:, first, second] / 2
    if overlap is not None:
        names = last["language"].values
        both = overlap.reindex(language=names, language_b=names).transpose("language", "language_b").values
        columns["expert overlap"] = np.tile(((both + both.T) / 2)[first, second], (last.sizes["layer"], 1))
    stacked = np.stack(list(columns.values()), axis=1)  # [layer, M, pairs]
    out = np.full((len(stacked), len(columns), len(columns)), np.nan)
    for layer, (i, j) in itertools.product(range(len(stacked)), itertools.combinations(range(len(columns)), 2)):
        one, other = stacked[layer, [i, j]]
        known = np.isfinite(one) & np.isfinite(other)
        if known.sum() > 2 and np.ptp(one[known]) > 0 and np.ptp(other[known]) > 0:
            out[layer, i, j] = out[layer, j, i] = scipy.stats.spearmanr(one[known], other[known])[0]
    seen = ~np.isnan(out)
    mean = np.where(seen, out, 0).sum(0) / np.maximum(seen.sum(0), 1)
    mean = np.where(seen.any(0), mean, np.nan)
    np.fill_diagonal(mean, 1.0)
    return mean, list(columns)


def agreement_figure(found: xr.Dataset, overlap: xr.DataArray | None = None) -> Figure:
    """Which measures put pairs of languages in the same order."""
    values, names = agreement(found, overlap)
    with style.figure(width=9.0, height=7.0) as (canvas, grid):
        image = style.heat(grid[0, 0], values, names, names, 1.0, signed=True)
        canvas.colorbar(image, ax=grid[0, 0], label="Spearman's correlation")
        pairs = found.sizes["language"] * (found.sizes["language"] - 1) // 2
        return Figure("align_agreement", style.png(canvas), "correlation between measures", (
            f"Last checkpoint: whether two measures, each above its null, put the {pairs} pairs of languages in the "
            "same order; mean over layers. Pairs share languages, so these are descriptions, not tests."))


def picture(geometry: xr.Dataset) -> Slides:
    """Sentences of the last checkpoint on two principal components, a picture a layer, by language and by concept."""
    last = geometry.isel(checkpoint=-1)
    kinds = [name for name in ("language", "concept") if (last[name].values != "").any()]
    figures, labels = [], [str(layer) for layer in last["layer"].values]
    for layer in labels:
        at = last.sel(layer=int(layer))
        x, y = at["place"].transpose("axis", "point").values
        with style.figure(len(kinds), width=4.6 * len(kinds) + 1.5, height=3.8) as (canvas, grid):
            for axes, kind in zip(grid[0], kinds):
                for i, name in enumerate(np.unique(last[kind].values)):
                    rows = last[kind].values == name
                    axes.scatter(x[rows], y[rows], s=9, color=style.PALETTE[i % 7], label=str(name), alpha=0.7,
                                 marker=style.MARKERS[i // 7 % len(style.MARKERS)], linewidths=0)
                axes.set_title(f"by {kind}, layer {layer}")
                for number, set_label in ((1, axes.set_xlabel), (2, axes.set_ylabel)):
                    set_label(f"component {number} ({float(at['explained'].sel(axis=number)):.0%} of the variance)")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
            name = f"align_picture_{int(layer):02d}"
            figures.append(Figure(name, style.png(canvas), f"sentences at layer {layer}", ""))
    return Slides("align_picture", tuple(figures), tuple(labels), "Layer", (
        "Last checkpoint, up to 60 sentences of each language. Two components show what varies most, which is often "
        "the language or one unit; that languages lie apart here does not say that they are not aligned in other "
        "directions. Move the slider, or use the arrow keys on it."))


def lens(found: xr.Dataset) -> Slides:
    """Which language each layer's next-token distribution speaks, for text of each language, a picture a checkpoint."""
    names = [str(name) for name in found["language"].values]
    labels = [str(label) for label in found["checkpoint"].values]
    figures = []
    for label in labels:
        at = found.sel(checkpoint=label)
        own = np.einsum("lgg->lg", at["mass"].transpose("layer", "language", "language_b").values)
        truth = np.einsum("gg->g", at["truth"].transpose("language", "language_b").values)
        with style.figure(2, width=9.6, height=3.4) as (canvas, grid):
            for g, (name, colour) in enumerate(zip(names, itertools.cycle(style.PALETTE))):
                line = "-" if g < len(style.PALETTE) else "--"
                grid[0, 0].plot(at["layer"].values, own[:, g], color=colour, linestyle=line, label=name)
                grid[0, 0].plot(at["layer"].values[-1:] + 0.3, truth[g:g + 1], color=colour, marker="_", markersize=12)
                grid[0, 1].plot(at["layer"].values, at["surprisal"].sel(language=name), color=colour, linestyle=line)
            grid[0, 0].set_ylim(0, 1)
            grid[0, 0].set_ylabel("mass on tokens of the text's language")
            grid[0, 1].set_ylabel("surprisal of the next token (nats)")
            for axes in grid[0]:
                axes.set_xlabel("layer (0 = embedding)")
            style.legend_below(canvas, grid[0, 0], columns=8)
            figures.append(Figure(f"align_lens_{label}", style.png(canvas), f"logit lens at {label}", ""))
    return Slides("align_lens", tuple(figures), tuple(labels), "Checkpoint", (
        f"Every layer read with the final norm and the head{_tuned(found)}, at {found.attrs['places']} places of each "
        "language. "
        "Tokens that languages share count for each by their rate; the short bars at the right are the true next "
        "tokens. Layers that the head was not made for are read badly: a low mass may be that. Move the slider, or use "
        "the arrow keys on it."))


def _tuned(found: xr.Dataset) -> str:
    return " after an affine map of its own, fitted on other documents (tuned lens)" if found.attrs["tuned"] else ""
