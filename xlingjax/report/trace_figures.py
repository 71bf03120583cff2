"""The figures of a trace, each beside its null, ceiling or control: datasets in, PNG out."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from xlingjax.report import style
from xlingjax.report.page import Figure, Slides
from xlingjax.report.pairs import mean_over

THIN = "; thin lines are single runs"
SUBSETS = {"all": "all tokens", "unseen": "types unseen in training", "shared": "types of 2+ languages"}


def steps_of(dataset: xr.Dataset) -> np.ndarray:
    """What the checkpoint axis shows: steps where all are known, else labels."""
    if "step" in dataset.coords and not np.isnan(dataset["step"].values).any():
        return dataset["step"].values.astype(int)
    return dataset["checkpoint"].values


def _band(axes: Axes, x: np.ndarray, low: ArrayLike, high: ArrayLike, colour: str) -> None:
    axes.fill_between(x, np.asarray(low), np.asarray(high), color=colour, alpha=0.18, linewidth=0)


def _runs(axes: Axes, x: np.ndarray, one: xr.Dataset, what: str, colour: str) -> None:
    """Each run as a thin line, where several are combined."""
    if "run" in one.dims:
        for name in one["run"].values:
            axes.plot(x, one[f"{what}_runs"].sel(run=name), color=colour, linewidth=0.6, alpha=0.6)


def losses(health: xr.Dataset) -> Figure:
    """Bits per character of every language over checkpoints."""
    with style.figure(height=3.0) as (canvas, grid):
        axes = grid[0, 0]
        x = style.checkpoint_axis(axes, steps_of(health))
        for i, name in enumerate(health["language"].values):
            axes.plot(x, health["bits_per_character"].sel(language=name), label=str(name),
                      color=style.PALETTE[i % 8], marker=style.MARKERS[i // 8 % 8])
        axes.set_ylabel("loss (bits a character)")
        axes.set_ylim(bottom=0)
        axes.legend(ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return Figure("health", style.png(canvas), "loss of every language over checkpoints", (
            "How well each checkpoint predicts the traced sentences, language by language; lower is "
            "better. A language that pre-training never saw stays high. Read every other curve beside "
            "this one: a checkpoint that predicts nothing has little to share."))


def probe(dataset: xr.Dataset) -> list[Figure]:
    """Accuracy by layer with its controls, and by layer and checkpoint."""
    last = dataset.isel(checkpoint=-1)
    layers = dataset["layer"].values
    figures = []
    with style.figure(3, height=3.2, sharey=True) as (canvas, grid):
        for axes, (subset, title) in zip(grid[0], SUBSETS.items()):
            one = last.sel(subset=subset)
            axes.plot(layers, one["accuracy"], color=style.PALETTE[0], marker="o", label="language")
            _band(axes, layers, one["accuracy_low"], one["accuracy_high"], style.PALETTE[0])
            axes.plot(layers, one["control"], color=style.PALETTE[1], marker="s", label="control task")
            for name, line, label in (("lookup", "--", "type look-up"), ("script", ":", "script alone")):
                axes.axhline(float(one[name]), color=style.NULL, linestyle=line, label=label)
            axes.axhline(float(dataset["chance"]), color="black", linewidth=0.8, label="chance 1/G")
            axes.set_title(title)
            axes.set_xlabel("layer (0 = embedding)")
        grid[0, 0].set_ylabel("balanced accuracy")
        grid[0, 0].set_ylim(0, 1.02)
        grid[0, 2].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        figures.append(Figure("probe_layers", style.png(canvas), "language probe accuracy by layer", (
            "Language identification by a linear probe at the last sound checkpoint. Left: all held-out "
            "tokens, where a look-up of token types already gives languages away (dashed). Middle: token "
            "types that the probe never saw in training, where the control task (one random label a "
            "type) must lie at chance. Right: types that occur in two or more languages. Bands: "
            f"{dataset.attrs['interval']}.")))
    with style.figure(3, height=3.0, sharey=True) as (canvas, grid):
        for axes, (subset, title) in zip(grid[0], SUBSETS.items()):
            values = dataset["accuracy"].sel(subset=subset).transpose("layer", "checkpoint").values
            image = axes.imshow(values, origin="lower", aspect="auto", cmap=style.SEQUENTIAL, vmin=0, vmax=1)
            style.checkpoint_axis(axes, steps_of(dataset))
            axes.set_title(title)
            axes.set_yticks(range(len(layers)), [str(layer) for layer in layers])
            axes.grid(False)
        grid[0, 0].set_ylabel("layer (0 = embedding)")
        canvas.colorbar(image, ax=grid[0], label="balanced accuracy")
        figures.append(Figure("probe_checkpoints", style.png(canvas), "probe accuracy by layer and checkpoint", (
            "The same accuracy at every checkpoint. Where the middle panel darkens over training while "
            "the left one does not, the layer has lost the language and kept the token.")))
    return figures


def sharing(claims: xr.Dataset, group: str, name: str) -> Figure:
    """Overlap beside ceiling, nulls and chance; the shared fraction by class of pairs."""
    with style.figure(2, width=8.6, height=3.4) as (canvas, grid):
        left, right = grid[0]
        x = style.checkpoint_axis(left, steps_of(claims))
        first = claims.isel(pairs=0)
        left.plot(x, first["ceiling"], color=style.CEILING, linestyle="--", label="ceiling: language with itself")
        left.plot(x, first["overlap"], color=style.PALETTE[0], marker="o", label="overlap")
        _band(left, x, first["overlap_low"], first["overlap_high"], style.PALETTE[0])
        _runs(left, x, first, "overlap", style.PALETTE[0])
        left.plot(x, first["null"], color=style.NULL, label="joint null")
        _band(left, x, first["null"], first["band"], style.NULL)
        left.plot(x, first["name_null"], color=style.PALETTE[1], linestyle=":", label="concept-name null")
        _band(left, x, first["name_null"], first["name_band"], style.PALETTE[1])
        left.plot(x, first["chance_stratified"], color=style.PALETTE[2], linestyle="-.",
                  label="chance by layer and site")
        left.set_ylabel("experts shared (share of k)")
        style.share_axis(left)
        style.legend_below(canvas, left)
        left.set_title(f"{group}: pairs of {first['pairs'].item()} languages")
        style.checkpoint_axis(right, steps_of(claims))
        for i, pairs in enumerate(claims["pairs"].values):
            one = claims.sel(pairs=pairs)
            right.plot(x, one["shared_fraction"], color=style.PALETTE[i], marker=style.MARKERS[i], label=str(pairs))
            _band(right, x, one["shared_fraction_low"], one["shared_fraction_high"], style.PALETTE[i])
            _runs(right, x, one, "shared_fraction", style.PALETTE[i])
        right.axhline(0, color=style.NULL, linewidth=0.8)
        right.axhline(1, color=style.CEILING, linewidth=0.8, linestyle="--")
        right.set_ylabel("shared fraction")
        most = np.nanmax([claims["shared_fraction"].max(), claims["shared_fraction_high"].max(), 0])
        top = next((t for t in (0.1, 0.35) if most < 0.9 * t), 1.15)  # 1, all of it, would flatten the curves
        right.set_ylim(-0.3 * top, top)
        style.legend_below(canvas, right, "right")
        right.set_title("above null, as a part of what could be found")
        return Figure(f"sharing_{name}", style.png(canvas), f"sharing of experts, {group}", (
            f"Group “{group}”, k = {claims.attrs['k']}. Left: the share of a concept's k experts that two "
            "languages have in common, found on different documents, against the ceiling (one language on "
            "two halves of its documents), the joint null (labels permuted alike in all languages) and concept "
            "names permuted within a kind, each with its 95 % band over all checkpoints, and random sets with "
            "the same layers and sites; the scale is logarithmic above 0.01. Right: (overlap - null) / "
            "(ceiling - null); points are missing where a ceiling is not above its null. Bands: 95 %, "
            f"{claims.attrs['interval']}{THIN if 'run' in claims.dims else ''}."))


def ladder(datasets: Mapping[str, xr.Dataset], classes: Mapping[str, np.ndarray]) -> Figure:
    """Overlap on every rung beside its own null, same-script and cross-script pairs apart."""
    groups = list(datasets)
    with style.panels(len(groups), height=3.4, sharey=True) as (canvas, grid):
        for axes, group in zip(grid, groups):
            rungs = [str(rung) for rung in datasets[group]["rung"].values]
            for i, (pairs, chosen) in enumerate(classes.items()):
                x = np.arange(len(rungs)) + (i - (len(classes) - 1) / 2) * 0.18
                on = {what: np.array([mean_over(datasets[group][what].sel(rung=rung), chosen) for rung in rungs])
                      for what in ("overlap", "null_overlap", "null_overlap_sd", "name_null", "name_null_sd")}
                for null, shift, colour, label in (
                        ("null_overlap", -0.04, style.NULL, "joint null, 2 sd"),
                        ("name_null", 0.04, style.PALETTE[5], "concept-name null, 2 sd")):
                    axes.errorbar(x + shift, on[null], yerr=2 * on[f"{null}_sd"], fmt="_", color=colour, capsize=2,
                                  label=label if i == 0 else None)
                axes.plot(x, on["overlap"], linestyle="", marker=style.MARKERS[i], color=style.PALETTE[i], label=pairs)
            axes.set_xticks(range(len(rungs)), rungs, rotation=40, ha="right")
            axes.set_title(group)
            axes.set_ylabel("experts shared (share of k)")
            style.share_axis(axes)
        style.legend_below(canvas, grid[0], columns=3)
        return Figure("ladder", style.png(canvas), "the sharing ladder", (
            "How much sharing survives as explanations are taken away, from left to right in each panel: "
            "detectors of single tokens, the model before training, the trained model, the trained model "
            "without positives that hold an anchor piece, and with shared pieces left out of the pooling. "
            "Bars: each rung's own nulls, labels permuted alike in all languages and concept names permuted within "
            "a kind; the scale is logarithmic above 0.01. Sharing is called abstract where the last two rungs "
            "stand above both."))


def layers(experts: xr.Dataset, pairs: np.ndarray, group: str, name: str) -> Figure:
    """Shared experts by layer and checkpoint, as a multiple of what their numbers there give by chance."""
    layer = experts["stratum_layer"].values
    count = int(layer.max()) + 1
    raw = experts.sel(adjustment="raw") if "adjustment" in experts.dims else experts
    stack = {}
    for what in ("stratum_shared", "stratum_chance"):
        values = raw[what].transpose("checkpoint", "language", "language_b", "stratum").values
        mean = np.nanmean(values[:, pairs], axis=1)
        stack[what] = np.stack([mean[:, layer == i].sum(1) for i in range(count)])
    k = experts.attrs["k"]
    with style.figure(2, width=8.6, height=2.8) as (canvas, grid):
        for axes, values, label in (
                (grid[0, 0], stack["stratum_shared"] / k, "experts shared (share of k)"),
                (grid[0, 1], (stack["stratum_shared"] - stack["stratum_chance"]) / k, "above chance by layer")):
            image = axes.imshow(values, origin="lower", aspect="auto", cmap=style.SEQUENTIAL)
            style.checkpoint_axis(axes, steps_of(experts))
            axes.set_yticks(range(count), [str(i + 1) for i in range(count)])
            axes.set_ylabel("layer")
            axes.grid(False)
            canvas.colorbar(image, ax=axes, label=label)
        return Figure(f"layers_{name}", style.png(canvas), f"shared experts by layer and checkpoint, {group}", (
            f"Group “{group}”: in which layers the experts lie that two pre-training languages share, mean over "
            "pairs and concepts. Right: after taking away what random sets with as many experts in the same "
            "layers and sites would share."))


def curve_over_k(experts: xr.Dataset, pairs: np.ndarray, group: str, name: str) -> Figure:
    """Overlap, null and ceiling over k at the last sound checkpoint."""
    one = (experts.sel(adjustment="raw") if "adjustment" in experts.dims else experts).isel(checkpoint=-1)
    ks = one["k"].values
    mean = lambda what: np.array([mean_over(one[what].sel(k=k), pairs) for k in ks])
    with style.figure(width=5.4, height=3.0) as (canvas, grid):
        axes = grid[0, 0]
        diagonal = one["ceiling"].mean("concept").mean("language").values
        axes.plot(ks, diagonal, color=style.CEILING, linestyle="--", label="ceiling")
        axes.plot(ks, mean("overlap_mean"), color=style.PALETTE[0], marker="o", label="overlap")
        null, sd = mean("null_overlap"), mean("null_overlap_sd")
        axes.plot(ks, null, color=style.NULL, label="joint null, 2 sd")
        _band(axes, ks, null - 2 * sd, null + 2 * sd, style.NULL)
        axes.plot(ks, one["chance_uniform"].values, color=style.PALETTE[2], linestyle="-.", label="uniform chance")
        axes.axvline(experts.attrs["k"], color="black", linewidth=0.7, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set_xlabel("k (neurons in an expert set)")
        axes.set_ylabel("experts shared (share of k)")
        style.share_axis(axes)
        style.legend_below(canvas, axes, columns=4)
        return Figure(f"k_{name}", style.png(canvas), f"overlap over k, {group}", (
            f"Group “{group}”, last sound checkpoint: the result must not hang on one k (dotted: the k used "
            "elsewhere). The scale is logarithmic above 0.01."))


def matrices(experts: xr.Dataset, group: str, name: str) -> Slides:
    """Language x language overlap above null at every checkpoint."""
    raw = experts.sel(adjustment="raw") if "adjustment" in experts.dims else experts
    one = raw.sel(k=experts.attrs["k"])
    over = one["overlap_mean"].transpose("checkpoint", "language", "language_b").values
    top = float(np.nanmax(over)) or 1.0
    names = [str(n) for n in one["language"].values]
    steps = steps_of(experts)
    figures = []
    for i, step in enumerate(steps):
        with style.figure(width=5.6, height=4.4) as (canvas, grid):
            axes = grid[0, 0]
            image = style.heat(axes, over[i], names, names, top)
            axes.set_xlabel("experts on one half of the documents")
            axes.set_ylabel("experts on the other half")
            axes.set_title(f"{group}, checkpoint {step}")
            canvas.colorbar(image, ax=axes, label="experts shared (share of k)")
            figures.append(Figure(f"matrix_{name}_{i:02d}", style.png(canvas),
                                  f"overlap between languages at checkpoint {step}, {group}", ""))
    return Slides(f"matrix_{name}", tuple(figures), tuple(str(step) for step in steps), "Checkpoint", (
        f"Group “{group}”: experts shared by every two languages, across document halves, mean over "
        "concepts. The diagonal is the ceiling. Move the slider, or use the arrow keys on it."))


def reach(experts: xr.Dataset, pairs: np.ndarray, group: str, name: str) -> Figure:
    """Cross-lingual reliability over checkpoints, and breadth at the last one."""
    raw = experts.sel(adjustment="raw") if "adjustment" in experts.dims else experts
    with style.figure(2, width=8.6, height=3.4) as (canvas, grid):
        left, right = grid[0]
        x = style.checkpoint_axis(left, steps_of(experts))
        values = raw["reliability"].mean("concept").transpose("checkpoint", "language", "language_b").values
        both = pairs | pairs.T
        used = both.any(1)
        own = np.einsum("kgg->kg", values)[:, used]
        left.plot(x, np.nanmean(own, 1), color=style.CEILING, linestyle="--", label="in the language itself")
        left.plot(x, np.nanmean(values[:, both], 1), color=style.PALETTE[0], marker="o", label="in the others, mean")
        least = raw["reliability_min"].mean("concept").transpose("checkpoint", "language").values
        left.plot(x, np.nanmean(least[:, used], 1), color=style.PALETTE[1], marker="s", label="in the worst other")
        left.axhline(0, color=style.NULL, linewidth=0.8)
        left.set_ylabel("reliability (1 = perfect)")
        style.legend_below(canvas, left, columns=1)
        last = raw.isel(checkpoint=-1)
        width = last["breadth"].values
        for what, colour, marker, label in (
                ("breadth_neurons", style.PALETTE[0], "o", "found"),
                ("breadth_null", style.NULL, "s", "joint null"),
                ("breadth_chance", style.PALETTE[2], "^", "random sets")):
            right.plot(width, last[what].mean("concept"), color=colour, marker=marker, label=label)
        right.set_yscale("symlog", linthresh=0.1)
        right.set_xlabel("languages in which a neuron is an expert")
        right.set_ylabel("neurons a concept")
        style.legend_below(canvas, right, "right", 1)
        return Figure(f"reach_{name}", style.png(canvas), f"reliability and breadth, {group}", (
            f"Group “{group}”. Left: average precision above prevalence, in language B on other documents, of "
            "the experts found in A. Right: in how many languages a neuron is an expert at the last sound checkpoint, "
            "against permuted labels (which keep parallel sentences parallel) and random sets."))


def persistence(claims: Mapping[str, xr.Dataset]) -> Figure:
    """How many experts of one checkpoint are experts at another."""
    groups = list(claims)
    with style.panels(len(groups), height=3.2) as (canvas, grid):
        for axes, group in zip(grid, groups):
            values = claims[group]["persistence"].values
            image = axes.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=1, origin="lower")
            style.checkpoint_axis(axes, steps_of(claims[group]))
            steps = steps_of(claims[group])
            axes.set_yticks(range(len(steps)), [str(s) for s in steps])
            axes.set_title(group)
            axes.grid(False)
            axes.set_ylabel("experts at checkpoint")
        canvas.colorbar(image, ax=list(grid), label="share kept")
        return Figure("persistence", style.png(canvas), "persistence of expert sets between checkpoints", (
            "The share of the experts at one checkpoint (row) that are experts at another (column), mean over "
            "languages and concepts. Early rows that stay dark under later columns mean that experts change."))


def damage(found: xr.Dataset) -> Slides:
    """Whose loss rises when a language's neurons are taken away, at every checkpoint."""
    figures, labels = [], [str(step) for step in steps_of(found)]
    removed, names = ([str(n) for n in found[dim].values] for dim in ("removed", "language"))
    top = float(np.nanmax(np.abs(found["damage"].values))) or 1.0
    for i, label in enumerate(labels):
        values = found["damage"].isel(checkpoint=i).transpose("removed", "language").values
        with style.figure(width=5.6, height=4.4) as (canvas, grid):
            axes = grid[0, 0]
            image = style.heat(axes, values, removed, names, top)
            axes.set_xlabel("language measured")
            axes.set_ylabel("language whose neurons are gone")
            axes.set_title(f"checkpoint {label}")
            canvas.colorbar(image, ax=axes, label="damage (nats a token)")
            figures.append(Figure(f"damage_{i:02d}", style.png(canvas), f"damage by language at {label}", ""))
    return Slides("damage", tuple(figures), tuple(labels), "Checkpoint", (
        f"Neurons of one language by {found.attrs['method']}, put to zero, and the loss of every language on other "
        "documents minus the loss without the edit. A language of its own has a dark row but for the diagonal; what "
        "random neurons of the same layers and sites do stands in the table. Move the slider, or use the arrow keys."))
