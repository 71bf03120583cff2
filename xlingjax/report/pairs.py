"""Means over pairs of languages."""

import numpy as np
import xarray as xr


def mean_over(values: xr.DataArray, pairs: np.ndarray) -> np.ndarray:
    """The mean over some pairs of `language` x `language_b`, NaN left out; other dimensions stay.

    >>> table = xr.DataArray([[1.0, 2.0], [np.nan, 4.0]], dims=("language", "language_b"))
    >>> float(mean_over(table, np.array([[False, True], [True, True]])))
    3.0
    """
    chosen = values.transpose(..., "language", "language_b").values[..., pairs]
    known = ~np.isnan(chosen)
    return np.where(known.any(-1), np.where(known, chosen, 0).sum(-1) / np.maximum(known.sum(-1), 1), np.nan)
