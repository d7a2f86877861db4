"""Finished parts of a stage that has not ended: kept in files, so that a stage that was killed goes on behind them.

A part is a value of arrays, numbers, strings, None, and tuples, lists, dicts, and our NamedTuples and dataclasses of these. A file that is damaged is made again.
"""

import dataclasses
import hashlib
import importlib
import io
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from etils import epath

from storage import files

P = TypeVar("P")
FOLDER = "parts"
_NAME = re.compile(r"[\w.-]*-[0-9a-f]{8}\.part")
_OURS = ("activations.", "experiments.", "interpret.", "saes.", "stability.", "synthetic.")


def load_or_make(folder: epath.Path, key: str, make: Callable[[], P]) -> P:
    """The value of a part: read, if it is there and whole, or else made and written. The same either way: arrays are NumPy's.

    Args:
      key: a name of its own among the parts.
    """
    name = re.sub(r"[^\w.-]", "_", key)
    path = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.part"
    stored = _decoded(path.read_bytes()) if path.exists() else None
    if stored is None:
        data = _encoded(make())
        files.write_bytes(path, data)
        stored = _decoded(data)
    assert stored is not None
    value: P = stored[0]
    return value


def remove(folder: epath.Path) -> None:
    """Removes the parts below a stage's folder, when it is complete."""
    parts = folder / FOLDER
    if parts.is_dir():
        for path in parts.glob("*.part"):
            if _NAME.fullmatch(path.name):
                path.unlink()
        if not any(True for _ in parts.iterdir()):
            parts.rmdir()


def _encoded(value: Any) -> bytes:
    """sha256 of the rest, a line with the structure, arrays as npz."""
    arrays: list[np.ndarray] = []
    structure = json.dumps(_skeleton(value, arrays))
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    body = structure.encode() + b"\n" + buffer.getvalue()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _decoded(data: bytes) -> tuple[Any] | None:
    """The value, in a tuple; None where the file is damaged, or of classes that are no more."""
    checksum, _, body = data.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        return None
    structure, _, packed = body.partition(b"\n")
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            return (_value(json.loads(structure), arrays),)
    except (AttributeError, ImportError, TypeError):  # of an older version, whose classes have other names or fields
        return None


def _skeleton(value: Any, arrays: list[np.ndarray]) -> Any:
    """JSON in which every array is a number: its place in `arrays`."""
    inner = lambda v: _skeleton(v, arrays)
    if value is None or isinstance(value, bool | str):
        return {"plain": value}
    if isinstance(value, int | float) and not isinstance(value, np.generic):
        return {"plain": value}  # json writes and reads every float as it is, NaN too
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"named": _ours(value), "of": [inner(v) for v in value]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"data": _ours(value), "of": {f.name: inner(getattr(value, f.name)) for f in dataclasses.fields(value)}}
    if isinstance(value, tuple | list):
        return {"tuple" if isinstance(value, tuple) else "list": [inner(v) for v in value]}
    if isinstance(value, dict):
        return {"dict": [[inner(k), inner(v)] for k, v in value.items()]}
    array = np.asarray(value)
    if array.dtype.kind in "OV":  # npz keeps neither, of bfloat16 the bytes alone
        raise TypeError(f"no part can hold a {type(value).__name__}")
    arrays.append(array)
    return {"scalar" if isinstance(value, np.generic) else "array": len(arrays) - 1}


def _ours(value: Any) -> str:
    """Where the class of a value is found again. Raises TypeError for one that is none of ours."""
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    if not name.startswith(_OURS):
        raise TypeError(f"no part can hold a {name}")
    return name


def _value(skeleton: Any, arrays: Any) -> Any:
    (kind, content), *more = skeleton.items()
    inner = lambda s: _value(s, arrays)
    if kind == "plain":
        return content
    if kind in ("named", "data"):
        module, _, name = content.partition(":")
        if not content.startswith(_OURS):
            raise ValueError(f"a part names {content!r}, which is none of ours")
        cls, items = getattr(importlib.import_module(module), name), dict(more)["of"]
        return cls(*map(inner, items)) if kind == "named" else cls(**{key: inner(s) for key, s in items.items()})
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(map(inner, content))
    if kind == "dict":
        return {inner(k): inner(v) for k, v in content}
    return arrays[f"arr_{content}"][()] if kind == "scalar" else arrays[f"arr_{content}"]
