"""Tensors of a safetensors file on disk as views of one memory map: rows are read when they are asked for."""

import json
import math
import os

import numpy as np

from storage.tensors import DTYPES


def memory_map(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read-only views of all tensors. Raises ValueError naming a file that is no safetensors file, or shorter than its header says."""
    try:
        if not os.path.getsize(path):
            raise ValueError("it is empty")
        whole = np.memmap(path, np.uint8, "r")
        length = int.from_bytes(whole[:8].tobytes(), "little")
        header = json.loads(whole[8 : 8 + length].tobytes() if 8 + length <= len(whole) else b"")
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            if entry["dtype"] not in DTYPES:
                raise ValueError(f"tensor {name!r} is of type {str(entry['dtype'])[:40]}, known are {', '.join(DTYPES)}")
            if not all(type(n) is int and n >= 0 for n in entry["shape"]):
                raise ValueError(f"tensor {name!r} has the shape {str(entry['shape'])[:40]}")
            dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
            if not 8 + length <= first <= last <= len(whole) or last - first != dtype.itemsize * math.prod(shape):
                raise ValueError(f"tensor {name!r} reaches beyond its place")
            tensors[name] = whole[first:last].view(dtype).reshape(shape)
        return tensors
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = str(error) if type(error) is ValueError else "its header is no list of tensors"
        raise ValueError(f"{path} is damaged or not a safetensors file that can be read ({why}): fetch or make it again") from error
