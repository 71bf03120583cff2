"""The page of an influence experiment: what the queries owe to which sequences, and whether it crosses languages."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from xlingjax.report import influence_figures as figures
from xlingjax.report.page import Markup, Section, Table, coloured, render, write


def write_influence_report(tree: xr.DataTree, folder: str | Path, said: Sequence[str]) -> Path:
    """Writes `report.html` and its figures as PNG; returns the page's path.

    Args:
        said: the sentences at its head.
    """
    data = {name: node.to_dataset(inherit=False) for name, node in tree.children.items()}
    sections = [
        Section("Do translations matter?", [figures.ranks(data["translations"], data["claims"]),
                                            figures.pairs(data["translations"]), _pairs(data)]),
        Section("Between languages, by layer", [
            *([figures.ratio(data["ratio"])] if "ratio" in data else []), figures.languages(data["languages"])]),
        Section("Where in the model", [figures.profile(data["hits"], data["queries"])]),
        Section("The tail", [_tails(data["queries"])]),
        Section("Sequences to read", _readings(data))]
    title = f"Influence of training sequences: {tree.attrs['model'].rstrip('/').rsplit('/', 1)[-1]}"
    footer = (f"texts {tree.attrs['texts']} {tree.attrs['texts_fingerprint'][:16]} · translated sentences "
              f"{tree.attrs['parallel']} {tree.attrs['parallel_fingerprint'][:16]} · settings {tree.attrs['settings']}")
    return write(Path(folder), render(title, said, sections, footer), sections)


def _pairs(data: dict[str, xr.Dataset]) -> Table:
    last, adjusted = data["translations"].isel(checkpoint=-1), data["pairs"]
    rows = []
    for a in last["source"].values:
        for b in last["target"].values:
            if a == b:
                continue
            one = last.sel(source=a, target=b)
            cells: list[object] = [str(a), str(b)]
            for name in ("normalised", "without anchors", "flipped", "shared tokens"):
                at = one.sel(measure=name)
                cells.append(f"{float(at['auc']):.2f} [{float(at['low']):.2f}, {float(at['high']):.2f}]")
            cells += [float(adjusted["q"].sel(measure=name, source=a, target=b))
                      for name in ("normalised", "without anchors")]
            rows.append(cells)
    return Table(["query in", "sentences in", "normalised", "without anchors", "flipped", "shared tokens", "p",
                  "p without anchors"], rows,
                 "AUC of translations at the last checkpoint, with intervals over documents; p by Holm's method over "
                 "pairs")


def _tails(queries: xr.Dataset) -> Table:
    last = queries.isel(checkpoint=-1)
    rows = []
    for number in range(last.sizes["query"]):
        one = last.isel(query=number)
        rows.append([str(one["language"].item()), f"{one['prompt'].item()} → {one['completion'].item()}",
                     float(one["nats"]), int(one["scored"]), float(one["positive"]), float(one["top_share"]),
                     float(one["exponent"]), float(one["distance"]), float(one["tail_p"])])
    return Table(["language", "query", "nats a token", "sequences scored", "share positive", "in the top hundredth",
                  "exponent", "distance", "p"], rows,
                 "Queries at the last checkpoint: loss of the completion; the part of the positive influence that the "
                 "largest hundredth of sequences holds (normal values: 0.07); the power law of the tail, and how far "
                 "the tail lies from it (Kolmogorov-Smirnov): a small p says that it is none")


def _readings(data: dict[str, xr.Dataset]) -> list[object]:
    """Queries, translations of each other together, with their sequences."""
    queries, hits = data["queries"].isel(checkpoint=-1), data["hits"].isel(checkpoint=-1)
    parts: list[object] = [
        "At the last checkpoint. The ground of a token is as strong as the influence that arises at it, relative to "
        "the strongest of its sequence: orange makes the completion likelier, blue and underlined less likely; point "
        "at a token for the number. Influence of a token includes what it does to the prediction of later ones."]
    names = queries["parallel"].values
    for name in dict.fromkeys(names.tolist()):
        for number in np.flatnonzero(names == name):
            one, found = queries.isel(query=number), hits.isel(query=number)
            rows: list[list[object]] = []
            for side in found["side"].values:
                for rank in range(found.sizes["rank"]):
                    at = found.sel(side=side).isel(rank=rank)
                    if int(at["row"]) >= 0:
                        rows.append([str(side), str(at["language"].item()), float(at["score"]),
                                     "one token" if bool(at["spurious"]) else "",
                                     _text(str(at["pieces"].item()), str(at["weights"].item()))])
            parts.append(Table(
                ["influential", "language", "influence", "carried by", "training sequence"], rows,
                f"{one['language'].item()}: “{one['prompt'].item()}” → “{one['completion'].item()}”"))
    return parts


def _text(pieces: str, weights: str) -> Markup:
    return coloured(json.loads(pieces), json.loads(weights))
