"""Tables of a trace: what the screen shows, and experts in the columns of ml-selfcond."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xlingjax.corpora.corpus import Corpus
from xlingjax.files import write_whole
from xlingjax.markdown import markdown
from xlingjax.neurons import NeuronIndex
from xlingjax.responses.responses import Responses, open_responses

COLUMNS = ("checkpoint", "bits/char", "group", "overlap", "null", "band", "names", "their band", "ceiling",
           "shared fraction", "low", "high", "unseen overlap", "status")
README = ("concepts", "overlap", "joint null", "its band", "name null", "its band", "ceiling", "shared fraction",
          "pairs with the unseen language")  # columns of `summary_markdown`, as the README shows it
EXPERTISE = ("ap", "off_mean", "on_p50", "on_p90", "layer", "unit", "uuid", "concept", "group")


def summary_rows(tree: xr.DataTree) -> list[list[str]]:
    """One row a checkpoint and group, of pairs of pre-training languages."""
    health = tree.children["health"].to_dataset(inherit=False)
    rows = []
    for node in tree["claims"].children.values():
        one = node.to_dataset(inherit=False)
        for name in one["checkpoint"].values:
            at = one.sel(checkpoint=name)
            seen = at.isel(pairs=0)
            unseen = float(at["overlap"].sel(pairs="unseen")) if "unseen" in one["pairs"].values else np.nan
            bits = float(health["bits_per_character"].sel(checkpoint=name).mean())
            numbers = [float(seen[what]) for what in (
                "overlap", "null", "band", "name_null", "name_band", "ceiling", "shared_fraction",
                "shared_fraction_low", "shared_fraction_high")]
            rows.append([str(name), f"{bits:.2f}", str(one.attrs["group"]), *map(_shown, numbers),
                         _shown(unseen), str(health["status"].sel(checkpoint=name).item())])
    return rows


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:z.3f}"


def summary_table(tree: xr.DataTree, as_csv: bool = False) -> str:
    """The rows as a table for the screen, or as CSV."""
    rows = [list(COLUMNS), *summary_rows(tree)]
    if as_csv:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)


def summary_markdown(tree: xr.DataTree) -> str:
    """The rows of the last sound checkpoint as a Markdown table, intervals in brackets."""
    lines = [f"| {' | '.join(README)} |", "|---" * len(README) + "|"]
    for row in summary_rows(tree):
        one = dict(zip(COLUMNS, row))
        if one["checkpoint"] == tree.attrs["last_sound"]:
            fraction = f"{one['shared fraction']} [{one['low']}, {one['high']}]"
            cells = [*(one[name] for name in ("group", "overlap", "null", "band", "names", "their band", "ceiling")),
                     fraction, one["unseen overlap"]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def replicates_markdown(tree: xr.DataTree) -> str:
    """Sharing and language identity at every checkpoint of several runs, as Markdown tables.

    Means over runs with their intervals between runs in brackets.
    """
    parts = []
    for node in tree["claims"].children.values():
        one = node.to_dataset(inherit=False)
        runs = one.sizes["run"]
        rows = []
        for name in one["checkpoint"].values:
            at = one.sel(checkpoint=name)
            seen = at.isel(pairs=0)
            row = [str(name), _interval(seen, "overlap"), *(_shown(float(seen[what])) for what in (
                "null", "band", "name_null", "name_band")),
                   f"{int(seen['runs_above'])} of {runs}", _shown(float(seen["ceiling"])),
                   _interval(seen, "shared_fraction")]
            if "unseen" in one["pairs"].values:
                row.append(_interval(at.sel(pairs="unseen"), "overlap"))
            rows.append(row)
        header = ["checkpoint", "overlap", "joint null", "mean band", "name null", "its mean band",
                  "runs above the joint band", "ceiling",
                  "shared fraction", "overlap with the unseen language"][:len(rows[0])]
        parts.append(f"{one.attrs['group']}, {one.attrs['concepts']} concepts, k = {one.attrs['k']}\n\n"
                     f"{markdown(header, rows)}\n{_classes(one.sel(checkpoint=tree.attrs['last_sound']))}")
    if "probe" in tree.children:
        parts.append(f"language identity, accuracy on token types that the probe never saw\n\n{_probes(tree)}")
    return "\n".join(parts)


def _classes(last: xr.Dataset) -> str:
    """Every class of language pairs at one checkpoint, and how its shared fraction has changed."""
    rows = []
    for name in last["pairs"].values:
        at = last.sel(pairs=name)
        rows.append([
            str(name), _interval(at, "excess"), _shown(float(at["p"])), _interval(at, "name_excess"),
            _shown(float(at["name_p"])), _interval(at, "shared_fraction"), _interval(at, "rise")])
    return markdown([f"pairs at {last['checkpoint'].item()}", "overlap - joint null", f"p ({last.attrs['p']})",
                      "overlap - name null", "p", "shared fraction",
                      "its change since the first checkpoint that has one"], rows)


def _probes(tree: xr.DataTree) -> str:
    probe = tree.children["probe"].to_dataset(inherit=False).sel(subset="unseen")
    last = probe.sizes["layer"] - 1
    layers = [0, (last + 1) // 2, last]
    header = ["checkpoint", *(f"layer {layer}" for layer in layers), "control task", "type look-up, all tokens"]
    whole = tree.children["probe"].to_dataset(inherit=False)["lookup"].sel(subset="all")
    rows = [[str(name), *(_interval(probe.sel(checkpoint=name, layer=layer), "accuracy") for layer in layers),
             _shown(float(probe["control"].sel(checkpoint=name).mean())), _shown(float(whole.sel(checkpoint=name)))]
            for name in probe["checkpoint"].values]
    return markdown(header, rows) + f"\nchance {float(probe['chance']):.3f}\n"


def _interval(at: xr.Dataset, what: str) -> str:
    value, low, high = (float(at[f"{what}{end}"]) for end in ("", "_low", "_high"))
    return _shown(value) if np.isnan(low) else f"{_shown(value)} [{_shown(low)}, {_shown(high)}]"


def expertise_table(tree: xr.DataTree, corpus: Corpus, trace_folder: Path, path: Path) -> None:
    """`expertise.csv` of the last sound checkpoint: every expert with what forcing it needs.

    The columns are ml-selfcond's; its `group` holds the language, because there a group of concepts
    is one language's. `off_mean` is the mean response to negatives, `on_p50` and `on_p90` quantiles
    of the response to positives.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(EXPERTISE)
    for node in tree["experts"].children.values():
        one = node.to_dataset(inherit=False).sel(checkpoint=tree.attrs["last_sound"], adjustment="raw")
        responses = open_responses(trace_folder / str(one["checkpoint"].item()) / "responses")
        for concept in one["concept"].values:
            column = corpus.concepts.index(str(concept))
            for language in one["language"].values:
                cell = one.sel(concept=concept, language=language)
                _write_cell(writer, responses, corpus, column, str(language), cell)
    write_whole(path, out.getvalue().encode())


def _write_cell(writer: Any, responses: Responses, corpus: Corpus, column: int, language: str,
                cell: xr.Dataset) -> None:
    neurons = cell["expert"].values
    kept = neurons >= 0
    neurons, values = neurons[kept], cell["expert_ap"].values[kept]
    if not len(neurons):
        return
    rows = np.flatnonzero(corpus.languages == language)
    block = responses.rows(rows).matrix(neurons)
    labels = corpus.labels[rows, column]
    on, off = block[labels == 1], block[labels == 0]
    index: NeuronIndex = responses.neurons
    for i, neuron in enumerate(neurons.tolist()):
        site, layer, unit = index.neuron(neuron)
        writer.writerow([
            f"{values[i]:.6f}", f"{off[:, i].mean():.6g}", f"{np.quantile(on[:, i], 0.5):.6g}",
            f"{np.quantile(on[:, i], 0.9):.6g}", index.module(site, layer), unit, neuron,
            corpus.concepts[column], language])

