"""Checkpoints from outside: safe readers, strict loading, fingerprints. No file is run."""

from xlingjax.models.weights.checkpoint import Checkpoint, open_checkpoint
from xlingjax.models.weights.fingerprint import fingerprint_params
from xlingjax.models.weights.loading import LoadedParams, load_params

__all__ = ["Checkpoint", "LoadedParams", "fingerprint_params", "load_params", "open_checkpoint"]
