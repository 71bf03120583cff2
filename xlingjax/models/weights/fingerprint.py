"""What makes two checkpoints the same: their tensors, whatever file format they lie in."""

import hashlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def tensor_digest(array: np.ndarray) -> str:
    """sha256 (hex) of type, shape and values in row-major order."""
    if sys.byteorder != "little":
        raise NotImplementedError("fingerprints are defined on little-endian machines")
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def fingerprint(digests: Mapping[str, str]) -> str:
    """sha256 (hex) over the digests of named tensors, in any order.

    >>> fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    True
    >>> fingerprint({"a": "1", "b": "2"}) == fingerprint({"a": "2", "b": "1"})
    False
    """
    lines = "".join(f"{name}\n{digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def fingerprint_params(params: Any) -> str:
    """sha256 (hex) of parameters in our own layout; one leaf at a time is brought to the host."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return fingerprint({leaf_name(path): tensor_digest(np.asarray(leaf)) for path, leaf in leaves})


def leaf_name(path: tuple[Any, ...]) -> str:
    """A leaf's "/"-joined path, as the tables of the families write it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
