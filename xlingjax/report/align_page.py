"""The page of an alignment: what the measures say of translations, beside shuffled ones."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from xlingjax.report import align_figures as figures
from xlingjax.report.page import Section, Table, render, write

MAIN = ("cka_debiased", "svcca", "anc", "mexa", "at_1", "centred_at_1", "csls_at_1", "mutual")


def pairs_of(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """"seen" and, if there are any, "unseen": bool[G, G], upper triangles."""
    found, settings = _dataset(tree), json.loads(tree.attrs["settings"])
    new = np.isin(found["language"].values, settings["unseen"])
    upper = np.triu(np.ones((len(new), len(new)), bool), 1)
    seen = upper & ~new[:, None] & ~new
    return {"seen": seen if seen.any() else upper} | ({"unseen": upper & ~seen} if new.any() and seen.any() else {})


def _dataset(tree: xr.DataTree, name: str = "alignment") -> xr.Dataset:
    node = tree[name]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)


def write_align_report(tree: xr.DataTree, folder: str | Path, overlap: xr.DataArray | None = None) -> Path:
    """Writes `report.html` and its figures as PNG; returns the page's path.

    Args:
        overlap: of experts between the same languages, of a trace, to be compared with the measures.
    """
    sections = build(tree, overlap)
    title = f"Alignment of languages: {tree.attrs['model'].rstrip('/').rsplit('/', 1)[-1]} on {tree.attrs['corpus']}"
    footer = f"corpus {tree.attrs['corpus_fingerprint'][:16]} · settings {tree.attrs['settings']}"
    return write(Path(folder), render(title, align_summary(tree), sections, footer), sections)


def build(tree: xr.DataTree, overlap: xr.DataArray | None = None) -> list[Section]:
    """The sections of the page."""
    found, classes = _dataset(tree), pairs_of(tree)
    return [
        Section("By layer", [figures.layers(found, classes)]),
        Section("Alignment over training", [figures.over_training(found, classes), align_table(found, classes)]),
        Section("Between languages", [
            figures.matrices(found, name, figures.best_layer(found, name, classes["seen"]))
            for name in figures.MATRICES]),
        Section("Do the measures agree?", [figures.agreement_figure(found, overlap), agreement_table(found, overlap)]),
        Section("The shape of each language", [figures.shape(found), figures.picture(_dataset(tree, "geometry"))]),
        *([Section("Which language the layers speak", [figures.lens(_dataset(tree, "lens"))])]
          if "lens" in tree.children else [])]


def align_section(tree: xr.DataTree) -> Section:
    """The alignment in short, for the page of a trace."""
    found, classes = _dataset(tree), pairs_of(tree)
    return Section("Alignment of representations", [
        *align_summary(tree), figures.layers(found, classes), figures.over_training(found, classes)])


def align_table(found: xr.Dataset, classes: Mapping[str, np.ndarray]) -> Table:
    """Each measure in its best layer at the first and the last checkpoint, beside its null and chance."""
    chance = json.loads(found.attrs["chance"])
    rows: list[list[object]] = []
    labels = dict.fromkeys(found["checkpoint"].values[[0, -1]])
    for name in MAIN:
        layer = figures.best_layer(found, name, classes["seen"])
        for label in labels:
            at = found.sel(checkpoint=label, layer=layer)
            null, sd = figures.band(at, name, classes["seen"])
            of = lambda pairs, at=at, name=name: (
                float(figures.mean_both(at[name], classes[pairs])) if pairs in classes else float("nan"))
            rows.append([figures.NAMES[name], str(label), layer, of("seen"), float(null), float(null + 2 * sd),
                         chance.get(name, float("nan")), of("unseen")])
    return Table(["measure", "checkpoint", "layer", "mean over pairs", "translations shuffled", "its band",
                  "chance", "pairs with an unseen language"], rows,
                 "In the layer where the measure stands highest above its null at the last checkpoint; band: null plus "
                 "two standard deviations over shuffles; chance: what theory says of independent vectors")


def agreement_table(found: xr.Dataset, overlap: xr.DataArray | None = None) -> Table:
    """For each measure, which other one puts the pairs of languages in the most, and the least, similar order."""
    values, names = figures.agreement(found, overlap)
    rows: list[list[object]] = []
    for i, name in enumerate(names):
        others = [j for j in range(len(names)) if j != i and np.isfinite(values[i, j])]
        if others:
            most, least = others[int(values[i, others].argmax())], others[int(values[i, others].argmin())]
            rows.append([name, names[most], float(values[i, most]), names[least], float(values[i, least]),
                         float(np.median(values[i, others]))])
    return Table(["measure", "agrees most with", "by", "agrees least with", "by", "median over the others"], rows,
                 "Spearman's correlation over pairs of languages at the last checkpoint, mean over layers")


def align_summary(tree: xr.DataTree) -> list[str]:
    """The sentences at the head of the page: what stands above shuffled translations at the last checkpoint.

    A measure says that translations are alike where its mean over pairs exceeds every shuffle's by more than two
    standard deviations of them, in its best layer.
    """
    found, classes = _dataset(tree), pairs_of(tree)
    last, label = found.isel(checkpoint=-1), found["checkpoint"].values[-1]
    above: list[str] = []
    below: list[str] = []
    for name in MAIN:
        layer = figures.best_layer(found, name, classes["seen"])
        at = last.sel(layer=layer)
        null, sd = figures.band(at, name, classes["seen"])
        value = float(figures.mean_both(at[name], classes["seen"]))
        text = f"{figures.NAMES[name]} {value:.3f} (shuffled {float(null):.3f}, layer {layer})"
        (above if value > null + 2 * sd else below).append(text)
    out = [f"Checkpoint {label}, {found.attrs['sentences']} sentences in {found.sizes['language']} languages: "
           + ("translations are more alike than other sentences by " + "; ".join(above) if above
              else "no measure tells translations from other sentences") + "."]
    if above and below:
        out.append("Not above shuffled translations: " + "; ".join(below) + ".")
    layer = figures.best_layer(found, "mexa", classes["seen"])
    mexa = figures.mean_both(found["mexa"].sel(layer=layer), classes["seen"])
    if len(mexa) > 1:
        out.append(f"From checkpoint {found['checkpoint'].values[0]} to {label} the share of sentences that are "
                   f"nearest to their own translation both ways (MEXA) goes from {mexa[0]:.3f} to {mexa[-1]:.3f}.")
    if "unseen" in classes:
        unseen = float(figures.mean_both(last["mexa"].sel(layer=layer), classes["unseen"]))
        out.append(f"With a language that training did not see it is {unseen:.3f}.")
    out.append("Translations share names, numerals and length, which alone align vectors: compare with the embedding "
               "(layer 0), and with the first checkpoint. One pre-training run, descriptive.")
    return out
