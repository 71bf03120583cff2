"""What a training of dictionaries will need, said before it starts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from xlingjax.responses.planning import device_bytes
from xlingjax.sae.settings import TrainSettings
from xlingjax.sae.stream import Stream


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """Size of a run; `str(plan)` is what the user reads.

    Attributes:
        runs: R. programs: compiled steps, one a kind.
        parameters: numbers in all dictionaries, padding included.
        state_bytes: on each device throughout: parameters, Adam's moments, ages of latents.
        temporary_bytes: at most used beside them in a step, as compiled; None = the compiler does not say.
        buffer_bytes, batch_bytes: activations held, and read by one step.
        disk_bytes: the training state twice (the last one is replaced, not overwritten), and the dictionaries.
        steps, tokens: in all; available: tokens before the stream repeats itself.
        buffers: how often the buffer is filled.
        step_seconds, buffer_seconds: measured: one step, and the first filling.
    """

    runs: int
    programs: int
    parameters: int
    state_bytes: int
    buffer_bytes: int
    batch_bytes: int
    disk_bytes: int
    steps: int
    tokens: int
    available: int
    buffers: int
    temporary_bytes: int | None = None
    step_seconds: float = 0.0
    buffer_seconds: float = 0.0

    @classmethod
    def of(
        cls, settings: TrainSettings, stream: Stream, groups: Sequence[Any], runs: int, on_disk: bool,
    ) -> "TrainPlan":
        """The plan of a run; `groups` with their states."""
        params = [group.state["params"] for group in groups]
        states = [group.state for group in groups]
        whole = sum(leaf.nbytes for leaf in jax.tree.leaves(states))
        own = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        return cls(
            runs=runs, programs=len(groups), parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
            state_bytes=device_bytes(states), buffer_bytes=stream.buffer_bytes,
            batch_bytes=stream.batch_tokens * stream.token_bytes, disk_bytes=(2 * whole + own) * on_disk,
            steps=settings.steps, tokens=settings.steps * stream.batch_tokens, available=stream.tokens,
            buffers=-(-settings.steps * stream.batch_tokens // stream.buffer_tokens))

    def __str__(self) -> str:
        seconds = self.steps * self.step_seconds + self.buffers * self.buffer_seconds
        return "\n".join([
            f"training   {self.runs} dictionaries of {self.parameters:,} parameters in {self.programs} compiled steps",
            f"tokens     {self.steps:,} steps = {self.tokens:,} tokens, {self.tokens / self.available:.1f} times the "
            f"{self.available:,} there are",
            f"memory     {_bytes(self.state_bytes)} throughout, "
            f"{'unknown' if self.temporary_bytes is None else _bytes(self.temporary_bytes)} temporary, a buffer of "
            f"{_bytes(self.buffer_bytes)}, {_bytes(self.batch_bytes)} a batch",
            f"disk       {_bytes(self.disk_bytes)}",
            f"time       about {seconds:,.0f} s: {self.step_seconds:.3g} s a step, {self.buffers:,} buffers of "
            f"{self.buffer_seconds:.3g} s"])


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"
