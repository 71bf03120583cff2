"""Both sides of a comparison, timed in turns."""

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments._machine import accelerator
from xlingjax.precision import full_precision

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


def torch_device(torch: Any) -> str | None:
    """Where torch works beside JAX: on the same GPU, or on the CPU; None, said aloud, where it cannot."""
    if torch is None:
        return None
    if not accelerator():
        return "cpu"
    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        return "cuda"
    print("this torch has no access to the accelerator that JAX uses: its rows are left out")
    return None


def matrix_rate(dtype: str) -> float:
    """Operations a second in a product of 8,192 x 8,192 random matrices, accumulated in float32."""
    x = jax.random.normal(jax.random.key(0), (8192, 8192), dtype)
    product = jax.jit(full_precision(lambda x: x @ x))
    product(x).block_until_ready()
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    return 2 * 8192**3 / float(np.median(seconds))


def settle(result: Any) -> None:
    """Returns when the accelerator has computed it, whoever uses it."""
    jax.block_until_ready(result)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def in_turns(*sides: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Median seconds and last result of each side; the first turn of ours is not counted, nor of torch on a GPU."""
    if accelerator():
        for side in sides[1:]:
            settle(side())
    settle(sides[0]())
    seconds: list[list[float]] = [[] for _ in sides]
    results: list[Any] = [None] * len(sides)
    for _ in range(FLAGS.repeats):
        for number, side in enumerate(sides):
            begin = time.perf_counter()
            results[number] = side()
            settle(results[number])
            seconds[number].append(time.perf_counter() - begin)
    return [(float(np.median(times)), result) for times, result in zip(seconds, results)]
