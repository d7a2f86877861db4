"""Many SAEs of one shape in one safetensors file, with a sha256 beside it: dictionaries kept along training."""

import json

import numpy as np
import safetensors.numpy
from etils import epath

from saes.dictionary import Dictionary
from storage import files, tensors

_FIELDS = ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D")


def save(path: epath.PathLike, dictionaries: Dictionary) -> None:
    """Writes leaves with a leading seed axis."""
    leaves = {name: np.ascontiguousarray(getattr(dictionaries, name), np.float32) for name in _FIELDS}
    # One entry: safetensors writes several in an order that differs from process to process.
    static = json.dumps({"architecture": dictionaries.architecture, "k": dictionaries.k})
    data = safetensors.numpy.save(leaves, metadata={"dictionary": static})
    files.write_with_sidecar(path, data)


def load(path: epath.PathLike) -> Dictionary:
    """Reads what `save` wrote, NumPy leaves.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file does not match its checksum or has none, or is none of ours; names it.
    """
    data = files.checked_bytes(path, files.sidecar_checksum(path) or "", "train again with --overwrite")
    leaves = tensors.loads(data, str(path))
    static = json.loads(tensors.metadata(data).get("dictionary", "{}"))
    if sorted(leaves) != sorted(_FIELDS) or static.get("architecture") != "topk":
        raise ValueError(f"{path}: not a file of stacked topk dictionaries")
    return Dictionary(**leaves, architecture="topk", k=static["k"])
