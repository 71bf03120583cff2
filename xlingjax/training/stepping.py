"""Steps taken one after another: the device works on one while the next is made, a signal saves before it ends."""

from typing import Any, Protocol

from xlingjax.progress import progress
from xlingjax.training.interruption import Interruption


class Steps(Protocol):
    """A run whose steps `take_steps` takes; it holds its own state."""

    def over(self) -> bool:
        """Whether no further step is wanted."""

    def take(self, step: int) -> Any:
        """Starts a step and returns what tells how it went, unread."""

    def settle(self, step: int, made: Any) -> str:
        """Waits for what `take` returned, ends the run where it diverged, and says what the bar shows."""

    def due(self, step: int) -> bool:
        """Whether a step leaves something on disk."""

    def keep(self, step: int, stopping: bool) -> None:
        """Writes what is due at a step; where the run is stopping, its state in any case."""


def take_steps(run: Steps, done: int, steps: int, *, label: str, show: bool | None) -> None:
    """Takes the steps after `done`, up to `steps`.

    A step is settled only when the next one has been started, or where it is to be kept. SIGTERM and SIGINT end the
    run after the step under way has been kept.

    Args:
        label, show: of the progress bar; see `progress`.

    Raises:
        KeyboardInterrupt, SystemExit: a signal came.
    """
    with Interruption() as interruption, progress(
        total=steps, initial=done, label=label, unit="steps", show=show,
    ) as bar:
        running = None
        for step in range(done + 1, steps + 1):
            if run.over():
                break
            made = run.take(step)
            said = "" if running is None else run.settle(*running)
            running = (step, made)
            stopping = bool(interruption.signal)
            if run.due(step) or stopping:
                said = run.settle(*running)
                running = None
                run.keep(step, stopping)
            if stopping:
                interruption.leave(step)
            if said:
                bar.set_postfix_str(said, refresh=False)
            bar.update()
