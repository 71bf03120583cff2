"""The folder of a training run: what is written when, and how a broken run is picked up.

    run.json                what the run is; another experiment is refused
    checkpoints/<step>/     models that `load_model(workdir, revision="<step>")` reads
    metrics.jsonl           one line per report step
    state/<step>/           Orbax: parameters and optimiser state of the last saved step
    lock                    held by the one process that trains here

The state of a step is saved after everything else of that step, so whatever lies beyond the saved
step is unfinished: on resume it is removed and made again, to the same bytes.
"""

import contextlib
import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from xlingjax.errors import InputError
from xlingjax.files import differences, locked, write_whole
from xlingjax.models.loading import save_model
from xlingjax.models.model import Model
from xlingjax.models.weights import fingerprint_params


class RunFolder:
    """One training run on disk; a context manager that holds the lock."""

    def __init__(self, workdir: str | Path) -> None:
        self.path = Path(workdir).absolute()

    def __enter__(self) -> "RunFolder":
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(locked(self.path))
        self._states = ocp.CheckpointManager(
            self.path / "state",
            options=ocp.CheckpointManagerOptions(
                max_to_keep=1, enable_async_checkpointing=False, create=True
            ),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._states.close()
        self._lock.close()

    # -- what the run is

    def claim(self, about: dict[str, Any]) -> None:
        """Records what the run is, or refuses if the folder already is another run."""
        path = self.path / "run.json"
        about = json.loads(json.dumps(about))
        if not path.exists():
            with self._writing("run.json"):
                write_whole(path, json.dumps(about, indent=1, sort_keys=True).encode())
            return
        try:
            before = json.loads(path.read_text())
        except ValueError:
            raise InputError(f"{path} is not readable; choose another workdir") from None
        changed = differences(before, about)
        if changed:
            raise InputError(
                f"{self.path} holds another experiment: {'; '.join(changed)}; "
                f"use those settings to resume it, or choose another workdir"
            )

    # -- training state

    def saved_step(self) -> int | None:
        """The step training resumes from; None if nothing is saved."""
        return self._states.latest_step()

    def save_state(self, step: int, state: dict, pending: Any) -> None:
        """Saves a step's state, last of all that is written for the step; `pending` is JSON values."""
        about = {"digest": fingerprint_params(state), "pending": pending}
        with self._writing(f"the state of step {step}"):
            self._states.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about)
                ),
                force=True,
            )

    def load_state(self, target: dict) -> tuple[dict, Any]:
        """The saved state, checked against its digest, and what was pending (losses since the last report)."""
        step = self.saved_step()
        folder = self.path / "state" / str(step)
        broken = InputError(
            f"the training state {folder} is damaged; delete {self.path / 'state'} to train from "
            "the start"
        )
        try:
            found = self._states.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target), about=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:  # Orbax raises whatever its layers raise
            raise broken from error
        if fingerprint_params(found.state) != found.about["digest"]:
            raise broken
        return found.state, found.about["pending"]

    def forget_after(self, step: int | None) -> None:
        """Removes what lies beyond the saved step: unfinished, and made again."""
        for folder in self._checkpoint_folders():
            if not folder.name.isdigit() or step is None or int(folder.name) > step:
                shutil.rmtree(folder)
        lines = [line for line in self.metrics() if step is not None and line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_whole(self.path / "metrics.jsonl", text.encode())

    # -- model checkpoints and metrics

    def save_checkpoint(self, step: int, model: Model) -> None:
        """Writes a model checkpoint; its folder gets its name when complete."""
        with self._writing(f"the checkpoint of step {step}"):
            save_model(model, self.path / "checkpoints" / str(step))

    def checkpoints(self) -> dict[int, Path]:
        """Step -> folder of each model checkpoint, in order of steps."""
        steps = sorted(
            int(folder.name) for folder in self._checkpoint_folders() if folder.name.isdigit()
        )
        return {step: self.path / "checkpoints" / str(step) for step in steps}

    def report(self, line: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl."""
        with self._writing("metrics.jsonl"), open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a half-written last line is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        text = path.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def _checkpoint_folders(self) -> list[Path]:
        folder = self.path / "checkpoints"
        return [entry for entry in folder.iterdir() if entry.is_dir()] if folder.exists() else []

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """A full disk is the user's to clear: everything saved before stays good."""
        try:
            yield
        except Exception as error:
            if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
                raise InputError(
                    f"the disk of {self.path} is full, {what} could not be written; free some "
                    "space and run the same command again, it resumes from the last saved step"
                ) from error
            raise
