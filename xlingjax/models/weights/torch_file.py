"""One torch checkpoint file (`pytorch_model.bin`), read one tensor at a time without torch.

Two containers exist. Since torch 1.6 the file is a zip archive of uncompressed members: `data.pkl`
names the tensors, `data/KEY` holds the bytes of each storage, and every member has a checksum, so a
flipped byte is found. Before that it was a row of pickles followed by the storages, without
checksums. Tensors are views of the memory-mapped file.
"""

import io
import mmap
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xlingjax.errors import InputError
from xlingjax.models.weights.files import is_inside, require_file
from xlingjax.models.weights.torch_pickle import MAX_BYTES, Storage, TensorRecord, read_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LINK = 0o120000


class Extent(NamedTuple):
    """Where a storage lies in the file, in bytes, and its checksum where the container has one."""

    start: int
    size: int
    crc: int | None


@dataclass(frozen=True)
class TorchFile:
    """Tensors of one file; their places were checked against the file's size when it was opened."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]
    records: dict[str, TensorRecord] = field(repr=False)
    extents: dict[str, Extent] = field(repr=False)
    content: mmap.mmap = field(repr=False)
    checked: set[str] = field(repr=False, default_factory=set)

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`, in the type it has in the file: a read-only view of the mapped file.

        The checksum of its storage is verified the first time the storage is used.
        """
        record = self.records[name]
        key = record.storage.key
        start, size, crc = self.extents[key]
        if key not in self.checked and crc is not None:
            with memoryview(self.content) as whole, whole[start : start + size] as part:
                if zlib.crc32(part) != crc:
                    raise InputError(
                        f"{self.path} is damaged: the bytes of {name!r} do not match their "
                        "checksum; restore or download it again"
                    )
            self.checked.add(key)
        item = record.dtype.itemsize
        flat = np.frombuffer(self.content, record.dtype, size // item, start)
        strides = tuple(stride * item for stride in record.strides)
        return np.lib.stride_tricks.as_strided(
            flat[record.offset :], record.shape, strides, writeable=False
        )


def open_torch(path: Path) -> TorchFile:
    """Opens a zip or legacy torch file; whatever is wrong is an `InputError` with the path."""
    require_file(path)
    with path.open("rb") as handle:
        content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    read = _read_zip if content[:2] == b"PK" else _read_legacy
    state, extents = read(path, content)
    if not isinstance(state, dict):
        raise InputError(
            f"{path} holds a {type(state).__name__}, not a dictionary of tensors; "
            "save the model's state_dict()"
        )
    for name, record in state.items():
        if not isinstance(name, str) or not isinstance(record, TensorRecord):
            raise InputError(
                f"{path} holds under {str(name)[:100]!r} something that is no tensor; "
                "save the model's state_dict() and nothing else"
            )
        _require_fits(path, name, record, extents)
    return TorchFile(
        path,
        {n: r.shape for n, r in state.items()},
        {n: r.dtype for n, r in state.items()},
        state,
        extents,
        content,
    )


def _read_zip(path: Path, content: mmap.mmap) -> tuple[object, dict[str, Extent]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
        raise _broken(path, error) from error
    found: dict[str, Extent] = {}
    for member in members:
        if not is_inside(member.filename) or (member.external_attr >> 16) & 0o170000 == LINK:
            raise InputError(
                f"{path} has a member {member.filename!r} that leads out of the archive; "
                "it may be hostile and was not loaded"
            )
        name = member.filename.partition("/")[2]  # below the archive's own folder
        if name in found:
            raise _broken(path, f"two members are called {name!r}")
        found[name] = _extent(path, content, member)
    if _member(content, found, "byteorder", path, b"little") != b"little":
        raise InputError(
            f"{path} was written on a big-endian machine, which is not supported; "
            "save it again on a little-endian one"
        )
    pickled = _member(content, found, "data.pkl", path)
    extents = {
        name.removeprefix("data/"): extent
        for name, extent in found.items()
        if name.startswith("data/")
    }
    return read_pickle(io.BytesIO(pickled), path), extents


def _extent(path: Path, content: mmap.mmap, member: zipfile.ZipInfo) -> Extent:
    header = content[member.header_offset : member.header_offset + 30]
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise _broken(path, f"the member {member.filename!r} is compressed or encrypted")
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise _broken(path, f"the member {member.filename!r} is not where the archive says")
    name_length, extra_length = (
        int.from_bytes(header[26:28], "little"),
        int.from_bytes(header[28:], "little"),
    )
    start = member.header_offset + 30 + name_length + extra_length
    if member.file_size != member.compress_size or start + member.file_size > len(content):
        raise _broken(path, f"the member {member.filename!r} is cut off")
    return Extent(start, member.file_size, member.CRC)


def _member(
    content: mmap.mmap,
    found: dict[str, Extent],
    name: str,
    path: Path,
    default: bytes | None = None,
) -> bytes:
    if name not in found:
        if default is None:
            raise _broken(path, f"{name} is missing")
        return default
    start, size, crc = found[name]
    if size > MAX_BYTES:
        raise _broken(path, f"{name} is longer than {MAX_BYTES} bytes")
    member = content[start : start + size]
    if zlib.crc32(member) != crc:
        raise _broken(path, f"{name} does not match its checksum")
    return member


def _read_legacy(path: Path, content: mmap.mmap) -> tuple[object, dict[str, Extent]]:
    content.seek(0)
    if read_pickle(content, path) != LEGACY_MAGIC:  # type: ignore[arg-type]  # mmap reads like a file
        raise _broken(path, "neither a zip archive nor torch's older format")
    read_pickle(content, path)  # type: ignore[arg-type]  # the version of the protocol
    machine = read_pickle(content, path)  # type: ignore[arg-type]
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise InputError(f"{path} was not written on a little-endian machine; save it again on one")
    state = read_pickle(content, path)  # type: ignore[arg-type]
    keys = read_pickle(content, path)  # type: ignore[arg-type]
    records = state.values() if isinstance(state, dict) else ()
    kinds = {r.storage.key: r.storage.dtype for r in records if isinstance(r, TensorRecord)}
    extents: dict[str, Extent] = {}
    for key in keys if isinstance(keys, list) else ():
        count = int.from_bytes(content.read(8), "little")
        start, size = content.tell(), count * kinds.get(str(key), np.dtype(np.uint8)).itemsize
        if start + size > len(content):
            raise _broken(path, f"the storage {key!r} is cut off")
        extents[str(key)] = Extent(start, size, None)
        content.seek(start + size)
    return state, extents


def _require_fits(path: Path, name: str, record: TensorRecord, extents: dict[str, Extent]) -> None:
    storage: Storage = record.storage
    if storage.key not in extents:
        raise _broken(path, f"the bytes of {name!r} are missing")
    count = extents[storage.key].size // record.dtype.itemsize
    elements, last = 1, record.offset
    for length, stride in zip(record.shape, record.strides):
        elements *= length
        last += (length - 1) * stride
    if len(record.shape) > 32 or elements and (last >= count or elements > count):
        raise _broken(
            path, f"{name!r} of shape {record.shape} does not fit its {count} stored numbers"
        )
    if not elements and record.offset > count:
        raise _broken(path, f"{name!r} starts behind its {count} stored numbers")


def _broken(path: Path, why: object) -> InputError:
    return InputError(
        f"{path} ({path.stat().st_size} bytes) is not a whole torch file ({why}); "
        "restore or download it again"
    )
