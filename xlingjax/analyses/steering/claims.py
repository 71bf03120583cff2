"""What may be said of a steering experiment: an effect of the experts that none of the controls has."""

import numpy as np
import xarray as xr

from xlingjax.analyses.steering.conditions import CONTROLS
from xlingjax.kernels.traces import holm

LEVEL = 0.05


def claims(effects: xr.Dataset, what: str = "share") -> xr.Dataset:
    """Languages whose share the experts change beyond every control: unforced, random neurons, as perplexed.

    A change counts where the experts differ from all controls in one direction; its p-value is the largest of the
    tests against each (intersection-union, Berger 1982), adjusted by Holm's method over languages and checkpoints.

    Args:
        effects: of `steer`. what: "share" of texts in a language, or "joint", of those that show the concept.

    Returns:
        Dimensions `checkpoint`, `language`. `p`, adjusted; `change`, against the control that is nearest; `claimed`;
        `nearest`, the control that it is; "" where a checkpoint has no experts.
    """
    axis = "verdict" if what == "share" else "language"
    at = effects.sel(condition=[name for name in CONTROLS if name in effects["condition"].values]).sel(
        {axis: effects["language"].values})
    order = ("checkpoint", "condition", axis)
    over, p = (at[f"{name}_{what}"].transpose(*order).values for name in ("over", "p"))
    known = ~np.isnan(over).any(1)
    same = (np.sign(over) == np.sign(over[:, :1])).all(1) & (over != 0).all(1)
    largest = np.where(known, np.where(same, p.max(1), 1.0), np.nan)
    nearest = np.where(same, p.argmax(1), np.where(known, _opposed(over, p), 0))
    adjusted = holm(largest)
    names = np.array([*map(str, at["condition"].values)])
    pick = np.take_along_axis(over, nearest[:, None], 1)[:, 0]
    return xr.Dataset(
        {"p": (("checkpoint", "language"), adjusted), "change": (("checkpoint", "language"), pick),
         "claimed": (("checkpoint", "language"), known & (adjusted < LEVEL)),
         "nearest": (("checkpoint", "language"), np.where(known, names[nearest], ""))},
        coords={"checkpoint": effects["checkpoint"].values, "language": effects["language"].values})


def _opposed(over: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The control that speaks against an effect where directions differ: the first that is not like unforced."""
    differs = (np.sign(over) != np.sign(over[:, :1])) | (over == 0)
    return np.where(differs.any(1), differs.argmax(1), p.argmax(1))
