"""Many SAEs of one shape in one safetensors file, with a sha256 beside it: dictionaries kept along training."""

import json
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from saes.dictionary import ARCHITECTURES, Dictionary
from saes.formats.checks import active_features, as_float32, check_tensors, setting
from saes.formats.configuration import read_weights
from storage import files

_LEAVES = ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D", "threshold_F", "r_mag_F", "b_mag_F")
_MORE = {"jumprelu": ("threshold_F",), "gated": ("r_mag_F", "b_mag_F")}
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
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: train again with --overwrite")
    tensors, header = read_weights(path, "train again with --overwrite", checksum_needed=True)
    try:
        static = json.loads(header.get("dictionary", "{}"))
    except ValueError as error:
        raise ValueError(f"{path}: not a file of stacked dictionaries") from error
    w_dec = tensors.get("w_dec_FD")
    if not isinstance(static, dict) or set(static) != set(_STATIC) or w_dec is None or w_dec.ndim != 3:
        raise ValueError(f"{path}: not a file of stacked dictionaries")
    architecture, subtract_b_dec = setting(path, static, "architecture", str), setting(path, static, "subtract_b_dec", bool)
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{path}: architecture={architecture[:80]!r}, one of {', '.join(ARCHITECTURES)}")
    s, f, d = w_dec.shape
    shapes = {"w_enc_DF": (s, d, f), "b_enc_F": (s, f), "w_dec_FD": (s, f, d), "b_dec_D": (s, d)}
    check_tensors(
        path, tensors, shapes | dict.fromkeys(_MORE.get(architecture, ()), (s, f)), not_finite=True
    )  # a seed that stood still may be
    k = active_features(path, static["k"], f) if architecture == "topk" else setting(path, static, "k", int)
    leaves: dict[str, Any] = {name: as_float32(tensor) for name, tensor in tensors.items()}
    return Dictionary(**leaves, architecture=architecture, k=k, subtract_b_dec=subtract_b_dec)
