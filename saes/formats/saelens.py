"""SAELens ≥ 6: a folder with `cfg.json` and `sae_weights.safetensors`, ours with a sha256 beside the weights.

safetensors files load flipped bits in silence; where the checksum is there it is verified.  A TopK SAE whose activations are
rescaled by decoder norms is read as the same function with unit decoder rows.
"""

from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from saes.dictionary import ARCHITECTURES, Dictionary
from saes.formats.checks import active_features, as_float32, check_tensors, read_config, setting
from storage import files
from storage.tensors import loads

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
CHECKSUM = WEIGHTS + ".sha256"
_SHARED = {"W_enc": "w_enc_DF", "W_dec": "w_dec_FD", "b_dec": "b_dec_D"}
_TENSORS = {
    "standard": _SHARED | {"b_enc": "b_enc_F"},
    "topk": _SHARED | {"b_enc": "b_enc_F"},
    "jumprelu": _SHARED | {"b_enc": "b_enc_F", "threshold": "threshold_F"},
    "gated": _SHARED | {"b_gate": "b_enc_F", "b_mag": "b_mag_F", "r_mag": "r_mag_F"},
}


def save(folder: epath.PathLike, dictionary: Dictionary, metadata: dict[str, Any]) -> None:
    """Writes one SAE.

    Args:
      folder: made if it is not there.
      dictionary: leaves without a seed axis.
      metadata: of SAELens' `metadata` (model_name, hook_name, …); `sae_lens_version` is set here.
    """
    names = _TENSORS[dictionary.architecture]
    tensors = {name: np.ascontiguousarray(getattr(dictionary, field), np.float32) for name, field in names.items()}
    d_in, d_sae = tensors["W_enc"].shape
    config: dict[str, Any] = {
        "architecture": dictionary.architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.subtract_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "none",
        # SAELens parses a folder whose version is below 6 as its legacy flat format.
        "metadata": metadata | {"sae_lens_version": "6.0.0"},
    }
    if dictionary.architecture == "topk":
        config |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
    files.write_with_sidecar(epath.Path(folder) / WEIGHTS, safetensors.numpy.save(tensors))
    files.write_json(epath.Path(folder) / CONFIG, config)


def load(folder: epath.PathLike) -> tuple[Dictionary, dict[str, Any]]:
    """Reads one SAE: (dictionary with NumPy leaves, its metadata).

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: damaged or truncated weights, missing or extra tensors, a shape that does not fit, values that are not
        finite, or settings that `Dictionary` does not have; names the file.
    """
    folder = epath.Path(folder)
    config = read_config(folder / CONFIG, ("architecture", "d_in", "d_sae"), "an SAE of SAELens ≥ 6")
    _check_config(folder / CONFIG, config)
    path = folder / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"no {WEIGHTS} in {folder}: not an SAE in SAELens' format")
    checksum = files.sidecar_checksum(path) or files.sha256_file(path)  # others' SAEs have none
    tensors = loads(files.checked_bytes(path, checksum, "write or fetch it again"), str(path))
    names = _TENSORS[config["architecture"]]
    d, f = (setting(folder / CONFIG, config, name, int) for name in ("d_in", "d_sae"))
    shapes = dict.fromkeys(names, (f,)) | {"W_enc": (d, f), "W_dec": (f, d), "b_dec": (d,)}
    check_tensors(path, tensors, shapes)
    leaves = {field: as_float32(tensors[name]) for name, field in names.items()}
    if config.get("rescale_acts_by_decoder_norm", False):
        norm_F = np.linalg.norm(leaves["w_dec_FD"], axis=-1)
        leaves["w_enc_DF"], leaves["b_enc_F"] = leaves["w_enc_DF"] * norm_F, leaves["b_enc_F"] * norm_F
        leaves["w_dec_FD"] = leaves["w_dec_FD"] / norm_F[:, None]
    dictionary = Dictionary(
        **leaves,
        architecture=config["architecture"],
        k=config["k"] if config["architecture"] == "topk" else 0,
        subtract_b_dec=config.get("apply_b_dec_to_input", True),
    )
    return dictionary, setting(folder / CONFIG, config, "metadata", dict, {})


def _check_config(path: epath.Path, config: dict[str, Any]) -> None:
    metadata = setting(path, config, "metadata", dict, {})
    version = str(metadata.get("sae_lens_version", config.get("sae_lens_version", "none")))[:40]
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 6:
        raise ValueError(f"{path}: sae_lens_version is {version}; load it with SAELens 6 or later and save it again")
    if setting(path, config, "architecture", str) not in ARCHITECTURES:
        raise ValueError(f"{path}: architecture={config['architecture']!r} is not supported, only {', '.join(ARCHITECTURES)}")
    # Anything else but these changes what goes in at run time, by numbers that are not in the folder or differ by token.
    for name, known in {"normalize_activations": ("none",), "reshape_activations": ("none", "hook_z")}.items():
        if config.get(name, "none") not in known:
            raise ValueError(f"{path}: {name}={config[name]!r} is not supported, only {' or '.join(map(repr, known))}")
    for name in ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm"):
        setting(path, config, name, bool, True)
    if config["architecture"] == "topk":
        active_features(path, config.get("k"), setting(path, config, "d_sae", int))
