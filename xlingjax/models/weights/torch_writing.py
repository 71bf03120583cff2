"""Tensors as the file that `torch.save` writes of a state dict, without torch.

The archive holds a pickle of names, shapes and places, put together here instruction by instruction, and the bytes of
each tensor. `torch.load(path, weights_only=True)` and `open_torch` read it.
"""

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from xlingjax.errors import InputError

STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}
EMPTY = b"ccollections\nOrderedDict\n)R"  # an OrderedDict of nothing
WRITTEN = (1980, 1, 1, 0, 0, 0)  # of every member, so that equal tensors give equal bytes


def torch_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The content of a torch file with these tensors, in their order.

    Raises:
        InputError: a type that torch has not.

    >>> torch_bytes({"bias": np.zeros(3, np.float32)})[:2]
    b'PK'
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        def add(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", WRITTEN), data)

        add("data.pkl", _pickle(tensors))
        add("byteorder", b"little")
        for key, tensor in enumerate(tensors.values()):
            add(f"data/{key}", np.ascontiguousarray(tensor).astype(tensor.dtype.newbyteorder("<")).tobytes())
        add("version", b"3\n")
    return out.getvalue()


def _pickle(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Protocol 2: {name: _rebuild_tensor_v2(storage, 0, shape, strides, requires_grad=False, {})}."""
    parts = [b"\x80\x02", EMPTY, b"("]
    for key, (name, tensor) in enumerate(tensors.items()):
        if tensor.dtype.name not in STORAGES:
            raise InputError(f"tensor {name!r} is of type {tensor.dtype}; a torch file takes {', '.join(STORAGES)}")
        strides = [int(np.prod(tensor.shape[axis + 1:], dtype=np.int64)) for axis in range(tensor.ndim)]
        storage = b"".join((
            b"(", _text("storage"), f"ctorch\n{STORAGES[tensor.dtype.name]}\n".encode(), _text(str(key)), _text("cpu"),
            _whole(tensor.size), b"tQ"))
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(", storage, _whole(0), _tuple(tensor.shape),
                  _tuple(strides), b"\x89", EMPTY, b"tR"]
    return b"".join([*parts, b"u."])


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _whole(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _tuple(values: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(_whole(int(value)) for value in values) + b"t"
