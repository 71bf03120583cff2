"""Responses on disk: for each site one TensorStore zarr3 array [L, S, F] in blocks of sentences.

One file (shard) holds one block of R sentences of one site, cut into chunks [1, R, units], so that
a block is written in one piece and a few neurons of all sentences are read without the others.
Chunks are stored as they are, each with a CRC-32C that every read checks. The S axis is in stored
order: the order in which batches are run. `Responses` restores the order of the corpus.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from xlingjax.errors import InputError
from xlingjax.responses.ledger import file_fault, sync_file

ARRAYS = "arrays"
MANIFEST = "manifest.json"  # written last: responses are finished exactly where it stands
BLOCK_BYTES = 2**27  # at most about this much host memory for the block being filled
BLOCK_SENTENCES = 1024  # at most so many sentences are redone after a kill
CHUNK_BYTES = 2**20  # the piece that reading a few neurons has to read


@dataclasses.dataclass(frozen=True)
class Layout:
    """How responses are cut into blocks and chunks.

    Attributes:
        shapes: site -> (layers, units per layer).
        sentences: S.
        block_sentences: R, the sentences of a block; the last block may hold fewer.
        dtype: "float32", or "int32" for token positions.
    """

    shapes: Mapping[str, tuple[int, int]]
    sentences: int
    block_sentences: int
    dtype: str = "float32"

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return -(-self.sentences // self.block_sentences)

    def rows(self, block: int) -> slice:
        """The stored rows of a block."""
        start = block * self.block_sentences
        return slice(start, min(start + self.block_sentences, self.sentences))

    def chunks(self, site: str) -> tuple[int, int]:
        """(units of a chunk, chunks beside each other) for one layer of a site."""
        units = self.shapes[site][1]
        pieces = min(units, -(-units * self.block_sentences * 4 // CHUNK_BYTES))
        width = -(-units // pieces)
        return width, -(-units // width)

    def shard_bytes(self, site: str) -> int:
        """The exact size of one file: each chunk with 4 bytes of CRC and 16 of index, and a CRC."""
        width, pieces = self.chunks(site)
        chunks = self.shapes[site][0] * pieces
        return chunks * (self.block_sentences * width * 4 + 4 + 16) + 4

    @property
    def disk_bytes(self) -> int:
        """The exact size of all response files; the records beside them come on top."""
        return self.blocks * sum(self.shard_bytes(site) for site in self.shapes)


def layout(
    shapes: Mapping[str, tuple[int, int]],
    sentences: int,
    dtype: str = "float32",
    block_sentences: int | None = None,
) -> Layout:
    """Blocks of equal size, small enough for host memory and for what a kill may cost.

    >>> layout({"mlp.up": (2, 64)}, sentences=1500).block_sentences
    750
    """
    if block_sentences is None:
        row_bytes = 4 * sum(layers * units for layers, units in shapes.values())
        block_sentences = max(1, min(BLOCK_BYTES // row_bytes, BLOCK_SENTENCES))
    blocks = -(-sentences // block_sentences)
    return Layout(dict(shapes), sentences, -(-sentences // blocks), dtype)


def shard_name(site: str, block: int) -> str:
    """The file of one block of a site, relative to the workdir."""
    return f"{ARRAYS}/{site}/c.0.{block}.0"


def metadata_name(site: str) -> str:
    """The file that describes a site's array, relative to the workdir."""
    return f"{ARRAYS}/{site}/zarr.json"


def open_arrays(workdir: Path, layout: Layout, create: bool = False) -> dict[str, Any]:
    """Site -> TensorStore [L, S, F] in stored order; with `create`, arrays not there yet are made.

    Raises:
        InputError: an array is missing, or is not of this layout, or cannot be made.
    """
    arrays = {}
    for site in layout.shapes:
        try:
            arrays[site] = ts.open(_spec(workdir, layout, site), open=True, create=create).result()
        except (ValueError, OSError) as error:
            raise InputError(
                f"{workdir / metadata_name(site)} cannot be used: {_reason(error)}; delete it and "
                "run collect again with the same workdir and settings"
            ) from error
    return arrays


def write_block(
    arrays: Mapping[str, Any],
    workdir: Path,
    layout: Layout,
    block: int,
    values: Mapping[str, np.ndarray],
) -> dict[str, list]:
    """Writes one block of every site and brings it to disk.

    Args:
        values: site -> [L, rows of the block, F].

    Returns:
        File name relative to the workdir -> [bytes, SHA-256].

    Raises:
        InputError: a file could not be written whole; nothing is recorded then.
    """
    rows = layout.rows(block)
    files: dict[str, list] = {}
    for site in layout.shapes:
        name = shard_name(site, block)
        try:
            arrays[site][:, rows, :].write(values[site]).result()
            size, digest = sync_file(workdir / name, workdir)
        except (ValueError, OSError) as error:
            raise InputError(
                f"cannot write {workdir / name}: {_reason(error)}; free some space there and run "
                "the same command again, it goes on after the last finished block"
            ) from error
        if size != layout.shard_bytes(site):
            raise InputError(
                f"{workdir / name} was written short: {size} of {layout.shard_bytes(site)} bytes; "
                "check the disk and run the same command again"
            )
        files[name] = [size, digest]
    return files


def remove_unrecorded(workdir: Path, recorded: Mapping[str, Any]) -> None:
    """Deletes response files of blocks that no ledger record vouches for (left by a kill)."""
    for path in (workdir / ARRAYS).glob("*/*"):
        name = path.relative_to(workdir).as_posix()
        if name not in recorded and path.name != "zarr.json":
            os.remove(path)


def read(array: Any, index: tuple, workdir: Path, files: Mapping[str, list]) -> np.ndarray:
    """Reads a part of a site's array; every chunk is checked against its CRC.

    Raises:
        InputError: a file is missing or damaged; it is named.
    """
    try:
        return array[index].read().result()
    except (ValueError, OSError) as error:
        for name, (size, digest) in files.items():
            fault = file_fault(workdir / name, size, digest)
            if fault:
                raise damaged_file(workdir / name, fault) from error
        raise InputError(f"responses in {workdir} cannot be read: {_reason(error)}") from error


def damaged_file(path: Path, fault: str) -> InputError:
    """The error for a response file that is not what was written."""
    return InputError(
        f"{path} {fault}; restore it, or delete manifest.json and run collect again with the "
        "same workdir and settings: only its block is redone"
    )


def _reason(error: Exception) -> str:
    """The first line of an error without its source position."""
    return str(error).splitlines()[0].split(" [")[0] if str(error) else type(error).__name__


def _spec(workdir: Path, layout: Layout, site: str) -> dict[str, Any]:
    layers, units = layout.shapes[site]
    width, pieces = layout.chunks(site)
    rows = layout.block_sentences
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    checked = [little, {"name": "crc32c"}]
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{workdir / ARRAYS / site}/"},
        # A missing file is an error, never fill values; a block of NaN is stored like any other.
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,
        # `write_block` brings files to disk itself, with their folders.
        "context": {"file_io_sync": False},
        "metadata": {
            "shape": [layers, layout.sentences, units],
            "data_type": layout.dtype,
            "fill_value": "NaN" if layout.dtype == "float32" else -1,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [layers, rows, width * pieces]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": [1, rows, width],
                        "codecs": checked,
                        "index_codecs": checked,
                        "index_location": "end",
                    },
                }
            ],
        },
    }
