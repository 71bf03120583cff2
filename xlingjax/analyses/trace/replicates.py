"""Several pre-training runs as one result: means over runs, intervals between runs.

The pre-training seed is the replicate. Documents, concepts and probe seeds vary within a run; what
they say of one run says nothing of the next. The combined tree has the form of one run's, so that
tables and pages read both; intervals within runs are replaced by Student's t between runs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from xlingjax.errors import InputError
from xlingjax.kernels.traces import emergence, holm

# What differs from neuron to neuron has no mean over runs; draws and sets are large and of one run.
OF_ONE_RUN = (
    "expert", "expert_ap", "null_draws", "same_half_null_draws", "stratum_null_draws", "name_draws")
BY_RUN = (  # kept for each run as well
    "overlap", "null", "band", "name_null", "name_band", "ceiling", "shared_fraction")
SAME = ("corpus_fingerprint", "unseen", "scripts", "classes")  # attributes that all runs share


def t_interval(values: np.ndarray, level: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and Student's interval over the first axis; NaN where any run has none.

    Runs in which a measure is not estimable are not left out, because those that remain would be
    the ones in which it is large.

    >>> mean, low, high = t_interval(np.array([[1.0], [2.0], [3.0]]))
    >>> mean.item(), round(low.item(), 2), round(high.item(), 2)
    (2.0, -0.48, 4.48)
    """
    count = len(values)
    mean = values.mean(0)
    half = stats.t.ppf(1 - level / 2, count - 1) * values.std(0, ddof=1) / math.sqrt(count)
    return mean, mean - half, mean + half


def combine(runs: Mapping[str, xr.DataTree], level: float = 0.05) -> xr.DataTree:
    """The mean of several traces, each of another pre-training run, with intervals between runs.

    Args:
        runs: name -> result of `analyses.trace.trace`, of equal corpora and checkpoints and, but
            for the seed, settings.
        level: of the intervals, two-sided.

    Returns:
        A tree as of one trace, without `neurons`. In `claims/GROUP`: means over runs; `_low` and
        `_high` by Student's t between runs; `p` of a one-sided t-test of overlap above the joint
        null, by Holm over classes of pairs and groups at each checkpoint; `band` the mean of the
        runs' bands (never narrower than the band of the mean); `above` where the mean exceeds that
        band and the interval of overlap - null lies above zero; `runs_above`, how many runs exceed
        their own band; `name_p`, `name_band` and `shared` likewise against permuted concept names;
        `overlap_runs`, `null_runs`, ... along `run`. `probe`: likewise.

    Raises:
        InputError: fewer than two runs, the same model twice, or runs that cannot be laid side by
        side; the message names what differs.
    """
    names, trees = list(runs), list(runs.values())
    _check(names, trees)
    of = lambda path: [_dataset(tree, path) for tree in trees]
    kinds = {"health": _health(of("health"), names)}
    sound = kinds["health"]["status"].values == "ok"
    for path in _paths(trees[0]):
        if path.startswith("claims/"):
            kinds[path] = _claims(of(path), names, sound, level)
        elif path == "probe":
            kinds[path] = _probe(of(path), names, level)
        elif path != "health":
            kinds[path] = _mean(of(path))
    _adjust([dataset for path, dataset in kinds.items() if path.startswith("claims/")])
    tree = xr.DataTree.from_dict(kinds)
    order = kinds["health"]["checkpoint"].values.tolist()
    last = min(order.index(one.attrs["last_sound"]) for one in trees)
    tree.attrs = {name: trees[0].attrs[name] for name in (
        *SAME, "corpus", "settings", "dropped_concepts")} | {
        "last_sound": order[last], "model": f"{len(names)} runs",
        "replicates": f"{len(names)} pre-training runs ({', '.join(names)})"}
    return tree


def _dataset(tree: xr.DataTree, path: str) -> xr.Dataset:
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset(inherit=False)


def _paths(tree: xr.DataTree) -> list[str]:
    """Datasets that have a mean over runs."""
    return [node.path.lstrip("/") for node in tree.subtree
            if node.has_data and node.path.lstrip("/") != "neurons"]


def _check(names: Sequence[str], trees: Sequence[xr.DataTree]) -> None:
    if len(trees) < 2:
        raise InputError(f"{len(trees)} trace was given; runs are combined from two on")
    first = trees[0]
    seen: dict[str, str] = {}
    for name, tree in zip(names, trees):
        for what in SAME:
            if tree.attrs[what] != first.attrs[what]:
                raise InputError(
                    f"traces {names[0]} and {name} differ in {what.replace('_', ' ')}; trace all runs "
                    "on the same corpus with the same --unseen")
        one, other = (_comparable(each.attrs["settings"]) for each in (first, tree))
        differ = [key for key in one | other if one.get(key) != other.get(key)]
        if differ:
            raise InputError(
                f"traces {names[0]} and {name} differ in --{differ[0]} ({one.get(differ[0])!r} and "
                f"{other.get(differ[0])!r}); trace all runs with the same settings")
        labels = [_dataset(each, "health")["checkpoint"].values.tolist() for each in (first, tree)]
        if labels[0] != labels[1]:
            raise InputError(
                f"traces {names[0]} and {name} have other checkpoints ({', '.join(labels[0])} and "
                f"{', '.join(labels[1])}); trace the same steps of every run")
        weights = str(_dataset(tree, "health")["fingerprint"].values[-1])
        if weights in seen:
            raise InputError(
                f"traces {seen[weights]} and {name} are of the same weights; a replicate is another "
                "pre-training run, with another --seed")
        seen[weights] = name
        if set(_paths(tree)) != set(_paths(first)):
            raise InputError(f"traces {names[0]} and {name} hold other measures; trace both anew")


