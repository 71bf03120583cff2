"""What each latent does for a probe at the dictionary's own layer: exact, without a gradient.

A word's state is `x = sum_f latent_f d_f + bias + error`, means over its tokens like everything linear, so the probe's
logit `w . x + b` falls by exactly `latent_f (w . d_f)` when latent f is set to zero. For what lies behind further
layers see `downstream`.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float


class Effects(NamedTuple):
    """Of each latent on the logit of one probe, in nats.

    Attributes:
        contrast: mean effect on words with the value minus mean effect on words without. Contrasts of all latents
            add up to what the dictionary explains of the distance between the two sides' mean logits, so a latent
            that is active on all words alike has none, however large its effect; and one that is active on the
            other side and speaks against the value has as much as one that speaks for it.
        evidence: the contrast of latents that speak for the value and are more active with it; minus the contrast of
            those that speak against it and are more active without; 0 for latents that mislead. So what is evidence
            for one of two values is evidence against the other.
        mean: over words with the value, as Brinkmann et al. 2025 rank latents. It also grows with what a latent adds
            to every word.
    """

    contrast: np.ndarray
    evidence: np.ndarray
    mean: np.ndarray


def word_effects(
    latents: scipy.sparse.csr_matrix, w: Float[np.ndarray, "D+1"], directions: Float[np.ndarray, "M D"],
) -> scipy.sparse.csr_matrix:
    """[n, M]: by how much the logit of each word falls without each latent.

    >>> f = scipy.sparse.csr_matrix(np.array([[2.0, 0.0], [0.0, 1.0]]))
    >>> word_effects(f, np.array([3.0, 1.0, 0.5]), np.array([[1.0, 0.0], [0.0, 1.0]])).toarray().tolist()
    [[6.0, 0.0], [0.0, 1.0]]
    """
    return latents.multiply((directions.astype(float) @ w[:-1])[None]).tocsr()


def probe_effects(
    latents: scipy.sparse.csr_matrix, has: Bool[np.ndarray, "n"], w: Float[np.ndarray, "D+1"],
    directions: Float[np.ndarray, "M D"],
) -> Effects:
    """The effects of all latents on one probe, over words with and without the value.

    >>> f = scipy.sparse.csr_matrix(np.array([[2.0, 1.0], [0.0, 1.0]]))
    >>> found = probe_effects(f, np.array([True, False]), np.array([3.0, 1.0, 0.5]), np.eye(2))
    >>> found.contrast.tolist(), found.evidence.tolist(), found.mean.tolist()
    ([6.0, 0.0], [6.0, 0.0], [6.0, 1.0])
    """
    slope = directions.astype(float) @ w[:-1]
    on, off = (np.asarray(latents[side].mean(0), float).reshape(-1) for side in (has, ~has))
    contrast = slope * (on - off)
    return Effects(contrast, np.sign(slope) * np.maximum(contrast, 0), slope * on)
