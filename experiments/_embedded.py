"""The small model that experiments pre-train on the embedded corpus where no checkpoints are named."""

from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from xlingjax.analyses.sources import Source, sources
from xlingjax.corpora import Corpus, mini_world
from xlingjax.training.loop import pretrain
from xlingjax.training.settings import Settings
from xlingjax.training.shapes import small_config

UNSEEN = ("swh",)  # the language that pre-training never sees
CONFIG = small_config("bloom", 4, 64, 4, 512)


def pretrained(
    workdir: Path, say: Callable[[str], None], keep: Callable[[Sequence[int]], Sequence[int]],
    training: Corpus | None = None, unseen: Sequence[str] = UNSEEN,
) -> tuple[Source, ...]:
    """Pre-trains, or goes on, in `workdir`; the checkpoints whose steps `keep` chooses.

    Args:
        training: by default all languages of the embedded corpus, of which `unseen` are left out.
    """
    settings = Settings(steps=flags.FLAGS.pretrain_steps, rows=16, leave_out=tuple(unseen), seed=flags.FLAGS.seed)
    found = pretrain(mini_world("train") if training is None else training, CONFIG, settings, workdir / "pretrain",
                     family="bloom", show=say)
    steps = keep([one.step for one in found])
    return sources(str(workdir / "pretrain"), [str(step) for step in steps], tokens_per_step=settings.batch_tokens)
