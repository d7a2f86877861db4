"""sparsify (EleutherAI): a folder a hookpoint with `cfg.json` and `sae.safetensors`; several seeds lie in `seed<n>/` below it.

It knows TopK alone.  Its encoder clips at 0 before it chooses the k largest, which gives the same activations.
"""

from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from saes.dictionary import Dictionary
from saes.formats.checks import active_features, as_float32, check_tensors, read_config, setting
from storage import files
from storage.tensors import loads

CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"
DEFAULT_K = 32  # sparsify's, for configurations that do not say


def save(folder: epath.PathLike, dictionary: Dictionary) -> None:
    """Writes one SAE. Raises ValueError for an architecture that the format does not have."""
    if dictionary.architecture != "topk":
        raise ValueError(f"{folder}: sparsify's format holds topk SAEs only, this one is {dictionary.architecture}; export it for SAELens")
    d, f = dictionary.w_enc_DF.shape
    tensors = {
        "encoder.weight": np.ascontiguousarray(np.asarray(dictionary.w_enc_DF).T, np.float32),
        "encoder.bias": np.ascontiguousarray(dictionary.b_enc_F, np.float32),
        "W_dec": np.ascontiguousarray(dictionary.w_dec_FD, np.float32),
        "b_dec": np.ascontiguousarray(dictionary.b_dec_D, np.float32),
    }
    config = {
        "activation": "topk",
        "d_in": d,
        "expansion_factor": -(-f // d),  # not used where num_latents is above 0
        "k": dictionary.k,
        "multi_topk": False,
        "normalize_decoder": True,
        "num_latents": f,
        "skip_connection": False,
        "transcode": not dictionary.subtract_b_dec,
    }
    files.write_with_sidecar(epath.Path(folder) / WEIGHTS, safetensors.numpy.save(tensors))
    files.write_json(epath.Path(folder) / CONFIG, config)


def load(folder: epath.PathLike) -> tuple[Dictionary, dict[str, Any]]:
    """Reads one SAE: (dictionary with NumPy leaves, its configuration).

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: damaged weights, tensors missing, unknown or of another shape, a skip connection, groupmax; names the file.
    """
    folder = epath.Path(folder)
    config = read_config(folder / CONFIG, ("d_in",), "an SAE of sparsify")
    for name, only in {"activation": "topk", "skip_connection": False, "signed": False}.items():
        if config.get(name, only) != only:
            raise ValueError(f"{folder / CONFIG}: {name}={config[name]!r} is not supported, only {only!r}")
    path = folder / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"no {WEIGHTS} in {folder}: not an SAE in sparsify's format")
    checksum = files.sidecar_checksum(path) or files.sha256_file(path)
    tensors = loads(files.checked_bytes(path, checksum, "write or fetch it again"), str(path))
    d, latents, expansion = (
        setting(folder / CONFIG, config, name, int, default)
        for name, default in (("d_in", None), ("num_latents", 0), ("expansion_factor", 32))
    )
    f = latents or d * expansion
    k = active_features(folder / CONFIG, config.get("k", DEFAULT_K), f)
    check_tensors(path, tensors, {"encoder.weight": (f, d), "encoder.bias": (f,), "W_dec": (f, d), "b_dec": (d,)})
    dictionary = Dictionary(
        w_enc_DF=as_float32(tensors["encoder.weight"].T),
        b_enc_F=as_float32(tensors["encoder.bias"]),
        w_dec_FD=as_float32(tensors["W_dec"]),
        b_dec_D=as_float32(tensors["b_dec"]),
        architecture="topk",
        k=k,
        subtract_b_dec=not setting(folder / CONFIG, config, "transcode", bool, False),
    )
    return dictionary, config
