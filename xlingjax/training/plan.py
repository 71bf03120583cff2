"""What a training run will need, said before it starts."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from xlingjax.errors import InputError
from xlingjax.training.settings import Settings, checkpoint_steps
from xlingjax.training.streams import Held, Stream


@dataclasses.dataclass(frozen=True)
class Plan:
    """Size of a run; `str(plan)` is what the user reads.

    Attributes:
        parameters: numbers in the model, token embeddings included.
        embedding: of them, token embeddings.
        tokens: processed in all.
        available: tokens of training text, all languages.
        shares: language -> share of the rows.
        unseen: languages evaluated but not trained on.
        state_bytes: on the device throughout: parameters and the optimiser's two moments.
        temporary_bytes: on the device during a step, as compiled.
        checkpoints: steps whose model is kept.
        disk_bytes: checkpoints, and the training state twice (the last one is replaced, not
        overwritten).
    """

    parameters: int
    embedding: int
    tokens: int
    batch: tuple[int, int]
    steps: int
    available: int
    shares: dict[str, float]
    unseen: tuple[str, ...]
    state_bytes: int
    temporary_bytes: int
    checkpoints: tuple[int, ...]
    disk_bytes: int

    @classmethod
    def of(
        cls, settings: Settings, stream: Stream, held: Held, state: Any, compiled: Any
    ) -> "Plan":
        """The plan of a run with abstract state `state` and compiled step `compiled`."""

        def size(tree: Any) -> int:
            return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

        memory = compiled.memory_analysis()
        steps = checkpoint_steps(settings.steps, settings.checkpoint_every)
        return cls(
            parameters=sum(leaf.size for leaf in jax.tree.leaves(state["params"])),
            embedding=state["params"]["embed"]["tokens"]["embedding"].size,
            tokens=settings.steps * settings.batch_tokens,
            batch=(settings.rows, settings.length),
            steps=settings.steps,
            available=stream.available,
            shares=dict(zip(stream.languages, np.round(stream.shares, 4).tolist())),
            unseen=tuple(name for name in held.languages if name not in stream.languages),
            state_bytes=size(state),
            temporary_bytes=int(memory.temp_size_in_bytes) if memory else 0,
            checkpoints=tuple(steps),
            disk_bytes=len(steps) * size(state["params"]) + 2 * size(state),
        )

    def check_disk(self, folder: Path) -> None:
        """Refuses before anything is written where the disk cannot hold the run."""
        written = sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
        free = shutil.disk_usage(folder).free
        if self.disk_bytes - written > free:
            raise InputError(
                f"the run needs {_bytes(self.disk_bytes - written)} on disk and {folder} has "
                f"{_bytes(free)} "
                f"free; free some space or keep fewer checkpoints"
            )

    def __str__(self) -> str:
        languages = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        unseen = f"; never seen: {', '.join(self.unseen)}" if self.unseen else ""
        rows, length = self.batch
        steps = ", ".join(map(str, self.checkpoints[:16]))
        more = ", ..." if len(self.checkpoints) > 16 else ""
        lines = [
            f"model      {self.parameters:,} parameters, "
            f"{self.embedding:,} of them token embeddings",
            f"training   {self.steps:,} steps of {rows} x {length} tokens = {self.tokens:,} "
            f"tokens, {self.tokens / self.available:.1f} times the {self.available:,} of the text",
            f"languages  {languages}{unseen}",
            f"memory     {_bytes(self.state_bytes)} throughout and "
            f"{_bytes(self.temporary_bytes)} in a step",
            f"disk       {_bytes(self.disk_bytes)}, "
            f"{len(self.checkpoints)} checkpoints at steps {steps}{more}",
        ]
        return "\n".join(lines)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
