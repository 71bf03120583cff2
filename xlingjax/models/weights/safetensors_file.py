"""One `.safetensors` file, read one tensor at a time."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from xlingjax.errors import InputError
from xlingjax.models.weights.files import require_file

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class SafetensorsFile:
    """Tensors of one file; lengths, overlaps and holes were checked when it was opened."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]
    handle: Any = field(repr=False)

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`, in the type it has in the file; an array of its own."""
        try:
            return self.handle.get_tensor(name)
        except (SafetensorError, ValueError, OSError) as error:
            raise _unreadable(self.path, error) from error


def open_safetensors(path: Path) -> SafetensorsFile:
    """Opens a file and reads its header; every malformation is an `InputError` with the path."""
    require_file(path)
    shapes, dtypes = {}, {}
    try:
        handle = safe_open(path, framework="numpy")
        for name in handle.keys():
            tensor = handle.get_slice(name)
            shapes[name] = tuple(tensor.get_shape())
            kind = tensor.get_dtype()
            if kind not in DTYPES:
                raise InputError(
                    f"{path} holds {name!r} in the type {kind}, which is not supported; "
                    f"convert it to one of {', '.join(DTYPES)}"
                )
            dtypes[name] = np.dtype(DTYPES[kind])
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    return SafetensorsFile(path, shapes, dtypes, handle)


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file "
        f"({error}); restore or download it again"
    )
