"""dictionary_learning (Marks et al.), read only: a folder with `config.json` and `ae.pt`, of which nothing is unpickled.

What an SAE does is told by its class, in `config.json` under trainer.dict_class:

  AutoEncoder                              standard, bias subtracted         AutoEncoderNew           standard, not subtracted
  AutoEncoderTopK                          topk                              GatedAutoEncoder         gated
  BatchTopKSAE, MatryoshkaBatchTopKSAE     jumprelu, one threshold           JumpReluAutoEncoder      jumprelu, not subtracted
"""

from typing import Any

import numpy as np
from etils import epath

from saes.dictionary import Dictionary
from saes.formats import provenance as told_by
from saes.formats.checks import active_features, agree, as_float32, check_tensors, finite, number, only_sae, read_config
from saes.formats.provenance import Provenance
from storage.state_dict import read_state_dict

CONFIG = "config.json"
WEIGHTS = "ae.pt"
_Axes = dict[str, tuple[str, ...]]
_LINEAR: _Axes = {"encoder.weight": ("F", "D"), "decoder.weight": ("D", "F")}
_PLAIN: _Axes = {"W_enc": ("D", "F"), "b_enc": ("F",), "W_dec": ("F", "D"), "b_dec": ("D",)}
_TOPK: _Axes = _LINEAR | {"encoder.bias": ("F",), "b_dec": ("D",)}
# Of every class its tensors, with their axes.
_TENSORS: dict[str, _Axes] = {
    "AutoEncoder": _LINEAR | {"encoder.bias": ("F",), "bias": ("D",)},
    "AutoEncoderNew": _LINEAR | {"encoder.bias": ("F",), "decoder.bias": ("D",)},
    "GatedAutoEncoder": _LINEAR | {"decoder_bias": ("D",), "r_mag": ("F",), "gate_bias": ("F",), "mag_bias": ("F",)},
    "JumpReluAutoEncoder": _PLAIN | {"threshold": ("F",)},
    "AutoEncoderTopK": _TOPK,
    "BatchTopKSAE": _TOPK,
    "MatryoshkaBatchTopKSAE": _PLAIN,
}
# Where the encoder sees the activations themselves.
_NOT_SUBTRACTED = ("AutoEncoderNew", "JumpReluAutoEncoder")
# Not weights: K, the threshold for inference, the sizes of Matryoshka's groups.
_SETTINGS = {
    "AutoEncoderTopK": ("k", "threshold"),
    "BatchTopKSAE": ("k", "threshold"),
    "MatryoshkaBatchTopKSAE": ("k", "threshold", "group_sizes"),
}


def provenance(folder: epath.PathLike) -> Provenance:
    """Of trainer.lm_name, layer, submodule_name and seed. Raises ValueError naming a file whose layer contradicts its submodule."""
    path = epath.Path(folder) / CONFIG
    trainer = told_by.configuration(path).get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    hook = told_by.text(trainer.get("submodule_name"))
    layer, site = told_by.place(hook)
    model, revision = told_by.model_and_revision(told_by.text(trainer.get("lm_name")))
    return Provenance(
        model=model,
        revision=revision,
        layer=told_by.agreed(path, "trainer.layer", told_by.number(trainer.get("layer")), layer),
        site=site,
        input=hook,
        kind=told_by.CROSSCODER if "crosscoder" in told_by.text(trainer.get("dict_class")).lower() else told_by.SAE,
        seed=told_by.number(trainer.get("seed")),
    )


