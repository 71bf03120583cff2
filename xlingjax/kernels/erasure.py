"""Least-squares concept erasure: the smallest affine change after which no linear probe finds a label."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from xlingjax.errors import InputError


class Eraser(NamedTuple):
    """`x - ((x - mean) @ read) @ write`: r directions are read and taken out.

    Attributes:
        read: [D, r]. write: [r, D]. mean: [D].
    """

    read: np.ndarray
    write: np.ndarray
    mean: np.ndarray

    @property
    def rank(self) -> int:
        """r: one less than the classes, or C, where features suffice."""
        return self.read.shape[1]


def fit_eraser(
    x: Float[np.ndarray, "S D"], y: Int[np.ndarray, "S"] | Float[np.ndarray, "S C"],
    weight: Float[np.ndarray, "S"] | None = None, shrinkage: float = 0.0,
) -> Eraser:
    """LEACE: `x - W^+ P W (x - mean)` (Belrose et al. 2023, equation 1).

    W is the whitening (Sigma_xx^(1/2))^+ and P the orthogonal projection onto the columns of W Sigma_xz, z the label, a
    class as a one-hot vector. Afterwards features and label have covariance 0, so no linear predictor beats a constant
    on this sample under this weight. Among all affine maps that do so it moves the sample least.

    Args:
        x: features. y: class of each sample, from 0; or C numbers, all of which are erased.
        weight: how much each sample counts; 1 by default.
        shrinkage: share of the identity, scaled to the same trace, in Sigma_xx. Erasure stays exact, only "least"
            changes; for fewer samples than a few D, whose covariance is poorly known.

    Raises:
        InputError: one class only, or a share outside [0, 1].

    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 500)
    >>> x = rng.standard_normal((500, 3)) + 2.0 * y[:, None]
    >>> clean = erase(x, fit_eraser(x, y))
    >>> bool(np.allclose(clean[y == 0].mean(0), clean[y == 1].mean(0)))
    True
    """
    if not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage is {shrinkage}; give a share from 0 to 1")
    counts = np.ones(len(x)) if weight is None else np.asarray(weight, float)
    classes = np.unique(y[counts > 0], axis=0)
    if len(classes) < 2:
        raise InputError(f"{len(classes)} class has samples with weight; erasing needs two")
    share = counts / counts.sum()
    features, label = np.asarray(x, float), y if y.ndim == 2 else (y[:, None] == classes).astype(float)
    mean = share @ features
    centred, labels = features - mean, label - share @ label
    covariance = centred.T @ (centred * share[:, None])
    size = np.trace(covariance) / len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * size * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * np.finfo(float).eps
    root = np.sqrt(np.where(kept, values, 1))
    whiten = (vectors * np.where(kept, 1 / root, 0)) @ vectors.T
    colour = (vectors * np.where(kept, root, 0)) @ vectors.T
    left, strength, _ = np.linalg.svd(whiten @ (centred.T @ (labels * share[:, None])), full_matrices=False)
    left = left[:, strength > 1e-9]
    return Eraser(whiten @ left, left.T @ colour, mean)


def erase(x: Float[np.ndarray, "*batch D"], eraser: Eraser) -> Float[np.ndarray, "*batch D"]:
    """Features after the change."""
    return x - ((x - eraser.mean) @ eraser.read) @ eraser.write
