"""sparsify (EleutherAI): a folder a hookpoint with `cfg.json` and `sae.safetensors`; several seeds lie in `seed<n>/` below it.

It knows TopK alone.  Its encoder clips at 0 before it chooses the k largest, which gives the same activations.
"""

import re
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from saes.dictionary import Dictionary
from saes.formats import provenance as told_by
from saes.formats.checks import active_features, as_float32, check_tensors, finite, only_sae, read_config, setting
from saes.formats.configuration import read_weights
from saes.formats.provenance import Provenance
from storage import files

CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"
TRAINING = "config.json"
ADVICE = "write or fetch it again"
_OF_TRAINING = ("model", "revision", "hookpoints", "init_seeds", "sae")
_SEED = re.compile(r"seed[-_]?(\d{1,18})")
DEFAULT_K = 32  # sparsify's, for configurations that do not say


def save(folder: epath.PathLike, dictionary: Dictionary) -> None:
    """Writes one SAE. Raises ValueError for an architecture that the format does not have.

    sparsify subtracts b_dec wherever it does not transcode, so the encoder bias of a dictionary that does not is moved by b_dec W_enc.
    """
    if dictionary.architecture != "topk":
        raise ValueError(f"{folder}: sparsify's format holds topk SAEs only, this one is {dictionary.architecture}; export it for SAELens")
    d, f = dictionary.w_enc_DF.shape
    b_enc_F = np.asarray(dictionary.b_enc_F, np.float64)
    if not dictionary.subtract_b_dec:
        b_enc_F = b_enc_F + np.asarray(dictionary.b_dec_D, np.float64) @ np.asarray(dictionary.w_enc_DF, np.float64)
    tensors = {
        "encoder.weight": np.ascontiguousarray(np.asarray(dictionary.w_enc_DF).T, np.float32),
        "encoder.bias": np.ascontiguousarray(b_enc_F, np.float32),
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
        "transcode": False,
    }
    files.write_with_sidecar(epath.Path(folder) / WEIGHTS, safetensors.numpy.save(tensors), {CONFIG: files.json_bytes(config)})


def provenance(folder: epath.PathLike) -> Provenance:
    """Of the folder's name (hookpoint, or `seed<n>` in one), of `cfg.json`, and of the training run's `config.json` one or two folders above."""
    folder = epath.Path(folder)
    files.check_sidecar(folder / WEIGHTS, CONFIG, ADVICE)
    config = told_by.configuration(folder / CONFIG)
    named_seed = _SEED.fullmatch(folder.name)
    point = folder.parent if named_seed else folder
    training: dict[str, Any] = {}
    for home in (point.parent, point.parent.parent):  # of `best/<hookpoint>` it lies two above
        training = training or {name: v for name, v in told_by.configuration(home / TRAINING).items() if name in _OF_TRAINING}
    points, seeds = (told_by.entries(training.get(name)) for name in ("hookpoints", "init_seeds"))
    layer, site = told_by.place(point.name)
    hook = point.name if point.name in points or site in told_by.SITES or (layer is not None and "." in point.name) else ""
    transcodes, skips = config.get("transcode") is True, config.get("skip_connection") is True
    model, revision = told_by.model_and_revision(told_by.text(training.get("model")))
    return Provenance(
        model=model,
        revision=told_by.text(training.get("revision")) or revision,
        layer=layer if hook else None,
        site=site if hook else "",
        input=f"the input of {hook}" if hook and transcodes else hook,
        output=site if hook and transcodes else "",
        kind=told_by.SKIP_TRANSCODER if skips else told_by.TRANSCODER if transcodes else told_by.SAE,
        seed=int(named_seed[1]) if named_seed else told_by.number(seeds[0]) if len(seeds) == 1 else None,
    )


def load(folder: epath.PathLike, decoder_alone: bool = False) -> tuple[Dictionary, dict[str, Any]]:
    """Reads one SAE: (dictionary with NumPy leaves, its configuration).

    Args:
      decoder_alone: True: transcoders are read too, for their decoder rows; a skip connection is left out.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: damaged weights, tensors missing, unknown or of another shape, a transcoder, a skip connection, groupmax; names the file.
    """
    folder = epath.Path(folder)
    files.check_sidecar(folder / WEIGHTS, CONFIG, ADVICE)
    config = read_config(folder / CONFIG, ("d_in",), "an SAE of sparsify")
    for name, only in {"activation": "topk", "signed": False, "embed_skip": False, "gram_lookup": False}.items():
        if config.get(name, only) != only:
            raise ValueError(f"{folder / CONFIG}: {name}={str(config[name])[:80]!r} is not supported, only {only!r}")
    skips, transcodes = (setting(folder / CONFIG, config, name, bool, False) for name in ("skip_connection", "transcode"))
    only_sae(folder, provenance(folder), decoder_alone)
    path = folder / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"no {WEIGHTS} in {folder}: not an SAE in sparsify's format")
    tensors, _ = read_weights(path, ADVICE)
    d, latents, expansion = (
        setting(folder / CONFIG, config, name, int, default)
        for name, default in (("d_in", None), ("num_latents", 0), ("expansion_factor", 32))
    )
    f = latents or d * expansion
    k = active_features(folder / CONFIG, config.get("k", DEFAULT_K), f)
    if skips:
        tensors.pop("W_skip", None)
    check_tensors(path, tensors, {"encoder.weight": (f, d), "encoder.bias": (f,), "W_dec": (f, d), "b_dec": (d,)})
    dictionary = Dictionary(
        w_enc_DF=as_float32(tensors["encoder.weight"].T),
        b_enc_F=as_float32(tensors["encoder.bias"]),
        w_dec_FD=as_float32(tensors["W_dec"]),
        b_dec_D=as_float32(tensors["b_dec"]),
        architecture="topk",
        k=k,
        subtract_b_dec=not transcodes,
    )
    return finite(path, dictionary), config
