"""One progress bar for all that lasts: with rates, after two seconds, silent outside a terminal."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_BEFORE_SHOWN = 2.0


def progress(
    items: Iterable | None = None,
    *,
    total: float | None = None,
    label: str = "",
    unit: str = "it",
    show: bool | None = None,
) -> Any:
    """A bar around `items`, or one to move by hand with `bar.update(amount)`.

    Args:
        items: what to iterate over; None for a bar moved by hand (use it in a `with` statement).
        total: the amount that is the whole; left out where `items` has a length.
        label: what is being done, shown before the bar.
        unit: what is counted, shown in the rate ("sentences", "tokens").
        show: True shows it wherever the output goes, False never; None shows it in a terminal only,
            unless the environment variable XLINGJAX_PROGRESS is "1" (always) or "0" (never).

    >>> [item for item in progress([1, 2, 3], label="count", show=False)]
    [1, 2, 3]
    """
    if show is None:
        wish = os.environ.get("XLINGJAX_PROGRESS", "")
        show = {"1": True, "0": False}.get(wish, sys.stderr.isatty())
    return tqdm(
        items,
        total=total,
        desc=label or None,
        unit=f" {unit}",
        unit_scale=True,
        disable=not show,
        delay=SECONDS_BEFORE_SHOWN,
        mininterval=0.5,
        dynamic_ncols=True,
        file=sys.stderr,
    )
