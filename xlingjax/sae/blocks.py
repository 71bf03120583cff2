"""Activations on disk: the buffers of a stream as blocks, written once, read one at a time.

    settings.json        whose activations these are; another experiment is refused
    blocks/000000.bin    one buffer: the inputs [A, K, D], then the targets [A, K, E], float32
    ledger/000000.json   bytes and SHA-256 of a finished block
    manifest.json        written last: the folder is finished exactly where it stands
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from xlingjax import hosts
from xlingjax.errors import InputError
from xlingjax.files import claim, write_whole
from xlingjax.progress import progress
from xlingjax.responses.ledger import block_record, file_fault, finished_blocks, read_record, write_record
from xlingjax.responses.planning import check_room
from xlingjax.sae.stream import Buffer, Stream

MANIFEST = "manifest.json"


def write_activations(
    stream: Stream, folder: str | Path, tokens: int | None = None, *, show: bool | None = None,
) -> "StoredStream":
    """Writes the first buffers of a stream to disk, from where training reads them as often as it likes.

    Killed anywhere and called again with the same arguments, it goes on after the last finished block and ends with
    the same bytes.

    Args:
        stream: say, an `ActivationStream`.
        folder: of one experiment.
        tokens: at least so many; by default what the stream has before it repeats itself, less what would not fill
            a block.
        show: see `progress`.

    Raises:
        InputError: the disk has no room for them, the folder holds another experiment or is in use, a finished block
            is damaged, an activation is not finite.
    """
    folder = Path(folder)
    blocks = max(1, stream.tokens // stream.buffer_tokens) if tokens is None else -(-tokens // stream.buffer_tokens)
    about = {**stream.identity(), "model_name": stream.model, "fingerprint": stream.fingerprint, "blocks": blocks,
             "width": stream.width, "out": stream.out}
    with claim(folder, about, "activations"):
        done = finished_blocks(folder, blocks)
        for block, record in done.items():
            _require(folder, block, record["bytes"], record["sha256"])
        check_room(folder, (blocks - len(done)) * stream.buffer_bytes)
        with progress(total=blocks, initial=len(done), label="write activations", unit="blocks", show=show) as bar:
            for block in range(blocks):
                if block in done:
                    continue
                parts = [np.ascontiguousarray(hosts.to_host(part), "<f4")
                         for part in stream.buffer(block) if part is not None]
                data = parts[0] if len(parts) == 1 else np.concatenate([part.reshape(-1) for part in parts])
                raw = data.tobytes()
                write_whole(_path(folder, block), raw)
                record = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
                write_record(block_record(folder, block), record)
                done[block] = record
                bar.update()
        write_record(folder / MANIFEST, {
            "about": about, "blocks": [[done[block]["bytes"], done[block]["sha256"]] for block in range(blocks)]})
    return read_activations(folder, batch_tokens=stream.batch_tokens, seed=stream.seed)


def read_activations(folder: str | Path, *, batch_tokens: int | None = None, seed: int | None = None) -> "StoredStream":
    """The stream of what `write_activations` wrote.

    Args:
        batch_tokens, seed: of a batch and of the order; by default those it was written with. With these the first
            blocks are served as the written stream served them.

    Raises:
        InputError: the folder is not finished, or its manifest is damaged.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise InputError(f"{folder / MANIFEST} is missing, so the activations there are not finished; run "
                         "write_activations with the same folder to its end")
    return StoredStream(folder, read_record(folder / MANIFEST), batch_tokens, seed)


class StoredStream(Stream):
    """A stream of blocks on disk; one block is in memory. After the last one they come again, in another order."""

    def __init__(
        self, folder: Path, manifest: Mapping[str, Any], batch_tokens: int | None = None, seed: int | None = None,
    ) -> None:
        about, self._blocks, self._folder = manifest["about"], manifest["blocks"], folder
        self._about, self._block_tokens = about, about["buffer_tokens"]
        self.model, self.fingerprint = about["model_name"], about["fingerprint"]
        named = lambda places: None if places is None else [(site, layer) for site, layer in places]
        batch_tokens = about["batch_tokens"] if batch_tokens is None else batch_tokens
        if batch_tokens > self._block_tokens:
            raise InputError(f"a batch of {batch_tokens} tokens exceeds a block of {self._block_tokens} in {folder}; "
                             "give a smaller batch or write larger buffers")
        super().__init__(named(about["places"]) or [], named(about["targets"]), about["width"], about["out"],
                         batch_tokens, self._block_tokens, len(self._blocks) * self._block_tokens,
                         about["seed"] if seed is None else seed)

    def identity(self) -> Mapping[str, Any]:
        """See `Stream`."""
        return {**super().identity(), "written": {**self._about, "digests": [digest for _, digest in self._blocks]}}

    def buffer(self, number: int) -> Buffer:
        """See `Stream`; `InputError` names a block that is missing or damaged."""
        turn, block = divmod(number, len(self._blocks))
        if turn:
            block = int(np.random.default_rng([self.seed, 2, turn]).permutation(len(self._blocks))[block])
        path = _path(self._folder, block)
        _require(self._folder, block, *self._blocks[block])
        values = np.fromfile(path, "<f4")
        count = len(self.places)
        split = count * self._block_tokens * self.width
        x = values[:split].reshape(count, self._block_tokens, self.width)
        if self.targets is None:
            return x, None
        return x, values[split:].reshape(count, self._block_tokens, self.out)

    def order(self, number: int) -> Int[np.ndarray, "K"]:
        """See `Stream`; a batch that does not divide a block leaves out other tokens each time."""
        return np.random.default_rng([self.seed, 1, number]).permutation(self._block_tokens)[:self.buffer_tokens]


def _path(folder: Path, block: int) -> Path:
    return folder / "blocks" / f"{block:06d}.bin"


def _require(folder: Path, block: int, size: int, digest: str) -> None:
    fault = file_fault(_path(folder, block), size, digest)
    if fault:
        raise InputError(
            f"{_path(folder, block)} {fault}; restore it, or delete {block_record(folder, block)} and {MANIFEST} and "
            "run write_activations again with the same folder and settings: only its block is redone")
