"""One run on several hosts: each runs the same program on its part of the mesh, the first one writes.

Hosts are the processes of `jax.distributed`. Everything that decides what is computed must be the same on
all of them, or they wait for each other for ever; so what only the first can know (what is finished on disk)
is asked by `agreed`, and what it writes is read after `first_does`, where all hosts meet. Without
`start` there is one host, and all of this is nothing.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from xlingjax.errors import InputError

JOIN = 300  # seconds that hosts wait for each other at the start
MEET = 3600  # and later, where the first may be writing or the slowest still analysing


def start(coordinator: str, process: str | None = None, wait: int = JOIN) -> None:
    """Joins this host to the others; before anything else touches a device.

    Args:
        coordinator: address:port of the first host; or "auto" on Cloud TPU VMs, under SLURM and where
            else JAX finds out by itself.
        process: "i/n", this is host i of n, counted from 1; None with "auto".
        wait: seconds until all must have joined.

    Raises:
        InputError: the arguments do not fit. A host that never joins ends the others with one line and
            exit code 1 (JAX's own end would be an abort without a word).
    """
    number, _, count = (process or "").partition("/")
    if coordinator == "auto":
        if process is not None:
            raise InputError(f"process {process!r} is given with coordinator auto, which finds it; leave it out")
        options: dict[str, Any] = {}
    elif not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise InputError(f"process is {process!r}; give i/n with 1 <= i <= n, which host this is of how many")
    elif not coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"coordinator is {coordinator!r}; give address:port of the first host, or auto")
    else:
        options = {"coordinator_address": coordinator, "num_processes": int(count), "process_id": int(number) - 1}
    with _within(wait, f"not all hosts joined {coordinator} within {wait} s; see that each was started, "
                       "with the same address and count, and reaches the first"):
        try:
            jax.distributed.initialize(initialization_timeout=10 * wait + 60, **options)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"cannot join the hosts at {coordinator}: {error}") from error


def several() -> bool:
    """Whether there are other hosts."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def writes() -> bool:
    """Whether this host is the one that writes."""
    return not several() or jax.process_index() == 0


def agreed(value: Any) -> np.ndarray:
    """What the first host has for `value`, an array of the same shape and type on every host."""
    value = np.asarray(value)
    if not several():
        return value
    return np.asarray(multihost_utils.broadcast_one_to_all(value)).astype(value.dtype)


def first_does(what: str, act: Callable[[], Any]) -> None:
    """The first host acts while the others wait; if it fails, all of them end.

    Args:
        what: for the others' error.
        act: writes.
    """
    fault: BaseException | None = None
    if writes():
        try:
            act()
        except BaseException as error:
            if not several():
                raise
            fault = error
    with _within(MEET, f"the hosts did not meet within {MEET} s after: {what}"):
        fine = bool(agreed(fault is None))
    if fault is not None:
        raise fault
    if not fine:
        raise InputError(f"the first host could not go on ({what}); what it says is the reason")


def to_devices(arrays: Any, sharding: jax.sharding.Sharding) -> Any:
    """Arrays that every host has, each on the devices that hold a part of it."""
    if sharding.is_fully_addressable:
        return jax.device_put(arrays, sharding)
    return jax.tree.map(
        lambda array: jax.make_array_from_callback(array.shape, sharding, lambda part: array[part]), arrays)


def to_host(arrays: Any) -> Any:
    """Arrays of a mesh as NumPy arrays, whole, on every host."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(arrays)):
        return jax.device_get(arrays)
    return multihost_utils.process_allgather(arrays, tiled=True)


@contextlib.contextmanager
def _within(seconds: float, message: str) -> Iterator[None]:
    """Ends the process with one line if the body, which hangs in foreign code, takes longer."""
    over = threading.Event()

    def watch() -> None:
        if not over.wait(seconds):
            print(f"error: {message}", file=sys.stderr, flush=True)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
