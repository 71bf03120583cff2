"""Pre-training (tokenizer, streams, objectives, the loop, its checkpoints) and `fit`, the loop for everything else."""

from xlingjax.training.fitting import FitSettings, Fitted, fit
from xlingjax.training.loop import Checkpoint, pretrain, read_metrics
from xlingjax.training.optimiser import OptimiserSettings
from xlingjax.training.settings import Settings, checkpoint_steps
from xlingjax.training.shapes import small_config
from xlingjax.training.tokenizer import train_tokenizer

__all__ = [
    "Checkpoint",
    "FitSettings",
    "Fitted",
    "OptimiserSettings",
    "Settings",
    "checkpoint_steps",
    "fit",
    "pretrain",
    "read_metrics",
    "small_config",
    "train_tokenizer",
]
