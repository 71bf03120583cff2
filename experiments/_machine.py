"""The machine that a table was measured on, as it stands beside the table."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import jax


def accelerator() -> bool:
    """Whether JAX computes on something else than the CPU; then arrays stay on it while they are timed."""
    return jax.default_backend() != "cpu"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """What the table was measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines()
                 if line.startswith("model name")]
        model = names[0] if names else model
    versions = []
    for name in ("jax", "numpy", "torch", "scikit-learn", "transformers"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} absent")
    return (f"{datetime.date.today()}, {cores()} cores of {model}, {jax.devices()[0].device_kind}, "
            f"Python {platform.python_version()}, {', '.join(versions)}")
