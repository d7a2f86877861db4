"""Many SAEs of one shape in one safetensors file, with a sha256 beside it: dictionaries kept along training."""

import hashlib
import json
import pathlib

import numpy as np
import safetensors
import safetensors.numpy

from saes.dictionary import Dictionary

_FIELDS = ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D")


def save(path: str | pathlib.Path, dictionaries: Dictionary) -> None:
    """Writes leaves with a leading seed axis."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(getattr(dictionaries, name), np.float32) for name in _FIELDS}
    # One entry: safetensors writes several in an order that differs from process to process.
    static = json.dumps({"architecture": dictionaries.architecture, "k": dictionaries.k})
    data = safetensors.numpy.save(tensors, metadata={"dictionary": static})
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(data)
    temporary.replace(path)
    path.with_name(path.name + ".sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")


def load(path: str | pathlib.Path) -> Dictionary:
    """Reads what `save` wrote, NumPy leaves.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file does not match its checksum, or is none of ours; names it.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no dictionaries at {path}")
    data = path.read_bytes()
    checksum = path.with_name(path.name + ".sha256")
    if not checksum.is_file() or checksum.read_text().split()[:1] != [hashlib.sha256(data).hexdigest()]:
        raise ValueError(f"{path} does not match its sha256: damaged, train again with --overwrite")
    with safetensors.safe_open(path, "np") as f:
        static = json.loads((f.metadata() or {}).get("dictionary", "{}"))
        leaves = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (no mapping)
    if sorted(leaves) != sorted(_FIELDS) or static.get("architecture") != "topk":
        raise ValueError(f"{path}: not a file of stacked topk dictionaries")
    return Dictionary(**leaves, architecture="topk", k=static["k"])
