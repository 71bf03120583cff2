"""Models: one transformer for every family, and the taps that read and change it."""

from xlingjax.models.config import TransformerConfig
from xlingjax.models.loading import load_model, save_model
from xlingjax.models.model import Model, Output
from xlingjax.models.taps import Edit, Splice
from xlingjax.models.transformer import forward, init_params, unembed

__all__ = [
    "Edit", "Model", "Output", "Splice", "TransformerConfig", "forward", "init_params", "load_model",
    "save_model", "unembed",
]  # fmt: skip
