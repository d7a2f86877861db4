"""SAELens ≥ 6: a folder with `cfg.json` and `sae_weights.safetensors`, ours with the sha256 of both beside the weights.

safetensors files load flipped bits in silence; where the checksum is there it is verified.  A TopK SAE whose activations are
rescaled by decoder norms is read as the same function with unit decoder rows.
"""

import re
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from saes.dictionary import ARCHITECTURES, Dictionary
from saes.formats import provenance as told_by
from saes.formats.checks import active_features, as_float32, check_tensors, finite, only_sae, read_config, setting
from saes.formats.configuration import read_weights
from saes.formats.provenance import Provenance
from storage import files

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
CHECKSUM = WEIGHTS + ".sha256"
ADVICE = "write or fetch it again"
_SHARED = {"W_enc": "w_enc_DF", "W_dec": "w_dec_FD", "b_dec": "b_dec_D"}
_TENSORS = {
    "standard": _SHARED | {"b_enc": "b_enc_F"},
    "topk": _SHARED | {"b_enc": "b_enc_F"},
    "jumprelu": _SHARED | {"b_enc": "b_enc_F", "threshold": "threshold_F"},
    "gated": _SHARED | {"b_gate": "b_enc_F", "b_mag": "b_mag_F", "r_mag": "r_mag_F"},
}
# Transcoders, which have the tensors of an SAE but for the widths of the decoder's.
_TRANSCODERS = {
    "transcoder": ("standard", ()), "skip_transcoder": ("standard", ("W_skip",)),
    "jumprelu_transcoder": ("jumprelu", ()), "jumprelu_skip_transcoder": ("jumprelu", ("W_skip",)),
}  # fmt: skip
# Of every field that tells where an SAE is from, the names that versions gave it.
_TOLD = {
    "model": ("model_name",), "hook": ("hook_name", "hook_point"), "layer": ("hook_layer", "hook_point_layer"),
    "head": ("hook_head_index", "hook_point_head_index"), "output": ("hook_name_out",), "seed": ("seed",),
}  # fmt: skip


