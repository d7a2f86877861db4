"""safetensors as bytes: bfloat16 included, which `safetensors.numpy.load` lacks, and with the entries of its header."""

import json

import ml_dtypes
import numpy as np
import safetensors

DTYPES = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64), "I32": np.dtype(np.int32), "I16": np.dtype(np.int16), "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8), "BOOL": np.dtype(np.bool_),
}  # fmt: skip


def loads(data: bytes, source: str) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file. Raises ValueError naming `source` if it is damaged or holds an unknown dtype."""
    try:
        entries = safetensors.deserialize(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(
            f"{source} is damaged or not a safetensors file, its header and its length do not fit: fetch or make it again"
        ) from error
    if unknown := sorted({e["dtype"] for _, e in entries} - DTYPES.keys()):
        raise ValueError(f"{source} holds tensors of type {unknown[0]}, known are {sorted(DTYPES)}")
    return {name: np.frombuffer(e["data"], DTYPES[e["dtype"]]).reshape(e["shape"]) for name, e in entries}


def metadata(data: bytes) -> dict[str, str]:
    """The free entries of the header of a file that `loads` reads."""
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