def load(folder: epath.PathLike, decoder_alone: bool = False) -> tuple[Dictionary, dict[str, Any]]:
    """Reads one SAE: (dictionary with NumPy leaves, its trainer's configuration).

    Args:
      decoder_alone: True: nothing but decoder rows is wanted; this format has no transcoders to which it matters.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a class that is not known, a crosscoder, damaged weights, tensors missing, unknown or of another shape, K or sizes that the
        configuration tells otherwise; names the file.
    """
    folder = epath.Path(folder)
    config = folder / CONFIG
    trainer = read_config(config, ("trainer",), "an SAE of dictionary_learning")["trainer"]
    only_sae(folder, provenance(folder), decoder_alone)
    kind = trainer.get("dict_class") if isinstance(trainer, dict) else None
    if not isinstance(kind, str) or kind not in _TENSORS:
        raise ValueError(f"{config}: trainer.dict_class={str(kind)[:80]!r}, one of {', '.join(sorted(_TENSORS))}")
    path = folder / WEIGHTS
    tensors = read_state_dict(path)
    settings = {name: tensors.pop(name) for name in _SETTINGS.get(kind, ()) if name in tensors}
    axes = _TENSORS[kind]
    sizes = _sizes(path, tensors, axes)
    for field, axis in (("activation_dim", "D"), ("dict_size", "F")):
        agree(config, f"trainer.{field}", trainer.get(field), sizes[axis])
    check_tensors(path, tensors, {name: tuple(sizes[a] for a in names) for name, names in axes.items()})
    if "group_sizes" in settings and (total := float(np.sum(settings["group_sizes"], dtype=np.float64))) != sizes["F"]:
        raise ValueError(f"{path}: group_sizes add up to {total:g}, there are {sizes['F']} features: fetch it again")
    k = _k(folder, trainer, settings, sizes["F"]) if kind in _SETTINGS else 0
    arrays = {name: as_float32(a) for name, a in tensors.items()}
    return finite(path, _dictionary(path, kind, arrays, settings, k)), trainer


def _k(folder: epath.Path, trainer: dict[str, Any], settings: dict[str, np.ndarray], features: int) -> int:
    """K of the weights, or of the configuration beside those from before it was kept with them; 0 where neither tells."""
    configured = trainer.get("k")
    if configured is not None:
        active_features(folder / CONFIG, configured, features)
    if "k" not in settings:
        return configured or 0
    k = number(folder / WEIGHTS, "k", settings["k"])
    k = active_features(folder / WEIGHTS, int(k) if k.is_integer() else k, features)
    agree(folder / CONFIG, "trainer.k", configured, k)
    return k


def _sizes(path: epath.Path, tensors: dict[str, np.ndarray], axes: _Axes) -> dict[str, int]:
    encoder = next(name for name in axes if name in ("encoder.weight", "W_enc"))
    if encoder not in tensors or tensors[encoder].ndim != 2:
        raise ValueError(f"{path}: no matrix {encoder!r} among {sorted(tensors)}")
    return dict(zip(axes[encoder], tensors[encoder].shape, strict=True))


def _dictionary(path: epath.Path, kind: str, arrays: dict[str, np.ndarray], settings: dict[str, np.ndarray], k: int) -> Dictionary:
    linear = "encoder.weight" in arrays
    leaves: dict[str, Any] = {
        "w_enc_DF": as_float32(arrays["encoder.weight"].T) if linear else arrays["W_enc"],
        "w_dec_FD": as_float32(arrays["decoder.weight"].T) if linear else arrays["W_dec"],
        "b_dec_D": next(arrays[name] for name in ("b_dec", "bias", "decoder.bias", "decoder_bias") if name in arrays),
        "subtract_b_dec": kind not in _NOT_SUBTRACTED,
    }
    if kind == "GatedAutoEncoder":
        gate: dict[str, Any] = {"b_enc_F": arrays["gate_bias"], "r_mag_F": arrays["r_mag"], "b_mag_F": arrays["mag_bias"]}
        return Dictionary(**leaves, **gate, architecture="gated")
    leaves["b_enc_F"] = arrays["encoder.bias"] if linear else arrays["b_enc"]
    if kind in ("AutoEncoder", "AutoEncoderNew"):
        return Dictionary(**leaves, architecture="standard")
    if kind == "JumpReluAutoEncoder":
        return Dictionary(**leaves, threshold_F=arrays["threshold"], architecture="jumprelu")
    f = len(leaves["b_enc_F"])
    if kind == "AutoEncoderTopK":
        return Dictionary(**leaves, architecture="topk", k=active_features(path, k, f))
    # Below 0 it was never set, and the library lets every positive activation through.
    threshold = max(number(path, "threshold", settings["threshold"]), 0.0) if "threshold" in settings else 0.0
    return Dictionary(**leaves, threshold_F=as_float32(np.full(f, threshold)), architecture="jumprelu")
