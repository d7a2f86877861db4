"""SAELens ≥ 6: a folder with `cfg.json` and `sae_weights.safetensors`, ours with a sha256 beside the weights.

safetensors files load flipped bits in silence; where the checksum is there it is verified.
"""

from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from saes.dictionary import Dictionary
from storage import files
from storage.tensors import loads

WEIGHTS = "sae_weights.safetensors"
CHECKSUM = WEIGHTS + ".sha256"
_TENSORS = {"W_enc": "w_enc_DF", "b_enc": "b_enc_F", "W_dec": "w_dec_FD", "b_dec": "b_dec_D"}


def save(folder: epath.PathLike, dictionary: Dictionary, metadata: dict[str, Any]) -> None:
    """Writes one SAE.

    Args:
      folder: made if it is not there.
      dictionary: of architecture topk, leaves without a seed axis.
      metadata: of SAELens' `metadata` (model_name, hook_name, …); `sae_lens_version` is set here.
    """
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
    files.write_with_sidecar(epath.Path(folder) / WEIGHTS, data)
    files.write_json(epath.Path(folder) / "cfg.json", config)


def load(folder: epath.PathLike) -> tuple[Dictionary, dict[str, Any]]:
    """Reads one SAE: (dictionary with NumPy leaves, its metadata).

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: damaged or truncated weights, missing or extra tensors, a shape that does not fit, values that are not
        finite, or settings that `Dictionary` does not have; names the file.
    """
    folder = epath.Path(folder)
    for name in ("cfg.json", WEIGHTS):
        if not (folder / name).exists():
            raise FileNotFoundError(f"no {name} in {folder}: not an SAE in SAELens' format")
    config = files.read_json(folder / "cfg.json")
    checksum = files.sidecar_checksum(folder / WEIGHTS) or files.sha256_file(folder / WEIGHTS)  # others' SAEs have none
    data = files.checked_bytes(folder / WEIGHTS, checksum, "write or fetch it again")
    tensors = loads(data, str(folder / WEIGHTS))
    _check(folder, config, tensors)
    leaves = {field: np.asarray(tensors[name], np.float32) for name, field in _TENSORS.items()}
    return Dictionary(**leaves, architecture="topk", k=int(config["k"])), config.get("metadata", {})


def _check(folder: epath.Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    needed = {
        "architecture": "topk",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "rescale_acts_by_decoder_norm": False,
    }
    if not isinstance(config, dict) or (missing := {"d_in", "d_sae", "k", *needed} - config.keys()):
        raise ValueError(
            f"{folder / 'cfg.json'} lacks {sorted(missing) if isinstance(config, dict) else 'an object'}: not a topk SAE of SAELens"
        )
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
    if not 1 <= config["k"] <= f:
        raise ValueError(f"{folder / 'cfg.json'}: k={config['k']!r} must be between 1 and d_sae={f}")
