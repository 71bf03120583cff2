"""What every layout's reader shares: settings and tensors of which nothing is silently ignored."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from xlingjax.errors import InputError
from xlingjax.models.weights.checkpoint import TensorFile
from xlingjax.sae.coder import Params
from xlingjax.sae.config import DictionaryConfig
from xlingjax.sae.files.places import Place

OURS = "xlingjax"  # under which name our own entry lies in another toolkit's settings
FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Found:
    """What a layout's reader makes of a folder.

    Args:
        place: where it reads, None where the file's name for it is no site of ours; named: that name.
        target: where a transcoder writes; writes: whether it is one.
        waits: activations have to be multiplied by a number that the file does not hold.
    """

    params: Params = dataclasses.field(repr=False)
    config: DictionaryConfig
    place: Place | None = None
    named: str = ""
    target: Place | None = None
    writes: bool = False
    model: str = ""
    waits: bool = False


class Settings:
    """A JSON object of settings, read strictly."""

    def __init__(self, values: Mapping[str, Any], path: Path):
        self.values, self.path = values, path

    def whole(self, *names: str, default: int | None = None) -> int:
        """A whole number of at least 0 under the first of these names that is there."""
        value = self._first(names, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.refused(names[0], value, "a whole number")
        return value

    def text(self, *names: str, default: str | None = None) -> str:
        value = self._first(names, default)
        if not isinstance(value, str):
            raise self.refused(names[0], value, "a name")
        return value

    def flag(self, *names: str, default: bool | None = None) -> bool:
        value = self._first(names, default)
        if not isinstance(value, bool):
            raise self.refused(names[0], value, "true or false")
        return value

    def wholes(self, name: str) -> tuple[int, ...]:
        value = self._first((name,), None)
        if not isinstance(value, list) or any(isinstance(one, bool) or not isinstance(one, int) for one in value):
            raise self.refused(name, value, "a list of whole numbers")
        return tuple(value)

    def inside(self, name: str, optional: bool = False) -> "Settings":
        """The object under a name."""
        value = self._first((name,), {} if optional else None)
        if not isinstance(value, dict):
            raise self.refused(name, value, "an object")
        return Settings(value, self.path)

    def refuse(self, name: str, *harmless: Any) -> None:
        """`InputError` where an option is set that changes what the dictionary does and that we do not honour."""
        value = self.values.get(name)
        if value is not None and value is not False and value not in harmless:
            raise InputError(f"option {name} in {self.path} is {value!r}, which is not supported" + (
                f"; only {' and '.join(repr(one) for one in harmless)} can be read" if harmless
                else "; use a dictionary without it"))

    def refused(self, name: str, value: Any, wanted: str) -> InputError:
        return InputError(f"{name} in {self.path} is {value!r}; it must be {wanted}")

    def _first(self, names: tuple[str, ...], default: Any) -> Any:
        for name in names:
            if self.values.get(name) is not None:
                return self.values[name]
        if default is None:
            raise InputError(f"{self.path} lacks {names[0]}; take the file that belongs to the weights")
        return default


class Tensors:
    """The tensors of a file, each of the shape that the settings say, none left over."""

    def __init__(self, file: TensorFile, settings: Path):
        self.file, self.settings, self.left = file, settings, set(file.shapes)

    def take(self, name: str, *shape: int) -> Float[np.ndarray, "..."]:
        """A tensor as float32."""
        values = self._read(name, shape)
        if values.dtype.name not in FLOATS:
            raise InputError(f"{self.file.path} holds {name!r} in the type {values.dtype}; it must be a float")
        values = np.array(values, np.float32)
        wrong = int((~np.isfinite(values)).sum())
        if wrong:
            raise InputError(f"{self.file.path} holds {wrong} values of {name!r} that are NaN or infinite; restore or "
                             "download it again")
        return values

    def wholes(self, name: str, *shape: int) -> np.ndarray:
        """A tensor of whole numbers."""
        values = self._read(name, shape)
        if values.dtype.kind not in "iu":
            raise InputError(f"{self.file.path} holds {name!r} in the type {values.dtype}; it must be whole numbers")
        return np.array(values, np.int64)

    def length(self, name: str) -> int:
        """Of the first axis of a tensor."""
        self._require(name)
        shape = self.file.shapes[name]
        if len(shape) != 1:
            raise InputError(f"{self.file.path} holds {name!r} of shape {list(shape)}; it must have one axis")
        return shape[0]

    def finish(self) -> None:
        """`InputError` where a tensor is left that the settings do not explain."""
        if self.left:
            raise InputError(
                f"{self.file.path} holds {', '.join(map(repr, sorted(self.left)))}, which a dictionary as "
                f"{self.settings.name} describes it has not; take the two files that belong together")

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def _require(self, name: str) -> None:
        if name not in self.file.shapes:
            raise InputError(f"{self.file.path} lacks the tensor {name!r}, which a dictionary as {self.settings.name} "
                             "describes it has; take the two files that belong together")

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        self._require(name)
        if self.file.shapes[name] != shape:
            raise InputError(
                f"{self.file.path} holds {name!r} of shape {list(self.file.shapes[name])}, and by {self.settings.name} "
                f"it is {list(shape)}; take the two files that belong together")
        self.left.discard(name)
        return self.file.read(name)
