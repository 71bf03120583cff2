"""The pickle inside a torch checkpoint, read as data.

Python's unpickler calls whatever a file names. This reader is a small machine of its own: it knows
the opcodes that `torch.save` writes for a dictionary of tensors, builds nothing but dictionaries,
lists, tuples, numbers and strings, and never imports or calls what the file names. The few names it
accepts stand for functions below; any other is an `InputError` before anything happens.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import ml_dtypes
import numpy as np

from xlingjax.errors import InputError

STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
}
GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): "dict",
    ("torch._utils", "_rebuild_tensor"): "tensor",
    ("torch._utils", "_rebuild_tensor_v2"): "tensor",
    ("torch._utils", "_rebuild_tensor_v3"): "typed tensor",
    ("torch._utils", "_rebuild_parameter"): "parameter",
    ("torch.storage", "UntypedStorage"): np.dtype(np.uint8),
    **{("torch", name): np.dtype(kind) for name, kind in STORAGES.items()},
    **{("torch", name): np.dtype(kind) for name, kind in DTYPES.items()},
}
MARK = object()
BY_CODE = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
MAX_BYTES = 2**26  # a tensor takes about 170 bytes, so 400,000 tensors


@dataclass(frozen=True)
class Named:
    """A name of the allow-list that stands on the stack; it is never called."""

    meaning: Any


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file: its key, and its type as the pickle gives it."""

    key: str
    dtype: np.dtype


@dataclass(frozen=True)
class TensorRecord:
    """Where a tensor lies in its storage; offset and strides count elements of `dtype`."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickle(stream: IO[bytes], path: object) -> Any:
    """The next object of `stream`, which is left after it.

    Tensors come back as `TensorRecord`. `path` is what error messages call the file. Raises
    `InputError` for a pickle that is broken, or that names anything outside the allow-list.
    """
    try:
        return _Machine(path).run(stream)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} holds no pickle that torch writes for a dictionary of tensors "
            f"({type(error).__name__}: {str(error)[:200]}); restore or download it again"
        ) from error


class _Machine:
    def __init__(self, path: object):
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: IO[bytes]) -> Any:
        start = stream.tell()
        while stream.tell() - start <= MAX_BYTES:
            opcode = BY_CODE[stream.read(1)]
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name not in OPCODES:
                raise InputError(
                    f"{self.path} uses the pickle instruction {opcode.name}, which no dictionary "
                    "of tensors needs; it may be hostile and was not loaded"
                )
            argument = opcode.arg.reader(stream) if opcode.arg else None
            OPCODES[opcode.name](self, argument)
        raise ValueError(f"longer than {MAX_BYTES} bytes")

    def until_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not MARK:  # an absent mark runs into IndexError
            start -= 1
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError("items set on something that is no dictionary")
        for key, value in zip(items[::2], items[1::2]):
            if not isinstance(key, (str, int)):  # hashing a nested tuple can take forever
                raise ValueError(f"a dictionary key of type {type(key).__name__}")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("items appended to something that is no list")
        self.stack[-1].extend(items)

    def name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a global whose name is no string")
        if (module, name) not in GLOBALS:
            raise InputError(
                f"{self.path} names {str(module)[:100]}.{str(name)[:100]}, which no "
                "dictionary of tensors needs; it may be hostile and was not loaded"
            )
        self.stack.append(Named(GLOBALS[module, name]))

    def storage(self) -> None:
        kind, named, key, _, size, *view = self.stack.pop()
        if (
            kind != "storage"
            or not isinstance(named.meaning, np.dtype)
            or any(v is not None for v in view)
        ):
            raise ValueError("a reference to something that is no storage")
        if not isinstance(key, str) or type(size) is not int:
            raise ValueError("a storage without key or size")
        self.stack.append(Storage(key, named.meaning))

    def reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if type(function) is not Named or type(arguments) is not tuple:
            raise ValueError("a call of something that has no name")
        if function.meaning == "dict" and arguments == ():
            self.stack.append({})
        elif function.meaning == "parameter" and isinstance(arguments[0], TensorRecord):
            self.stack.append(arguments[0])
        elif function.meaning == "tensor":
            self.stack.append(_tensor(arguments[:4], None))
        elif function.meaning == "typed tensor":
            self.stack.append(_tensor(arguments[:4], arguments[6].meaning))
        else:
            raise ValueError("a call that no dictionary of tensors needs")


def _tensor(place: tuple[Any, ...], dtype: np.dtype | None) -> TensorRecord:
    storage, offset, shape, strides = place
    if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
        raise ValueError("a tensor without storage, shape or strides")
    if any(type(number) is not int or number < 0 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor whose offset, shape or strides are not counts")
    if len(shape) != len(strides):
        raise ValueError("a tensor with more or fewer strides than axes")
    kind = storage.dtype if dtype is None else dtype
    if not isinstance(kind, np.dtype):
        raise ValueError("a tensor without a type")
    return TensorRecord(storage, kind, offset, shape, strides)


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


OPCODES: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": lambda m, a: m.stack.append(MARK),
    "NONE": _push,  # its argument is None
    "NEWTRUE": lambda m, a: m.stack.append(True),
    "NEWFALSE": lambda m, a: m.stack.append(False),
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"], _push),
    **dict.fromkeys(["SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"], _push),
    "EMPTY_DICT": lambda m, a: m.stack.append({}),
    "EMPTY_LIST": lambda m, a: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, a: m.stack.append(()),
    "TUPLE1": lambda m, a: m.tuple_of(1),
    "TUPLE2": lambda m, a: m.tuple_of(2),
    "TUPLE3": lambda m, a: m.tuple_of(3),
    "TUPLE": lambda m, a: m.stack.append(tuple(m.until_mark())),
    "SETITEM": lambda m, a: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, a: m.set_items(m.until_mark()),
    "APPEND": lambda m, a: m.append([m.stack.pop()]),
    "APPENDS": lambda m, a: m.append(m.until_mark()),
    **dict.fromkeys(["BINPUT", "LONG_BINPUT"], lambda m, a: m.memo.update({a: m.stack[-1]})),
    "MEMOIZE": lambda m, a: m.memo.update({len(m.memo): m.stack[-1]}),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], lambda m, a: m.stack.append(m.memo[a])),
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.name(m.stack.pop(-2), m.stack.pop()),
    "BINPERSID": lambda m, a: m.storage(),
    "REDUCE": lambda m, a: m.reduce(),
    "BUILD": lambda m, a: (
        m.stack.pop()
    ),  # the version numbers that a state dict carries as attributes
}