def _comparable(settings: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(settings).items() if key != "seed"}


def _mean(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The mean of every number over runs, NaN left out."""
    kept = [name for name, values in parts[0].data_vars.items()
            if values.dtype.kind in "biuf" and name not in OF_ONE_RUN]
    stacked = xr.concat([part[kept] for part in parts], "run", join="exact", coords="minimal",
                        compat="override", data_vars="all", combine_attrs="override")
    return stacked.mean("run", skipna=True, keep_attrs=True)


def _stack(parts: Sequence[xr.Dataset], name: str) -> np.ndarray:
    """float[R, ...] of one measure, axes as in the first run."""
    dims = parts[0][name].dims
    return np.stack([part[name].transpose(*dims).values for part in parts]).astype(float)


def _claims(
    parts: Sequence[xr.Dataset], names: Sequence[str], sound: np.ndarray, level: float,
) -> xr.Dataset:
    """Checkpoints that are broken in any run are shown and claim nothing, as in `claims`."""
    out = _mean(parts)
    for name in ("band", "name_band"):
        out[name] = out[name].where(xr.DataArray(sound, dims="checkpoint"))
    dims = ("pairs", "checkpoint")
    for name in ("overlap", "shared_fraction"):
        between = t_interval(_stack(parts, name), level)
        for end, values in zip(("", "_low", "_high"), between):
            out[f"{name}{end}"] = (dims, values)
    for name in BY_RUN:
        out[f"{name}_runs"] = (("run", *dims), _stack(parts, name))
    for which, null in (("", "null"), ("name_", "name_null")):
        excess = _stack(parts, "overlap") - _stack(parts, null)
        for end, values in zip(("", "_low", "_high"), t_interval(excess, level)):
            out[f"{which}excess{end}"] = (dims, values)
        out[f"{which}p"] = (dims, np.where(sound, _one_sided(excess), np.nan))
    out["runs_above"] = (dims, (_stack(parts, "overlap") > _stack(parts, "band")).sum(0))
    out["above"] = (out["overlap"] > out["band"]) & (out["excess_low"] > 0)
    out["shared"] = out["above"] & (out["overlap"] > out["name_band"]) & (out["name_excess_low"] > 0)
    counts = np.flatnonzero(sound)
    first = np.full(out.sizes["pairs"], -1)
    if len(counts):
        among = emergence(out["shared"].transpose(*dims).values[:, counts])
        first = np.where(among >= 0, counts[among], -1)
    out["emergence"] = ("pairs", first)
    fractions = np.where(sound, _stack(parts, "shared_fraction"), np.nan)
    for name, values in _rise(fractions, level).items():
        out[name] = ("pairs", values)
    out["members"] = parts[0]["members"]
    return out.assign_coords(run=list(names)).assign_attrs(
        smallest_p=0.0, smallest_name_p=0.0, p="t-test between runs, Holm",
        interval=f"Student's t between {len(names)} runs")


def _one_sided(excess: np.ndarray) -> np.ndarray:
    """p of a t-test over the first axis that the mean is above zero; NaN where nothing varies."""
    spread = excess.std(0, ddof=1) / math.sqrt(len(excess))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, stats.t.sf(excess.mean(0) / spread, len(excess) - 1), np.nan)


def _adjust(claims: Sequence[xr.Dataset]) -> None:
    """Replaces p by Holm's, over classes of pairs and groups, at each checkpoint."""
    sizes = [one.sizes["pairs"] for one in claims]
    for name in ("p", "name_p"):
        together = np.concatenate([one[name].transpose("pairs", "checkpoint").values for one in claims])
        for at in range(together.shape[1]):
            together[:, at] = holm(together[:, at])
        for one, part in zip(claims, np.split(together, np.cumsum(sizes)[:-1])):
            one[name] = (("pairs", "checkpoint"), part)


def _rise(fractions: np.ndarray, level: float) -> dict[str, np.ndarray]:
    """Change of the shared fraction [R, P, K] between the first and last checkpoint that all have."""
    count = fractions.shape[1]
    out = {name: np.full(count, np.nan) for name in ("rise", "rise_low", "rise_high")}
    start = np.full(count, -1)
    for row in range(count):
        known = np.flatnonzero(~np.isnan(fractions[:, row]).any(0))
        if len(known) < 2:
            continue
        change = fractions[:, row, known[-1]] - fractions[:, row, known[0]]
        start[row] = known[0]
        out["rise"][row], out["rise_low"][row], out["rise_high"][row] = t_interval(change, level)
    return {**out, "rise_from": start}


def _probe(parts: Sequence[xr.Dataset], names: Sequence[str], level: float) -> xr.Dataset:
    out = _mean(parts)
    stacked = _stack(parts, "accuracy")
    dims = parts[0]["accuracy"].dims
    for name, values in zip(("accuracy", "accuracy_low", "accuracy_high"), t_interval(stacked, level)):
        out[name] = (dims, values)
    out["accuracy_runs"] = (("run", *dims), stacked)
    return out.assign_coords(run=list(names)).assign_attrs(
        interval=f"95 %, Student's t between {len(names)} runs")


def _health(parts: Sequence[xr.Dataset], names: Sequence[str]) -> xr.Dataset:
    """Losses averaged; a checkpoint is as sound as its worst run, which its status names."""
    statuses = np.stack([part["status"].values.astype(str) for part in parts])
    joined = ["ok" if (column == "ok").all() else "; ".join(
        f"{name}: {status}" for name, status in zip(names, column) if status != "ok")
        for column in statuses.T]
    out = _mean(parts).assign(status=("checkpoint", joined))
    out["bits_per_character_runs"] = (
        ("run", *parts[0]["bits_per_character"].dims), _stack(parts, "bits_per_character"))
    return out.assign_coords(run=list(names))
