"""The figures of an influence experiment: translations beside other sentences, by checkpoint, pair and layer."""

import numpy as np
import xarray as xr

from xlingjax.report import style
from xlingjax.report.page import Figure, Slides


def ranks(translations: xr.Dataset, claims: xr.Dataset) -> Figure:
    """Where translations stand, over checkpoints, each measure beside its null's band."""
    names = [str(name) for name in translations["measure"].values]
    labels = [str(name) for name in translations["checkpoint"].values]
    x = np.arange(len(labels))
    with style.panels(len(names), height=2.6, sharey=True) as (canvas, grid):
        for axes, name in zip(grid, names):
            axes.axhline(0.5, color=style.CHANCE, linewidth=0.8)
            for number, pairs in enumerate(translations["pairs"].values):
                at = translations.sel(measure=name, pairs=pairs)
                if np.isnan(at["mean"]).all():
                    continue
                error = np.abs([at["mean"] - at["mean_low"], at["mean_high"] - at["mean"]])
                axes.errorbar(x + 0.08 * number, at["mean"], yerr=error, capsize=2, marker=style.MARKERS[number],
                              color=style.PALETTE[number], label=f"pairs of {pairs} languages")
            axes.plot(x, claims["band"].sel(measure=name), color=style.NULL, linestyle="--", label="band of the null")
            axes.set_xticks(x, labels)
            axes.set_title(name)
            axes.set_xlabel("checkpoint")
            axes.set_ylabel("AUC")
        style.legend_below(canvas, grid[0], columns=3)
        attrs = translations.attrs
        return Figure("influence_ranks", style.png(canvas), "rank of translations over checkpoints", (
            "How often a sentence's translation has more influence on it than another sentence of the same language "
            f"and length ({attrs['distractors']} of other documents): {attrs['sentences']} sentences of "
            f"{attrs['documents']} documents in every language, mean over pairs of languages; bars: documents drawn "
            "anew, 95 %. “normalised”: over the root of its influence on itself; “without anchors”: pieces that a "
            "sentence shares with its translation are read but not scored; “shared tokens”: what a look-up of tokens "
            "would say; “flipped”: the translation's second half stands first. Dashed: where the mean leaves what "
            f"other sentences in the translation's place give ({attrs['permutations']} draws), at any checkpoint, in "
            "5 %."))


def pairs(translations: xr.Dataset) -> Slides:
    """AUC of every pair of languages, with and without anchors."""
    labels = [str(name) for name in translations["checkpoint"].values]
    languages = [str(name) for name in translations["source"].values]
    figures = []
    for label in labels:
        with style.figure(2, width=9.6, height=0.42 * len(languages) + 2, sharey=True) as (canvas, grid):
            for axes, name in zip(grid[0], ("normalised", "without anchors")):
                values = translations["auc"].sel(checkpoint=label, measure=name).transpose("source", "target").values
                image = style.heat(axes, values - 0.5, languages, languages, 0.5, signed=True)
                for text, value in zip(axes.texts, values[~np.isnan(values)]):
                    text.set_text(f"{value:.2f}")
                axes.set_title(name)
                axes.set_xlabel("language of the sentences")
            grid[0, 0].set_ylabel("language of the query")
            canvas.colorbar(image, ax=list(grid[0]), label="AUC minus 0.5", shrink=0.8)
            figures.append(Figure(f"influence_pairs_{label}", style.png(canvas), f"AUC of each pair at {label}", ""))
    return Slides("influence_pairs", tuple(figures), tuple(labels), "Checkpoint", (
        "AUC of the translation of a query among sentences of its language and length, by pair of languages. On the "
        "diagonal the query itself stands among the sentences: the most there can be."))


