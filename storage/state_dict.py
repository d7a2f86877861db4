"""PyTorch state dicts without PyTorch and without unpickling: tensors by name out of a `.pt` file.

A `.pt` file is a zip of a pickle, which says how tensors lie in raw storages, and the storages.  Unpickling it would run whatever it
says.  Here its opcodes are read as data by a small stack machine that knows dictionaries, tuples, numbers, strings and the one
call that stands for a tensor; at any other opcode or name it stops.  Nothing of the file is compressed, as PyTorch writes it, so it
cannot ask for more memory than its own length times a small number; foreign values are never printed, hashed or compared in depth.
"""

import io
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from etils import epath

_STORAGES = {
    "torch FloatStorage": np.float32, "torch DoubleStorage": np.float64, "torch HalfStorage": np.float16,
    "torch BFloat16Storage": ml_dtypes.bfloat16, "torch LongStorage": np.int64, "torch IntStorage": np.int32,
    "torch BoolStorage": np.bool_,
}  # fmt: skip
_TENSOR = "torch._utils _rebuild_tensor_v2"
_DICT = "collections OrderedDict"
_MARK = object()
MAX_PICKLE = 1 << 22  # bytes of the description; that of a model with 10,000 tensors is shorter
# What a damaged zip, an odd pickle or a tensor that does not fit its storage makes the code below raise.
_DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OverflowError, EOFError, MemoryError, StopIteration,
    zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip


class _Name(NamedTuple):
    """A global of the pickle: its name, never the thing."""

    name: str


class _Storage(NamedTuple):
    dtype: Any
    key: str


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_state_dict(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Tensors by name.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no state dict, damaged, or a file that asks for anything but tensors; names the file.
    """
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: a file is wanted there")
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
                raise ValueError("it holds compressed members, PyTorch writes none")
            if sum(info.file_size for info in members.values()) > len(data):
                raise ValueError("its members claim more than the file holds")
            pickled = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
            if len(pickled) != 1:
                raise ValueError("no data.pkl in it: older than PyTorch 1.6, or not a state dict")
            if members[pickled[0]].file_size > MAX_PICKLE:
                raise ValueError(f"its description is longer than {MAX_PICKLE} bytes")
            root = pickled[0].removesuffix("data.pkl")
            found = _interpret(archive.read(pickled[0]))
            if type(found) is not dict or not all(type(t) is _Tensor for t in found.values()):
                raise ValueError("it holds other things than tensors by name")
            keys = {t.storage.key for t in found.values()}
            raw = {key: archive.read(f"{root}data/{key}") for key in keys}
            return {name: _materialise(raw[t.storage.key], t) for name, t in found.items()}
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is damaged or not a plain state dict ({_reason(error)}): fetch it again, or save its weights alone"
        ) from error


def _reason(error: Exception) -> str:
    """What this code said, or one sentence for all that libraries say of a damaged file."""
    return str(error) if type(error) is ValueError else "its description does not hold together"


def _materialise(raw: bytes, t: _Tensor) -> np.ndarray:
    if len(raw) % np.dtype(t.storage.dtype).itemsize:
        raise ValueError("a storage of it is cut")
    storage = np.frombuffer(raw, t.storage.dtype)
    last = t.offset + sum((n - 1) * step for n, step in zip(t.shape, t.stride, strict=True))
    size = math.prod([*t.shape])
    if min((t.offset, *t.shape, *t.stride), default=0) < 0 or (size and last >= len(storage)) or size > len(storage):
        raise ValueError(f"a tensor of shape {t.shape} does not fit its storage of {len(storage)} numbers")
    view = np.lib.stride_tricks.as_strided(storage[t.offset :], t.shape, [s * storage.itemsize for s in t.stride])
    return view.copy()


def _interpret(data: bytes) -> Any:
    """The value that the pickle describes, tensors as `_Tensor`. Raises ValueError at anything that is not known to be harmless."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        place = next(i for i in range(len(stack) - 1, -1, -1) if stack[i] is _MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    def put(target: Any, names: list[Any], values: list[Any]) -> None:
        if type(target) is not dict or any(type(name) is not str for name in names):
            raise ValueError("it holds a dictionary whose keys are no names")
        target.update(zip(names, values, strict=True))

    argument: Any
    for opcode, argument in _opcodes(data):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE":
                stack.append(tuple(to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "GLOBAL":
                stack.append(_Name(argument))
            case "STACK_GLOBAL":
                if type(stack[-2]) is not str or type(stack[-1]) is not str:
                    raise ValueError("it names something by what is no name")
                stack[-2:] = [_Name(f"{stack[-2]} {stack[-1]}")]
            case "BINPERSID":
                stack[-1] = _storage(stack[-1])
            case "REDUCE":
                stack[-2:] = [_call(stack[-2], stack[-1])]
            case "SETITEM":
                put(stack[-3], [stack[-2]], [stack[-1]])
                del stack[-2:]
            case "SETITEMS":
                items = to_mark()
                put(stack[-1], items[::2], items[1::2])
            case "BUILD":  # attributes of an OrderedDict: PyTorch's `_metadata`, of no use here
                stack.pop()
            case "STOP":
                return stack.pop()
            case other:
                raise ValueError(f"its pickle does {other}, which no state dict needs")
    raise ValueError("its pickle does not end")


def _opcodes(data: bytes) -> Iterator[tuple[Any, Any]]:
    """Opcodes with their arguments. Raises ValueError where they end too soon or are none."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            yield opcode, argument
    except ValueError as error:
        raise ValueError("its pickle is cut, or holds what is no opcode") from error


def _storage(identity: Any) -> _Storage:
    kind, storage, key, *_ = identity
    if type(kind) is not str or kind != "storage" or type(storage) is not _Name or storage.name not in _STORAGES or type(key) is not str:
        raise ValueError("it holds a storage of an unknown kind")
    return _Storage(_STORAGES[storage.name], key)


def _call(function: Any, arguments: Any) -> Any:
    name = function.name if type(function) is _Name else "something without a name"
    if type(arguments) is tuple and name == _DICT and len(arguments) == 0:
        return {}
    if type(arguments) is tuple and name == _TENSOR:
        storage, offset, shape, stride, *_ = arguments
        numbers = [offset, *shape, *stride]
        if type(storage) is _Storage and type(shape) is type(stride) is tuple and all(type(n) is int for n in numbers):
            return _Tensor(storage, offset, shape, stride)
    raise ValueError(f"it calls {name[:80]}, which no state dict needs")
