"""One look for every figure: a colour-blind-safe palette, axes with units, PNG bytes."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

# Okabe & Ito (2008), without yellow, which vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
NULL, CEILING, CHANCE = "#7F7F7F", "#000000", "#7F7F7F"
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"

_RC: dict[Any, Any] = {
    "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "legend.fontsize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "legend.frameon": False, "figure.dpi": 130, "savefig.dpi": 130, "lines.linewidth": 1.6,
    "lines.markersize": 4, "axes.prop_cycle": cycler(color=PALETTE),
    "font.family": ["DejaVu Sans"],
}


@contextmanager
def figure(columns: int = 1, rows: int = 1, *, width: float = 7.2, height: float = 3.2,
           sharey: bool = False) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure of `rows x columns` axes in the house style; axes come as an array of that shape."""
    with matplotlib.rc_context(_RC):
        canvas = Figure(figsize=(width, height * rows), layout="constrained")
        axes = canvas.subplots(rows, columns, squeeze=False, sharey=sharey)
        yield canvas, axes


@contextmanager
def panels(count: int, *, height: float = 3.2, sharey: bool = False
           ) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure of `count` panels, two a row, so that type stays readable; axes come as one list."""
    columns = min(count, 2)
    with figure(columns, -(-count // columns), width=8.6 if columns == 2 else 5.6, height=height,
                sharey=sharey) as (canvas, grid):
        for spare in grid.ravel()[count:]:
            spare.set_visible(False)
        yield canvas, grid.ravel()[:count]


def legend_below(canvas: Figure, axes: Axes, side: str = "left", columns: int = 2) -> None:
    """What the lines of some axes are, below the figure, where it hides none of them."""
    place: Literal["outside lower left", "outside lower right"] = (
        "outside lower left" if side == "left" else "outside lower right")
    canvas.legend(*axes.get_legend_handles_labels(), loc=place, ncols=columns, fontsize=8)


def share_axis(axes: Axes) -> None:
    """A vertical axis for shares from 0 to 1 that keeps a hundredth legible beside a half.

    Linear up to 0.01, logarithmic above: chance and overlap often lie where a ceiling would flatten them.
    """
    axes.set_yscale("symlog", linthresh=0.01, linscale=0.6)
    axes.set_ylim(0, 1)
    ticks = (0, 0.005, 0.01, 0.03, 0.1, 0.3, 1)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def heat(axes: Axes, values: np.ndarray, rows: list[str], columns: list[str], top: float,
         signed: bool = False) -> AxesImage:
    """A matrix from 0 (or, signed, -`top`) to `top`, its numbers written in; NaN stays blank."""
    image = axes.imshow(values, cmap=DIVERGING if signed else SEQUENTIAL, vmin=-top if signed else 0, vmax=top)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    digits = 3 if top < 0.1 else 2
    for (a, b), value in np.ndenumerate(values):
        if not np.isnan(value):
            dark = abs(value) > 0.6 * top if signed else value < 0.55 * top
            axes.text(b, a, f"{value:z.{digits}f}", ha="center", va="center", fontsize=7,
                      color="white" if dark else "black")
    return image


def png(canvas: Figure) -> bytes:
    """The figure as PNG bytes, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC):
        canvas.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def checkpoint_axis(axes: Axes, steps: np.ndarray,
                    label: str = "checkpoint (training steps)") -> np.ndarray:
    """Evenly spaced checkpoints, labelled by step; returns the x positions.

    Even spacing shows powers of two as a logarithmic axis does, and step 0 as well.
    """
    x = np.arange(len(steps))
    every = max(1, int(np.ceil(len(steps) / 10)))
    ticks = sorted(set(range(0, len(steps), every)) | {len(steps) - 1})
    turned: dict[str, Any] = {"rotation": 40, "ha": "right"} if len(steps) > 7 else {}
    axes.set_xticks(ticks, [str(steps[i]) for i in ticks], **turned)
    axes.set_xlabel(label)
    return x
