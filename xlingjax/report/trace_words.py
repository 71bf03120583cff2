"""The summary of a trace in words: each sentence is decided by a rule on the numbers, none by taste."""

import json

import numpy as np
import xarray as xr

NOTHING = ("Nothing found: in no group of concepts do languages share a concept's experts beyond permuted labels "
           "and permuted concept names.")


def summary(tree: xr.DataTree) -> list[str]:
    """The sentences at the head of the page.

    The rules: sharing is reported for a group only where the overlap of pre-training languages
    exceeds the simultaneous bands of the joint null and of permuted concept names at the last sound
    checkpoint (of several runs: the mean exceeds the mean bands, and the excess over either null lies
    above zero between runs), a rise only where the interval of the shared fraction's change lies above
    zero, abstraction only where both anchor-free rungs exceed both nulls by two standard deviations.
    """
    claims = {name: until_last_sound(tree, node.to_dataset(inherit=False))
              for name, node in tree.children["claims"].children.items()}
    ladders = {name: node.to_dataset(inherit=False) for name, node in tree.children["ladder"].children.items()} \
        if "ladder" in tree.children else {}
    sentences: list[str] = []
    found = False
    for slug, one in claims.items():
        group, last = one.attrs["group"], one.isel(checkpoint=-1)
        if not bool(last["above"].isel(pairs=0)):
            sentences.append(
                f"{group}: overlap {_number(last['overlap'], 0)} is not above its null at the last sound checkpoint "
                f"({_number(last['null'], 0)}, band {_number(last['band'], 0)}{_runs(last)}).")
            continue
        if not bool(last["shared"].isel(pairs=0)):
            sentences.append(_kind_alone(one, group))
            continue
        found = True
        sentences.append(_above(one, group))
        sentences.append(_fraction(one, group))
        if slug in ladders:
            sentences.append(_abstract(ladders[slug], one, group))
    sentences += _controls(tree, claims)
    if "probe" in tree.children:
        sentences.append(_probe(until_last_sound(tree, tree.children["probe"].to_dataset(inherit=False))))
    sentences += _health(tree.children["health"].to_dataset(inherit=False))
    sentences.append(
        "One pre-training run: the figures describe it and say nothing of runs with another seed."
        if tree.attrs["replicates"].startswith("one run") else
        f"{tree.attrs['replicates']}: means over runs, intervals by Student's t between them.")
    return sentences if found else [NOTHING, *sentences]


def until_last_sound(tree: xr.DataTree, dataset: xr.Dataset) -> xr.Dataset:
    """The checkpoints up to the last sound one, so that the last is a model and no broken upload."""
    names = dataset["checkpoint"].values.tolist()
    return dataset.isel(checkpoint=slice(0, names.index(tree.attrs["last_sound"]) + 1))


def _number(values: xr.DataArray, pairs: int) -> str:
    value = float(values.isel(pairs=pairs))
    return "not estimable" if np.isnan(value) else f"{value:z.3f}"


def _above(one: xr.Dataset, group: str) -> str:
    last, first = one.isel(checkpoint=-1), int(one["emergence"].isel(pairs=0))
    since = "" if first < 0 else f", for good since checkpoint {one['checkpoint'].values[first]}"
    return (f"{_overlap(one, group)} and above permuted concept names ({_names(one)}){since}; the ceiling is "
            f"{_number(last['ceiling'], 0)}.")


def _kind_alone(one: xr.Dataset, group: str) -> str:
    """What to say of an overlap that is no larger for the same concept than for others of its kind."""
    if np.isnan(float(one.isel(checkpoint=-1, pairs=0)["name_p"])) or one.attrs["smallest_name_p"] > one.attrs["level"]:
        return (f"{_overlap(one, group)}; whether that is the concept or what marks its kind cannot be told, "
                "because there are too few concepts of one kind.")
    return (f"{_overlap(one, group)}, but not above concept names permuted within a kind ({_names(one)}): "
            "the neurons may mark what the kind has in common, such as a place in the sentence.")


def _overlap(one: xr.Dataset, group: str) -> str:
    last = one.isel(checkpoint=-1)
    return (f"{group}: experts of pre-training languages overlap by {_number(last['overlap'], 0)} of k = "
            f"{one.attrs['k']} [{_number(last['overlap_low'], 0)}, {_number(last['overlap_high'], 0)}] at the "
            f"last checkpoint, above the joint null ({_number(last['null'], 0)}, band "
            f"{_number(last['band'], 0)}; p = {float(last['p'].isel(pairs=0)):.3f} by {one.attrs['p']}{_runs(last)})")


