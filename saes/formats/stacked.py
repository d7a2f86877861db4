"""Many SAEs of one shape in one safetensors file, with a sha256 beside it: dictionaries kept along training."""

import json
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from saes.dictionary import ARCHITECTURES, Dictionary
from storage import files, tensors

_LEAVES = ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D", "threshold_F", "r_mag_F", "b_mag_F")
_STATIC = ("architecture", "k", "subtract_b_dec")


def save(path: epath.PathLike, dictionaries: Dictionary) -> None:
    """Writes leaves with a leading seed axis."""
    present = {name: leaf for name in _LEAVES if (leaf := getattr(dictionaries, name)) is not None}
    leaves = {name: np.ascontiguousarray(leaf, np.float32) for name, leaf in present.items()}
    # One entry: safetensors writes several in an order that differs from process to process.
    static = json.dumps({name: getattr(dictionaries, name) for name in _STATIC})
    data = safetensors.numpy.save(leaves, metadata={"dictionary": static})
    files.write_with_sidecar(path, data)


def load(path: epath.PathLike) -> Dictionary:
    """Reads what `save` wrote, NumPy leaves.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file does not match its checksum or has none, or is none of ours; names it.
    """
    data = files.checked_bytes(path, files.sidecar_checksum(path) or "", "train again with --overwrite")
    leaves: dict[str, Any] = tensors.loads(data, str(path))
    static = json.loads(tensors.metadata(data).get("dictionary", "{}"))
    if set(leaves) - set(_LEAVES) or set(static) != set(_STATIC) or static["architecture"] not in ARCHITECTURES:
        raise ValueError(f"{path}: not a file of stacked dictionaries")
    return Dictionary(**leaves, **static)
