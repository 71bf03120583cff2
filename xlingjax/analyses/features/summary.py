"""What an analysis of grammatical features found, in sentences."""

import json
import math

import numpy as np
import xarray as xr

from xlingjax.analyses.features.claims import NOT_SHOWN, NOT_TESTED, SHOWN
from xlingjax.analyses.features.conditions import LEACE, MATCHED, NO_OP, SHARED, SPECIFIC
from xlingjax.analyses.features.steering import MATCHED as AS_ACTIVE
from xlingjax.analyses.features.steering import STEERED


def summary(tree: xr.DataTree) -> list[str]:
    """Sentences on probes, sharing, the causal test and what was left out; nothing that the datasets do not hold."""
    out = [_probes(tree["probes"].to_dataset()), *_sharing(tree["universality"].to_dataset()),
           *_flags(tree["latents"].to_dataset())]
    if "downstream" in tree:
        out.append(_downstream(tree["downstream"].to_dataset()))
    if "claims" in tree:
        out += _causal(tree["causal"].to_dataset(), tree["claims"].to_dataset())
    else:
        out.append("No cell was tested causally: no latent is in the tops of two other languages.")
    if "steering" in tree:
        out += _steering(tree["steering"].to_dataset())
    left_out = json.loads(tree.attrs["left_out"])
    if left_out:
        more = f"; and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        out.append(f"Left out for want of words: {'; '.join(left_out[:5])}{more}.")
    return out


def _probes(probes: xr.Dataset) -> str:
    area = probes["auroc"].transpose("value", "language", "language_b", "layer").values[..., 0]
    same = np.eye(area.shape[1], dtype=bool)
    own, across = np.nanmean(area[:, same]), np.nanmean(area[:, ~same])
    return (f"{int(probes['used'].sum())} cells of {probes.sizes['value']} values have enough words; at the "
            f"dictionary's layer probes reach an AUROC of {own:.2f} in their own language and {across:.2f} in others.")


def _sharing(found: xr.Dataset) -> list[str]:
    at = found.sel(k=found.attrs["k"] if found.attrs["k"] in found["k"].values else found["k"].values[-1])
    lines = []
    for value in found["value"].values.tolist():
        one = at.sel(value=value)
        chances = [f"{float(one[f'share_{null}']):.0%} {said} (p {float(one[f'p_{null}']):.2g})"
                   for null, said in (("even", "if drawn evenly"), ("activity", "if drawn by activity"))]
        number = int(found["used"].sel(value=value).sum())
        lines.append(f"{value}: of the latents in the top {int(one['k'])} of a language {float(one['share']):.0%} are "
                     f"in two or more of {number} languages; by chance {', '.join(chances)}.")
        if not np.isnan(float(one["p_names"])):
            lines[-1] += (f" Of a language's top the others have {float(one['met']):.0%}, and "
                          f"{float(one['met_names']):.0%} in their tops of other features "
                          f"(p {float(one['p_names']):.2g}).")
    return lines


def _flags(latents: xr.Dataset) -> list[str]:
    artefacts = json.loads(latents.attrs["artefacts"])
    flips = int((latents["flips"] & (latents["latent"] >= 0)).sum())
    lines = []
    if artefacts:
        lines.append(f"{len(artefacts)} latents are in the tops of {latents.attrs['nearly']:.0%} of all cells or more "
                     f"and tell no value from another: {', '.join(map(str, artefacts[:10]))}.")
    if flips:
        lines.append(f"{flips} shown latents speak for a value in one language and against it in another.")
    return lines


def _downstream(found: xr.Dataset) -> str:
    mean = lambda name: float(found[name].mean())
    return (f"Behind further layers ({found.attrs['layer']}) effects by integrated gradients agree with those at the "
            f"own layer by a correlation of {mean('agreement'):.2f}, with exact ablation by "
            f"{mean('exact_integrated'):.2f} (plain gradients {mean('exact_gradient'):.2f}), and miss "
            f"{mean('incomplete'):.1%} of the whole.")


def _causal(causal: xr.Dataset, decided: xr.Dataset) -> list[str]:
    kind = causal["kind"].values.astype(str)
    drop = causal["drop_refitted"].transpose("value", "condition", "language").values
    lines = []
    for v, value in enumerate(decided["value"].values.tolist()):
        verdict = str(decided["verdict"].values[v])
        tested, counting = int(decided["languages_tested"][v]), int(decided["languages_counting"][v])
        if verdict == NOT_TESTED:
            lines.append(f"{value}: not tested, no latent is shared by two other languages.")
            continue
        of = {name: float(np.nanmean(drop[v, kind == name])) for name in (SHARED, MATCHED, SPECIFIC, LEACE)}
        result = "is carried by shared latents" if verdict == SHOWN else "is not shown to be carried by shared latents"
        lines.append(
            f"{value} {result}: {counting} of {tested} languages count; probes trained anew at later layers lose "
            f"{of[SHARED]:.3f} AUROC without latents chosen in other languages, {of[MATCHED]:.3f} without as many as "
            f"active, {of[SPECIFIC]:.3f} without the language's own, {of[LEACE]:.3f} under LEACE.")
    shown = int((decided["verdict"] == SHOWN).sum())
    missing = int((decided["verdict"] == NOT_SHOWN).sum())
    head = f"By the rule fixed beforehand, {shown} values are carried by shared latents, {missing} are not shown to be."
    if "d_loss" in causal:
        loss = causal["d_loss"].transpose("condition", "value", "language").values
        names = [name for name in (SHARED, MATCHED, SPECIFIC) if (kind == name).any()]
        said = ", ".join(f"{np.nanmean(loss[kind == name]):+.3f} ({name})" for name in names)
        head += f" Cross-entropy moves against {NO_OP} by {said} nats a token."
    return [head, *lines]


def _steering(found: xr.Dataset) -> list[str]:
    """What the strongest push changes, beside as strong a push of random latents."""
    conditions = [str(name) for name in found["condition"].values]
    shared = [name for name in conditions if name.startswith(STEERED)][-1]
    matched = [name for name in conditions if name.startswith(AS_ACTIVE)][-1]
    lines = []
    for change in found["change"].values:
        one = found.sel(change=change)
        known = one["d_wanted"].sel(condition=shared).notnull()
        if not known.any():
            lines.append(f"{change}: not steered, no latent is shared by other languages for both values.")
            continue
        low, high = (one[f"d_wanted_{end}"].sel(condition=shared) for end in ("low", "high"))
        up, down = int((low > 0).sum()), int((high < 0).sum())
        said = {(name, condition): _said(float(one[name].sel(condition=condition).mean()), form)
                for name, form in (("d_wanted", "+.3f"), ("unwanted", ".3f")) for condition in (shared, matched)}
        lines.append(
            f"{change}: with latents of other languages ({shared}) the share of wanted words changes by "
            f"{said['d_wanted', shared]} on average over {int(known.sum())} languages (intervals above zero in "
            f"{up}, below in {down}); with random latents by {said['d_wanted', matched]}. The largest other change: "
            f"{said['unwanted', shared]}, with random latents {said['unwanted', matched]}.")
    return lines


def _said(value: float, form: str) -> str:
    return "an unknown amount, as texts have no word that the judge knows" if math.isnan(value) else f"{value:{form}}"
