"""PyTorch state dicts without PyTorch and without unpickling: tensors by name out of a `.pt` file.

A `.pt` file is a zip of a pickle, which says how tensors lie in raw storages, and the storages.  Unpickling it would run whatever it
says.  Here its opcodes are read as data by a small stack machine that knows dictionaries, tuples, numbers, strings and the one
call that stands for a tensor; at any other opcode or name it stops.
"""

import io
import math
import pickletools
import struct
import zipfile
import zlib
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
# What a damaged zip, an odd pickle or a tensor that does not fit its storage makes the code below raise.
_DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OverflowError, EOFError,
    zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip


class _Name(NamedTuple):
    """A global of the pickle: its name, never the thing."""

    name: str


class _Tensor(NamedTuple):
    dtype: Any
    key: str
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
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            pickled = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
            if len(pickled) != 1:
                raise ValueError("no data.pkl in it: older than PyTorch 1.6, or not a state dict")
            root = pickled[0].removesuffix("data.pkl")
            found = _interpret(archive.read(pickled[0]))
            if not isinstance(found, dict) or not all(isinstance(name, str) and isinstance(t, _Tensor) for name, t in found.items()):
                raise ValueError("it holds other things than tensors by name")
            return {name: _materialise(archive, root, t) for name, t in found.items()}
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged or not a plain state dict ({error}): fetch it again, or save its weights alone") from error


def _materialise(archive: zipfile.ZipFile, root: str, t: _Tensor) -> np.ndarray:
    storage = np.frombuffer(archive.read(f"{root}data/{t.key}"), t.dtype)
    last = t.offset + sum((n - 1) * step for n, step in zip(t.shape, t.stride, strict=True))
    if min((t.offset, *t.shape, *t.stride), default=0) < 0 or (0 not in t.shape and last >= len(storage)):
        raise ValueError(f"a tensor of shape {t.shape} reaches beyond its storage of {len(storage)} numbers")
    if math.prod([*t.shape]) > len(storage):
        raise ValueError(f"a tensor of shape {t.shape} repeats its storage of {len(storage)} numbers")
    view = np.lib.stride_tricks.as_strided(storage[t.offset :], t.shape, [s * storage.itemsize for s in t.stride])
    return np.ascontiguousarray(view).reshape(t.shape)


def _interpret(data: bytes) -> Any:
    """The value that the pickle describes, tensors as `_Tensor`. Raises ValueError at anything that is not known to be harmless."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        place = len(stack) - 1 - stack[::-1].index(_MARK)
        items = stack[place + 1 :]
        del stack[place:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
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
                stack[-2:] = [_Name(f"{stack[-2]} {stack[-1]}")]
            case "BINPERSID":
                stack[-1] = _storage(stack[-1])
            case "REDUCE":
                stack[-2:] = [_call(stack[-2], stack[-1])]
            case "SETITEM":
                stack[-3][stack[-2]] = stack[-1]
                del stack[-2:]
            case "SETITEMS":
                items = to_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BUILD":  # attributes of an OrderedDict: PyTorch's `_metadata`, of no use here
                stack.pop()
            case "STOP":
                return stack.pop()
            case other:
                raise ValueError(f"its pickle does {other}, which no state dict needs")
    raise ValueError("its pickle does not end")


def _storage(identity: Any) -> tuple[Any, str]:
    kind, storage, key, *_ = identity
    if kind != "storage" or not isinstance(storage, _Name) or storage.name not in _STORAGES:
        raise ValueError(f"it holds a storage of kind {storage!r}")
    return _STORAGES[storage.name], key


def _call(function: Any, arguments: tuple[Any, ...]) -> Any:
    name = function.name if isinstance(function, _Name) else None
    if name == _DICT and arguments == ():
        return {}
    if name == _TENSOR:
        (dtype, key), offset, shape, stride, *_ = arguments
        return _Tensor(dtype, key, offset, shape, stride)
    raise ValueError(f"it calls {name!r}, which no state dict needs")