def save(folder: epath.PathLike, dictionary: Dictionary, metadata: dict[str, Any]) -> None:
    """Writes one SAE.

    Args:
      folder: made if it is not there; a side-car of the weights lists both files.
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
    files.write_with_sidecar(epath.Path(folder) / WEIGHTS, safetensors.numpy.save(tensors), {CONFIG: files.json_bytes(config)})


def provenance(folder: epath.PathLike) -> Provenance:
    """Of `cfg.json`: its `metadata`, and where older versions kept the same. Raises ValueError naming a file that contradicts itself."""
    path = epath.Path(folder) / CONFIG
    files.check_sidecar(path.with_name(WEIGHTS), CONFIG, ADVICE)
    config = told_by.configuration(path)
    sections = [section for section in (config.get("metadata"), config) if isinstance(section, dict)]
    get = lambda what, as_: told_by.agreed(path, _TOLD[what][0], *(as_(s.get(name)) for s in sections for name in _TOLD[what]))
    loading = [s["model_from_pretrained_kwargs"] for s in sections if isinstance(s.get("model_from_pretrained_kwargs"), dict)]
    checkpoints = [
        f"{name} {k[name]}" for k in loading for name in ("checkpoint_value", "checkpoint_index") if told_by.number(k.get(name)) is not None
    ]
    model, revision = told_by.model_and_revision(get("model", told_by.text) or "")
    hook, output, head = get("hook", told_by.text) or "", get("output", told_by.text) or "", get("head", told_by.number)
    layer, site = told_by.place(hook)
    architecture = told_by.text(config.get("architecture"))
    kind = told_by.SAE
    if architecture in _TRANSCODERS or (output and output != hook):
        kind = told_by.SKIP_TRANSCODER if "skip" in architecture else told_by.TRANSCODER
    if "crosscoder" in architecture or architecture == "clt":
        kind = told_by.CROSSCODER
    return Provenance(
        model=model,
        revision=next((r for k in loading if (r := told_by.text(k.get("revision")))), (checkpoints or [revision])[0]),
        layer=told_by.agreed(path, "layer", get("layer", told_by.number), layer),
        site=site,
        head=str(head) if head is not None else told_by.ALL_HEADS if hook else "",
        input=hook,
        output=told_by.place(output)[1] if kind != told_by.SAE else "",
        kind=kind,
        seed=get("seed", told_by.number),
    )


def load(folder: epath.PathLike, decoder_alone: bool = False) -> tuple[Dictionary, dict[str, Any]]:
    """Reads one SAE: (dictionary with NumPy leaves, its metadata).

    Args:
      decoder_alone: True: transcoders are read too, for their decoder rows; a skip connection is left out.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: damaged or truncated weights, missing or extra tensors, a shape that does not fit, values that are not
        finite, a transcoder, or settings that `Dictionary` does not have; names the file.
    """
    folder = epath.Path(folder)
    files.check_sidecar(folder / WEIGHTS, CONFIG, ADVICE)
    config = read_config(folder / CONFIG, ("architecture", "d_in", "d_sae"), "an SAE of SAELens ≥ 6")
    only_sae(folder, provenance(folder), decoder_alone)
    architecture, left_out = _check_config(folder / CONFIG, config)
    path = folder / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"no {WEIGHTS} in {folder}: not an SAE in SAELens' format")
    tensors, _ = read_weights(path, ADVICE)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    names = _TENSORS[architecture]
    d, f = (setting(folder / CONFIG, config, name, int) for name in ("d_in", "d_sae"))
    d_out = setting(folder / CONFIG, config, "d_out", int, d) if config["architecture"] in _TRANSCODERS else d
    shapes = dict.fromkeys(names, (f,)) | {"W_enc": (d, f), "W_dec": (f, d_out), "b_dec": (d_out,)}
    check_tensors(path, tensors, shapes)
    leaves = {field: as_float32(tensors[name]) for name, field in names.items()}
    if architecture == "topk" and config.get("rescale_acts_by_decoder_norm", False):  # the others drop a field that they do not have
        leaves |= _with_unit_rows(**{name: leaves[name].astype(np.float64) for name in ("w_enc_DF", "b_enc_F", "w_dec_FD")})
    dictionary = Dictionary(
        **leaves,
        architecture=architecture,  # type: ignore[arg-type]  # one of `ARCHITECTURES`
        k=config["k"] if architecture == "topk" else 0,
        subtract_b_dec=config.get("apply_b_dec_to_input", True) and config["architecture"] not in _TRANSCODERS,
    )
    return finite(path, dictionary), setting(folder / CONFIG, config, "metadata", dict, {})


def _with_unit_rows(w_enc_DF: np.ndarray, b_enc_F: np.ndarray, w_dec_FD: np.ndarray) -> dict[str, np.ndarray]:
    """The same function with decoder rows of length 1. A row of zeros adds nothing whatever its feature does, so that one stays 0."""
    norm_F = np.linalg.norm(w_dec_FD, axis=-1)
    unit_FD = w_dec_FD / np.where(norm_F > 0, norm_F, 1.0)[:, None]
    return {"w_enc_DF": as_float32(w_enc_DF * norm_F), "b_enc_F": as_float32(b_enc_F * norm_F), "w_dec_FD": as_float32(unit_FD)}


def _check_config(path: epath.Path, config: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """(architecture of the dictionary, tensors that are not read). Raises ValueError naming file and field."""
    metadata = setting(path, config, "metadata", dict, {})
    version = " ".join(str(metadata.get("sae_lens_version", config.get("sae_lens_version", "none"))).split())[:40]
    if not (major := re.match(r"[0-9]+", version)) or int(major[0]) < 6:
        raise ValueError(f"{path}: sae_lens_version is {version}; load it with SAELens 6 or later and save it again")
    architecture, left_out = _TRANSCODERS.get(setting(path, config, "architecture", str), (config["architecture"], ()))
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{path}: architecture={config['architecture'][:80]!r} is not supported, only {', '.join(ARCHITECTURES)}")
    # Anything else but these changes what goes in at run time, by numbers that are not in the folder or differ by token.
    for name, known in {"normalize_activations": ("none",), "reshape_activations": ("none", "hook_z")}.items():
        if config.get(name, "none") not in known:
            raise ValueError(f"{path}: {name}={str(config[name])[:80]!r} is not supported, only {' or '.join(map(repr, known))}")
    for name in ("apply_b_dec_to_input", *(("rescale_acts_by_decoder_norm",) if architecture == "topk" else ())):
        setting(path, config, name, bool, True)
    if architecture == "topk":
        active_features(path, config.get("k"), setting(path, config, "d_sae", int))
    return architecture, left_out
