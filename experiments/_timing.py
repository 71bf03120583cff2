"""Both sides of a comparison, timed in turns."""

import importlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import flags

FLAGS = flags.FLAGS  # --repeats, of `experiments.benchmark`


class Row(NamedTuple):
    work: str
    against: str
    ours: float
    theirs: float
    apart: str  # how far the results are from each other


def reference(module: str, extra: str = "test") -> Any | None:
    """A package that only the references need; None, said aloud, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        print(f"{module} is not installed: its rows are left out (pip install xlingjax[{extra}])")
        return None


def in_turns(*sides: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Median seconds and last result of each side; the first turn of ours is not counted."""
    sides[0]()
    seconds: list[list[float]] = [[] for _ in sides]
    results: list[Any] = [None] * len(sides)
    for _ in range(FLAGS.repeats):
        for number, side in enumerate(sides):
            begin = time.perf_counter()
            results[number] = side()
            seconds[number].append(time.perf_counter() - begin)
    return [(float(np.median(times)), result) for times, result in zip(seconds, results)]
