"""Every tolerance of the tests, in one place: how far a result may lie from its reference."""

import os

import jax
import numpy as np

PARITY = {"float32": 5e-5, "float64": 1e-9}  # forward pass against Hugging Face, at every site
KERNEL = {"float32": 2e-6, "float64": 1e-12}  # host against compiled, batched against one by one
_OPTIMISED = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "0") == "0"
# The same sums; an accelerator, and a program without optimisations, order them anew.
TWO_PROGRAMS = 0 if jax.default_backend() == "cpu" and _OPTIMISED else 2e-5
GRADIENT = 2e-4  # of the largest entry: a sequence's gradient in a padded batch against it alone, in float32
BATCHING = 1e-5  # one sentence alone against the same sentence in a padded batch


def close(ours, theirs, tolerance: float, what: str = "") -> None:
    """Raises unless shapes and NaN agree and no value differs by more than `tolerance`."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape} against {theirs.shape}"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, equal_nan=True, err_msg=what)
