"""Gemma Scope, read only: `params.npz` (1; Gemma 2) or `params.safetensors` with `config.json` (2; Gemma 3). JumpReLU whose encoder
sees the activations themselves, b_dec not subtracted (Lieberum et al. 2024)."""

import re
from typing import Any

import numpy as np
from etils import epath

from saes.dictionary import Dictionary
from saes.formats import provenance as told_by
from saes.formats.checks import agree, as_float32, check_tensors, finite, only_sae, read_config, setting
from saes.formats.configuration import read_weights
from saes.formats.provenance import Provenance
from storage.npz import read_npz

CONFIG = "config.json"
NPZ = "params.npz"
SAFETENSORS = "params.safetensors"
_NAMES = {"w_enc": "w_enc_DF", "b_enc": "b_enc_F", "w_dec": "w_dec_FD", "b_dec": "b_dec_D", "threshold": "threshold_F"}


# Gemma Scope 1 tells by its folders' names alone: gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71, a hub's cache among them.
_RELEASE = re.compile(r"gemma-scope-(?P<size>\d+b)-(?P<tuned>pt|it)-(?P<what>[a-z]+)")
_LAYER = re.compile(r"layer_(\d{1,6})(?:_\w+)?")
_SITES = {"res": "resid_post", "mlp": "mlp_out", "att": "attn_z"}
_AFFINE = "affine_skip_connection"


def provenance(folder: epath.PathLike) -> Provenance:
    """Of `config.json` (Gemma Scope 2: model_name, hf_hook_point_in and _out, type, affine_connection), else of the folders' names."""
    folder = epath.Path(folder)
    if (folder / NPZ).exists() or not (folder / SAFETENSORS).exists():
        return _of_names(folder)
    config = told_by.configuration(folder / CONFIG)
    hook, output = (told_by.text(config.get(f"hf_hook_point_{end}")) for end in ("in", "out"))
    layer, site = told_by.place(hook)
    kind = told_by.text(config.get("type"))
    apart = bool(hook and output) and hook != output
    if kind in ("crosscoder", "clt") or "{" in hook:
        kind = told_by.CROSSCODER
    elif kind == "transcoder" or apart or config.get("affine_connection") is True:
        kind = told_by.SKIP_TRANSCODER if config.get("affine_connection") is True else told_by.TRANSCODER
    else:
        kind = told_by.SAE
    return Provenance(
        model=told_by.text(config.get("model_name")),
        layer=layer,
        site=site,
        input=hook,
        output=told_by.place(output)[1] if kind != told_by.SAE else "",
        kind=kind,
    )


def _of_names(folder: epath.Path) -> Provenance:
    release = list(_RELEASE.finditer(str(folder)))
    layers = [int(named[1]) for part in folder.parts if (named := _LAYER.fullmatch(part))]
    layer = layers[-1] if layers else None
    if not release:
        return Provenance(layer=layer)
    size, tuned, what = release[-1].group("size", "tuned", "what")
    model = f"google/gemma-2-{size}{'-it' if tuned == 'it' else ''}"
    if what == "transcoders":
        return Provenance(model, layer=layer, site="mlp_in", input="mlp_in", output="mlp_out", kind=told_by.TRANSCODER)
    site = "embed" if "embedding" in folder.parts else _SITES.get(what, what)
    return Provenance(model, layer=layer, site=site, input=site)


def load(folder: epath.PathLike, decoder_alone: bool = False) -> tuple[Dictionary, dict[str, Any]]:
    """Reads one SAE: (dictionary with NumPy leaves, its configuration; empty for Gemma Scope 1, which has none).

    Args:
      decoder_alone: True: transcoders are read too, for their decoder rows; a skip connection is left out.

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
        config = read_config(folder / CONFIG, ("architecture",), "an SAE of Gemma Scope 2")
        if config["architecture"] != "jump_relu":
            raise ValueError(f"{folder / CONFIG}: architecture={str(config['architecture'])[:80]!r} is not supported, only 'jump_relu'")
        setting(folder / CONFIG, config, "affine_connection", bool, False)
        if config.get("type", "sae") not in ("sae", "transcoder", "crosscoder", "clt"):
            raise ValueError(f"{folder / CONFIG}: type={str(config['type'])[:80]!r} is not supported, only 'sae'")
        tensors, _ = read_weights(path, "fetch it again")
    else:
        raise FileNotFoundError(f"neither {NPZ} nor {SAFETENSORS} in {folder}: not an SAE of Gemma Scope")
    told = provenance(folder)
    only_sae(folder, told, decoder_alone)
    if told.kind == told_by.SKIP_TRANSCODER:
        tensors.pop(_AFFINE, None)
    if "w_enc" not in tensors or tensors["w_enc"].ndim != 2:
        raise ValueError(f"{path}: no matrix 'w_enc' among {sorted(tensors)}")
    d, f = tensors["w_enc"].shape
    agree(folder / CONFIG, "width", config.get("width"), f)
    d_out = tensors["w_dec"].shape[-1] if told.kind != told_by.SAE and "w_dec" in tensors and tensors["w_dec"].ndim else d
    check_tensors(path, tensors, {"w_enc": (d, f), "b_enc": (f,), "w_dec": (f, d_out), "b_dec": (d_out,), "threshold": (f,)})
    leaves: dict[str, Any] = {field: as_float32(np.asarray(tensors[name])) for name, field in _NAMES.items()}
    return finite(path, Dictionary(**leaves, architecture="jumprelu", subtract_b_dec=False)), config
