"""A signal to end, noted: the step under way is finished and saved first."""

import signal
import threading
from typing import Any


class Interruption:
    """Notes SIGTERM and SIGINT, so that the step under way can be saved; the second one ends at
    once."""

    def __enter__(self) -> "Interruption":
        self.signal = 0
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self.signal = number
        signal.signal(number, self._before[number])

    def leave(self, step: int) -> None:
        """Ends the run as the signal asked, once its step is saved."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt(f"saved at step {step}")
        if self.signal:
            raise SystemExit(128 + self.signal)