def ratio(found: xr.Dataset) -> Figure:
    """Influence of a query's top sequences on its translations, by layer and by checkpoint."""
    apart = ~np.eye(found.sizes["source"], dtype=bool)
    labels = [str(name) for name in found["checkpoint"].values]
    over = lambda values: np.nanmean(values.transpose("source", "target", ...).values[apart], 0)
    with style.figure(2, width=9.6, height=3.4) as (canvas, grid):
        for number, label in enumerate(labels):
            at = found.sel(checkpoint=label)
            colour = style.PALETTE[number % len(style.PALETTE)]
            grid[0, 0].plot(at["layer"], over(at["ratio"]), marker=style.MARKERS[number % 8], color=colour,
                            label=f"{label}: translations")
            grid[0, 0].plot(at["layer"], over(at["unrelated"]), linestyle=":", color=colour, label=f"{label}: others")
        grid[0, 0].set_xlabel("layer")
        grid[0, 0].set_xticks(found["layer"].values)
        x = np.arange(len(labels))
        for number, (name, what) in enumerate((("whole", "translations"), ("whole_unrelated", "other queries"))):
            grid[0, 1].plot(x, over(found[name]), marker=style.MARKERS[number], color=style.PALETTE[number], label=what,
                            linestyle="-" if number == 0 else ":")
        grid[0, 1].set_xticks(x, labels)
        grid[0, 1].set_xlabel("checkpoint")
        grid[0, 1].set_title("all layers")
        for axes in grid[0]:
            axes.axhline(0, color=style.NULL, linewidth=0.8)
            axes.set_ylabel("part of the influence")
            axes.legend(fontsize=7)
        return Figure("influence_ratio", style.png(canvas), "cross-lingual ratio by layer and checkpoint", (
            f"The {found.attrs['tops']} training sequences of a query's own language that have most influence on it: "
            "how much of that influence they have on the query's translations, and, dotted, on translations of other "
            "queries. Mean over pairs of languages. The sequences were chosen by the query itself, which makes the "
            "part smaller than it is; what counts is the distance between the two lines."))


def languages(found: xr.Dataset) -> Slides:
    """In which languages the most influential sequences are."""
    labels = [str(name) for name in found["checkpoint"].values]
    rows, columns = ([str(name) for name in found[of].values] for of in ("source", "language"))
    figures = []
    for label in labels:
        at = found.sel(checkpoint=label).transpose("source", "language", ...)
        with style.figure(width=0.8 * len(columns) + 3, height=0.42 * len(rows) + 1.8) as (canvas, grid):
            image = style.heat(grid[0, 0], at["share"].values, rows, columns, 1.0)
            grid[0, 0].set_xlabel("language of the training sequences")
            grid[0, 0].set_ylabel("language of the query")
            canvas.colorbar(image, ax=grid[0, 0], label="share", shrink=0.8)
            figures.append(Figure(f"influence_languages_{label}", style.png(canvas),
                                  f"languages of the most influential sequences at {label}", ""))
    chance = ", ".join(f"{name} {float(value):.2f}" for name, value in zip(
        columns, found["chance"].isel(checkpoint=-1).mean("source").values))
    return Slides("influence_languages", tuple(figures), tuple(labels), "Checkpoint", (
        f"Of the {found.attrs['top']} most influential training sequences of a query, the share in each language. All "
        f"that were scored: {chance}."))


def profile(hits: xr.Dataset, queries: xr.Dataset) -> Figure:
    """In which layers the influence of the shown sequences arises."""
    last, asked = hits.isel(checkpoint=-1), queries.isel(checkpoint=-1)
    most = last["by_layer"].isel(side=0)
    share = (most / most.sum("layer")).mean("rank")
    with style.figure(width=7.2, height=3.2) as (canvas, grid):
        axes = grid[0, 0]
        for number, name in enumerate(dict.fromkeys(asked["language"].values.tolist())):
            values = share.isel(query=np.flatnonzero(asked["language"].values == name)).mean("query")
            axes.plot(last["layer"], values, marker=style.MARKERS[number % 8], color=style.PALETTE[number % 8],
            label=name)
        axes.axhline(1 / last.sizes["layer"], color=style.CHANCE, linewidth=0.8)
        axes.set_xticks(last["layer"].values)
        axes.set_xlabel("layer")
        axes.set_ylabel("part of the influence")
        axes.legend(ncols=2, fontsize=7)
        return Figure("influence_profile", style.png(canvas), "influence by layer", (
            "The most influential sequences of each query at the last checkpoint: the part of their influence that "
            "arises in each layer, mean over the queries of a language. Grey: equal parts."))
