"""Tensors of a safetensors file on disk as memory maps: rows are read when they are asked for."""

import json
import math
import os

import numpy as np

from storage.tensors import DTYPES


def memory_map(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read-only maps of all tensors. Raises ValueError naming a file that is no safetensors file, or shorter than its header says."""
    size = os.path.getsize(path)
    try:
        with open(path, "rb") as f:
            length = int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(length) if length < size else b"")
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            first, last = (8 + length + offset for offset in entry["data_offsets"])
            dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
            if last > size or last - first != dtype.itemsize * math.prod(shape):
                raise ValueError(f"tensor {name!r} reaches beyond its place")
            # A map cannot be of length 0.
            tensors[name] = np.memmap(path, dtype, "r", first, shape) if math.prod(shape) else np.empty(shape, dtype)
        return tensors
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}): fetch or make it again") from error