def _names(one: xr.Dataset) -> str:
    last = one.isel(checkpoint=-1)
    return (f"{_number(last['name_null'], 0)}, band {_number(last['name_band'], 0)}; p = "
            f"{float(last['name_p'].isel(pairs=0)):.3f}")


def _runs(last: xr.Dataset) -> str:
    """How many runs exceed their own band, where several are combined."""
    if "run" not in last.dims:
        return ""
    return f"; {int(last['runs_above'].isel(pairs=0))} of {last.sizes['run']} runs above their own"


def _fraction(one: xr.Dataset, group: str) -> str:
    last = one.isel(checkpoint=-1)
    value = float(last["shared_fraction"].isel(pairs=0))
    if np.isnan(value):
        return f"{group}: the shared fraction is not estimable, because ceilings are not above their null."
    text = (f"{group}: shared fraction {value:z.3f} [{_number(last['shared_fraction_low'], 0)}, "
            f"{_number(last['shared_fraction_high'], 0)}] at the last sound checkpoint")
    low, high = float(one["rise_low"].isel(pairs=0)), float(one["rise_high"].isel(pairs=0))
    start = int(one["rise_from"].isel(pairs=0))
    if start < 0 or np.isnan(low):
        return f"{text}; too few checkpoints are estimable to say whether it rose."
    change = f"{float(one['rise'].isel(pairs=0)):+.2f} [{low:+.2f}, {high:+.2f}]"
    word = "it rose" if low > 0 else "it fell" if high < 0 else "no change can be told"
    return f"{text}; since checkpoint {one['checkpoint'].values[start]} {word} ({change})."


def _abstract(ladder: xr.Dataset, one: xr.Dataset, group: str) -> str:
    said = []
    for name in ("same script", "cross script"):
        if name not in one["pairs"].values:
            continue
        pairs = one["members"].sel(pairs=name).values.astype(bool)
        verdicts: list[bool | None] = []
        for rung in ("no anchor sentences", "anchors not pooled"):
            at = ladder.sel(rung=rung)
            for null in ("null_overlap", "name_null"):
                over, mean, sd = (at[what].transpose("language", "language_b").values[pairs]
                                  for what in ("overlap", null, f"{null}_sd"))
                known = ~np.isnan(over) & ~np.isnan(mean)
                # Pairs share languages, so their nulls are not independent: the mean sd is not divided.
                verdicts.append(bool(over[known].mean() > mean[known].mean() + 2 * sd[known].mean())
                                if known.any() else None)
        said.append(f"{name} pairs: " + (
            "not estimable" if None in verdicts else "above both nulls on both anchor-free rungs" if all(verdicts)
            else "not above both nulls on both anchor-free rungs"))
    return f"{group}, sharing that anchors do not explain: {'; '.join(said)}." if said else (
        f"{group}: no pair of pre-training languages for the ladder.")


def _controls(tree: xr.DataTree, claims: dict[str, xr.Dataset]) -> list[str]:
    unseen = json.loads(tree.attrs["unseen"])
    if not unseen:
        return ["No language outside pre-training was traced, so this control is missing."]
    out = []
    for one in claims.values():
        if "unseen" not in one["pairs"].values:
            continue
        last = one.isel(checkpoint=-1).sel(pairs="unseen")
        above = bool(last["above"])
        out.append(f"{one.attrs['group']}, control: pairs with {', '.join(unseen)}, which pre-training never saw, "
                   f"overlap by {float(last['overlap']):z.3f}, {'above' if above else 'not above'} the band "
                   f"({float(last['band']):.3f}).")
    return out


def _probe(probe: xr.Dataset) -> str:
    last = probe.isel(checkpoint=-1)
    text = []
    for subset, name in (("all", "all tokens"), ("unseen", "unseen types")):
        one = last["accuracy"].sel(subset=subset)
        layer = int(one["layer"].values[int(np.nanargmin(one.values))]) if one.notnull().any() else -1
        text.append(f"{name} {float(one.mean()):.2f} on average, lowest {float(one.min()):.2f} at layer {layer}")
    control = float(last["control"].sel(subset="unseen").mean())
    return (f"Language identification at the last sound checkpoint: {'; '.join(text)}; control task on unseen types "
            f"{control:.2f}, chance {float(last['chance']):.2f}, type look-up "
            f"{float(last['lookup'].sel(subset='all')):.2f}.")


def _health(health: xr.Dataset) -> list[str]:
    bad = [(str(name), str(status)) for name, status in
           zip(health["checkpoint"].values, health["status"].values) if status != "ok"]
    return [f"Checkpoint {name}: {status}." for name, status in bad]
