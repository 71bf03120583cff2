"""One progress bar for all that lasts: with rates, after two seconds, silent outside a terminal.

Where it is asked for outside a terminal, in a log, it is a line every ten seconds.
"""

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from xlingjax import hosts

SECONDS_BEFORE_SHOWN = 2.0
SECONDS_BETWEEN_LINES = 10.0  # in a log


class _Lines(tqdm):
    """A bar that cannot be drawn over: each state of it is a line, the last one included."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.fp.write(f"{self}\n")
        self.fp.flush()


def progress(
    items: Iterable | None = None,
    *,
    total: float | None = None,
    initial: float = 0,
    label: str = "",
    unit: str = "it",
    show: bool | None = None,
) -> Any:
    """A bar around `items`, or one to move by hand with `bar.update(amount)`.

    Args:
        items: what to iterate over; None for a bar moved by hand (use it in a `with` statement).
        total: the amount that is the whole; left out where `items` has a length.
        initial: what of it was done before, by the run that is resumed.
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
    drawn = sys.stderr.isatty()
    return (tqdm if drawn else _Lines)(
        items,
        total=total,
        initial=initial,
        desc=label or None,
        unit=f" {unit}",
        unit_scale=True,
        disable=not (show and hosts.writes()),
        delay=SECONDS_BEFORE_SHOWN,
        mininterval=0.5 if drawn else SECONDS_BETWEEN_LINES,
        miniters=1,  # the clock alone decides, also where the pace changes
        leave=drawn,
        ncols=None if drawn else 100,
        dynamic_ncols=drawn,
        file=sys.stderr,
    )
