"""Switching a language on: its neurons are set to what they are in its sentences, and which language is written."""

import dataclasses
from collections.abc import Callable

import numpy as np
import xarray as xr

from xlingjax.analyses.language_neurons import find_language_neurons
from xlingjax.analyses.reading import longest
from xlingjax.analyses.steering import effects
from xlingjax.analyses.steering.conditions import Condition
from xlingjax.analyses.steering.settings import SteerSettings
from xlingjax.corpora.corpus import Corpus
from xlingjax.judging.languages import UNDETERMINED, LanguageJudge
from xlingjax.kernels.correction import paired_p
from xlingjax.kernels.resampling import random_like
from xlingjax.models import Model
from xlingjax.responses.collecting import collect

KINDS = ("own neurons", "random neurons")


def switch_on(
    model: Model, finding: Corpus, judge: LanguageJudge, unforced: effects.Written, settings: SteerSettings,
    advance: Callable[[int], None],
) -> xr.Dataset:
    """What is written with each language's neurons set to their median over its sentences (Kojima et al. 2024).

    Args:
        finding: sentences that find the neurons and their values; the judge has not seen them.
        unforced: texts of the same seeds without any edit.
        settings: `switch` says how the neurons are found; every position is edited.

    Returns:
        Dimensions `switched` (a language), `kind` (its neurons; as many random ones in every layer and site that move
        the residual stream as far), `verdict`. `share` of texts; `d_share`, minus unforced; `low`, `high`, its 95 %
        interval over rows; `nats` a token under the unforced model; `displacement`; `neurons`; and `p`, of own against
        random neurons in the share of the language itself, by `switched`.
    """
    found, index = find_language_neurons(
        model, finding, settings.switch, batch_tokens=settings.batch_tokens, seed=settings.seed)
    used = dataclasses.replace(
        settings, sites=tuple(index.shapes), value="median", positions="every")
    means = collect(model, finding, used.sites, "mean", batch_tokens=settings.batch_tokens, show=False,
                    max_length=longest(model)).matrix()
    names, verdicts = list(finding.language_names), [*judge.names, UNDETERMINED]
    conditions: dict[tuple[str, str], Condition] = {}
    moved: dict[tuple[str, str], float] = {}
    for row, name in enumerate(names):
        typical = np.median(means[finding.languages == name], axis=0).astype(np.float32)
        random = random_like(found[name], index.strata, found[name], settings.seed + row)
        own, other = (Condition(chosen, typical[chosen]) for chosen in (found[name], random))
        moved[name, KINDS[0]] = effects.displacement(model, own, unforced, used)
        conditions[name, KINDS[0]] = own
        conditions[name, KINDS[1]], moved[name, KINDS[1]] = effects.with_matched_norm(
            model, other, moved[name, KINDS[0]], unforced, used)
    written = effects.write(model, {" ".join(key): one for key, one in conditions.items()}, used, advance)
    said = lambda texts: judge.verdicts(texts.texts)[:, None] == np.array(verdicts)
    plain = said(unforced)
    shown = np.stack([[said(written[f"{name} {kind}"]) for kind in KINDS] for name in names])  # [G, kind, R, V]
    change = shown.astype(float) - plain
    low, high = _interval(change, settings)
    of = lambda values: np.array([[values[name, kind] for kind in KINDS] for name in names])
    axes = ("switched", "kind", "verdict")
    return xr.Dataset(
        {"share": (axes, shown.mean(2)), "d_share": (axes, change.mean(2)), "low": (axes, low), "high": (axes, high),
         "unforced": ("verdict", plain.mean(0)), "displacement": (axes[:2], of(moved)),
         "nats": (axes[:2], np.array([[effects.nats_per_token(model, written[f"{name} {kind}"], used).mean()
                                       for kind in KINDS] for name in names])),
         "neurons": ("switched", [len(found[name]) for name in names]),
         "p": ("switched", [float(paired_p(*shown[row, :, :, verdicts.index(name)])) for row, name in
                            enumerate(names)])},
        coords={"switched": names, "kind": list(KINDS), "verdict": verdicts}, attrs={"method": settings.switch})


def _interval(change: np.ndarray, settings: SteerSettings) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentiles of the mean over rows, [G, kind, V], rows drawn with replacement, the same everywhere."""
    rows = change.shape[2]
    rng = np.random.default_rng([settings.seed, 19])
    weight = rng.multinomial(rows, np.full(rows, 1 / rows), settings.draws) / rows
    draws = np.einsum("gkrv,dr->dgkv", change, weight, optimize=True)
    return np.quantile(draws, 0.025, axis=0), np.quantile(draws, 0.975, axis=0)
