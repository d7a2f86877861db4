"""SAELens ≥ 6: a folder with `cfg.json` and `sae_weights.safetensors`, ours with a sha256 beside the weights.

safetensors files load flipped bits in silence; where the checksum is there it is verified.
"""

import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from saes.dictionary import Dictionary

WEIGHTS = "sae_weights.safetensors"
CHECKSUM = WEIGHTS + ".sha256"
_TENSORS = {"W_enc": "w_enc_DF", "b_enc": "b_enc_F", "W_dec": "w_dec_FD", "b_dec": "b_dec_D"}


def save(folder: str | pathlib.Path, dictionary: Dictionary, metadata: dict[str, Any]) -> None:
    """Writes one SAE.

    Args:
      folder: made if it is not there.
      dictionary: of architecture topk, leaves without a seed axis.
      metadata: of SAELens' `metadata` (model_name, hook_name, …); `sae_lens_version` is set here.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(getattr(dictionary, field), np.float32) for name, field in _TENSORS.items()}
    data = safetensors.numpy.save(tensors)
    d_in, d_sae = tensors["W_enc"].shape
    config = {
        "architecture": dictionary.architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "k": dictionary.k,
        "rescale_acts_by_decoder_norm": False,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        # SAELens parses a folder whose version is below 6 as its legacy flat format.
        "metadata": metadata | {"sae_lens_version": "6.0.0"},
    }
    (folder / WEIGHTS).write_bytes(data)
    (folder / CHECKSUM).write_text(f"{hashlib.sha256(data).hexdigest()}  {WEIGHTS}\n")
    (folder / "cfg.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load(folder: str | pathlib.Path) -> tuple[Dictionary, dict[str, Any]]:
    """Reads one SAE: (dictionary with NumPy leaves, its metadata).

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: damaged or truncated weights, missing or extra tensors, a shape that does not fit, values that are not
        finite, or settings that `Dictionary` does not have; names the file.
    """
    folder = pathlib.Path(folder)
    for name in ("cfg.json", WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {name} in {folder}: not an SAE in SAELens' format")
    try:
        config = json.loads((folder / "cfg.json").read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'cfg.json'} is damaged: not JSON ({error})") from error
    data = (folder / WEIGHTS).read_bytes()
    if (folder / CHECKSUM).is_file() and (folder / CHECKSUM).read_text().split()[:1] != [hashlib.sha256(data).hexdigest()]:
        raise ValueError(f"{folder / WEIGHTS} does not match its sha256: damaged, write or fetch it again")
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged or not a safetensors file ({error})") from error
    _check(folder, config, tensors)
    leaves = {field: np.asarray(tensors[name], np.float32) for name, field in _TENSORS.items()}
    return Dictionary(**leaves, architecture="topk", k=int(config["k"])), config.get("metadata", {})


def _check(folder: pathlib.Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    needed = {
        "architecture": "topk",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "rescale_acts_by_decoder_norm": False,
    }
    for name, value in needed.items():
        if config.get(name) != value:
            raise ValueError(f"{folder / 'cfg.json'}: {name}={config.get(name)!r} is not supported, only {value!r}")
    if tensors.keys() != _TENSORS.keys():
        odd = sorted(tensors.keys() ^ _TENSORS.keys())
        raise ValueError(f"{folder / WEIGHTS}: tensors {odd} are missing or unknown (a topk SAE has {sorted(_TENSORS)})")
    d, f = config["d_in"], config["d_sae"]
    shapes = {"W_enc": (d, f), "b_enc": (f,), "W_dec": (f, d), "b_dec": (d,)}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{folder / WEIGHTS}: {name} has shape {tensors[name].shape}, cfg.json says {shape}")
        if not np.isfinite(np.asarray(tensors[name], np.float32)).all():
            raise ValueError(f"{folder / WEIGHTS}: {name} holds NaN or infinity")
    if not 1 <= config.get("k", 0) <= f:
        raise ValueError(f"{folder / 'cfg.json'}: k={config.get('k')!r} must be between 1 and d_sae={f}")
