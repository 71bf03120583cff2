"""Pre-training: tokenizer, streams, objectives, the loop, and its checkpoints."""

from xlingjax.training.loop import Checkpoint, pretrain, read_metrics
from xlingjax.training.optimiser import OptimiserSettings
from xlingjax.training.settings import Settings, checkpoint_steps
from xlingjax.training.shapes import small_config
from xlingjax.training.tokenizer import train_tokenizer

__all__ = [
    "Checkpoint",
    "OptimiserSettings",
    "Settings",
    "checkpoint_steps",
    "pretrain",
    "read_metrics",
    "small_config",
    "train_tokenizer",
]
