"""Gemma Scope, read only: `params.npz` (1; Gemma 2) or `params.safetensors` with `config.json` (2; Gemma 3). JumpReLU whose encoder
sees the activations themselves, b_dec not subtracted (Lieberum et al. 2024)."""

from typing import Any

import numpy as np
from etils import epath

from saes.dictionary import Dictionary
from saes.formats.checks import as_float32, check_tensors, read_config
from storage import files
from storage.npz import read_npz
from storage.tensors import loads

NPZ = "params.npz"
SAFETENSORS = "params.safetensors"
_NAMES = {"w_enc": "w_enc_DF", "b_enc": "b_enc_F", "w_dec": "w_dec_FD", "b_dec": "b_dec_D", "threshold": "threshold_F"}


def load(folder: epath.PathLike) -> tuple[Dictionary, dict[str, Any]]:
    """Reads one SAE: (dictionary with NumPy leaves, its configuration; empty for Gemma Scope 1, which has none).

    Raises:
      FileNotFoundError: neither file is there.
      ValueError: damaged, cut or pickled members, tensors missing, unknown or of another shape, a transcoder, a crosscoder; names the file.
    """
    folder = epath.Path(folder)
    config: dict[str, Any] = {}
    if (folder / NPZ).exists():
        path = folder / NPZ
        found = read_npz(path)
        tensors = {name.lower(): a for name, a in found.items()}
        if len(tensors) < len(found):
            raise ValueError(f"{path}: members {sorted(found)} differ in capitals alone")
    elif (folder / SAFETENSORS).exists():
        path = folder / SAFETENSORS
        config = read_config(folder / "config.json", ("architecture",), "an SAE of Gemma Scope 2")
        for name, only in {"architecture": "jump_relu", "type": "sae", "affine_connection": False}.items():
            if config.get(name, only) != only:
                raise ValueError(f"{folder / 'config.json'}: {name}={config[name]!r} is not supported, only {only!r}")
        tensors = loads(files.checked_bytes(path, files.sha256_file(path), "fetch it again"), str(path))
    else:
        raise FileNotFoundError(f"neither {NPZ} nor {SAFETENSORS} in {folder}: not an SAE of Gemma Scope")
    if "w_enc" not in tensors or tensors["w_enc"].ndim != 2:
        raise ValueError(f"{path}: no matrix 'w_enc' among {sorted(tensors)}")
    d, f = tensors["w_enc"].shape
    check_tensors(path, tensors, {"w_enc": (d, f), "b_enc": (f,), "w_dec": (f, d), "b_dec": (d,), "threshold": (f,)})
    leaves: dict[str, Any] = {field: as_float32(np.asarray(tensors[name])) for name, field in _NAMES.items()}
    return Dictionary(**leaves, architecture="jumprelu", subtract_b_dec=False), config
