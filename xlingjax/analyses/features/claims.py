"""What may be said: "shared latents carry the value causally", by a rule that was fixed before any result was seen.

The rule. In each cell, a value in a language, the latents are those shared by two *other* languages or more, chosen
on other documents. The outcome is the drop of the AUROC on test documents, from no-op to ablation, of probes that are
trained anew on the ablated states, averaged over the later layers looked at. It has to exceed
  - no-op: the drop itself is above zero;
  - random latents matched in activity: the 95 % quantile over all draws;
  - as many latents that are strong in this language only.
Each difference is tested one-sidedly by Student's t over test documents (standard error: paired bootstrap over
documents, the same draws in every condition; degrees of freedom: documents minus one). The cell's p-value is the
largest of the three (intersection-union, Berger 1982), adjusted by Holm's method over all cells of all values. A cell
counts at 5 %. The claim is made for a value where more than half of its tested languages count, two or more being
tested. Otherwise: not shown. A cell is not tested where no latent is shared by two other languages; that is reported.
"""

import numpy as np
import scipy.stats
import xarray as xr

from xlingjax.kernels.traces import holm

LEVEL = 0.05
SHOWN, NOT_SHOWN, NOT_TESTED = "carried by shared latents", "not shown", "not tested"


def claims(causal: xr.Dataset) -> xr.Dataset:
    """The decision of every cell and value.

    Args:
        causal: `excess`, `excess_se` by `value`, `language` and `control`, and `documents`; NaN where not tested.

    Returns:
        `p` of each cell, adjusted; `raw_p`; `nearest`, the control that is hardest to exceed; `counts`, whether the
        cell counts. By `value`: `languages_tested`, `languages_counting`, `verdict`.
    """
    order = ("value", "language", "control")
    excess, se = (causal[name].transpose(*order).values for name in ("excess", "excess_se"))
    freedom = causal["documents"].transpose(*order[:2]).values[..., None] - 1
    tested = ~np.isnan(excess).any(-1) & ~np.isnan(se).any(-1) & (freedom[..., 0] >= 1)
    sound = np.where(tested[..., None] & (se > 0), se, 1)
    ratio = np.where(tested[..., None], np.where(se > 0, excess / sound, np.where(excess > 0, np.inf, -np.inf)), 0)
    each = scipy.stats.t.sf(ratio, np.where(tested[..., None], freedom, 1))
    raw = np.where(tested, each.max(-1), np.nan)
    p = holm(raw)
    counts = tested & (p < LEVEL)
    number, counting = tested.sum(1), counts.sum(1)
    verdict = np.where(number == 0, NOT_TESTED, np.where((number >= 2) & (2 * counting > number), SHOWN, NOT_SHOWN))
    controls = causal["control"].values.astype(str)
    cell = ("value", "language")
    return xr.Dataset(
        {"p": (cell, p), "raw_p": (cell, raw), "nearest": (cell, np.where(tested, controls[each.argmax(-1)], "")),
         "counts": (cell, counts), "languages_tested": ("value", number), "languages_counting": ("value", counting),
         "verdict": ("value", verdict)},
        coords={"value": causal["value"].values, "language": causal["language"].values},
        attrs={"level": LEVEL, "rule": (
            "refitted probes at later layers lose more than under no-op, matched random latents and language-specific "
            "ones; intersection-union, Holm over cells, in more than half of the languages tested")})
