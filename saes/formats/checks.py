"""What every reader checks before it believes a file."""

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from saes.dictionary import Dictionary
from saes.formats.configuration import read_json
from saes.formats.provenance import CROSSCODER, SAE, Provenance, refusal

MAX_EXPONENT = 88.0  # e^x is infinite in float32 from 88.73


def read_config(path: epath.PathLike, needed: tuple[str, ...], what: str) -> dict[str, Any]:
    """A JSON object with at least the `needed` keys.

    Raises:
      FileNotFoundError, ValueError: naming the file and, by `what`, the format that was expected.
    """
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: not {what}")
    config = read_json(path)
    if not isinstance(config, dict) or (missing := set(needed) - config.keys()):
        raise ValueError(f"{path} lacks {sorted(missing) if isinstance(config, dict) else 'an object'}: not {what}")
    return config


def check_tensors(
    path: epath.PathLike,
    tensors: dict[str, np.ndarray],
    shapes: dict[str, tuple[int, ...]],
    optional: tuple[str, ...] = (),
    not_finite: bool = False,
) -> None:
    """Raises ValueError naming the file for tensors missing or unknown, of another shape, empty, not of floats, or (unless `not_finite`) not finite."""
    if odd := sorted((tensors.keys() ^ shapes.keys()) - (set(optional) - tensors.keys())):
        raise ValueError(f"{path}: tensors {odd} are missing or unknown (expected {sorted(shapes)})")
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name]:
            raise ValueError(f"{path}: {name} has shape {tensor.shape}, its configuration says {shapes[name]}")
        if 0 in tensor.shape:
            raise ValueError(f"{path}: {name} is empty, of shape {tensor.shape}: an SAE has at least one feature")
        if not np.issubdtype(tensor.dtype, np.floating) and tensor.dtype != ml_dtypes.bfloat16:
            raise ValueError(f"{path}: {name} is of type {tensor.dtype}, weights are floats")
        if not not_finite and not np.isfinite(as_float32(tensor)).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity")


def as_float32(tensor: np.ndarray) -> np.ndarray:
    """A copy in float32; what is too large for it becomes infinity, which `finite` refuses."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(tensor, np.float32)


def finite(path: epath.PathLike, dictionary: Dictionary) -> Dictionary:
    """The dictionary, after all arithmetic of its reader. Raises ValueError naming the file for leaves that are not finite, or gates whose e^r_mag is not."""
    for name, leaf in ((f.name, getattr(dictionary, f.name)) for f in dataclasses.fields(dictionary)):
        if isinstance(leaf, np.ndarray) and not np.isfinite(leaf).all():
            raise ValueError(f"{path}: {name.rsplit('_', 1)[0]} is not finite in float32, as it is read: fetch it again, or rescale it")
    r_mag_F = dictionary.r_mag_F
    if r_mag_F is not None and (largest := np.max(r_mag_F, initial=0.0)) > MAX_EXPONENT:
        raise ValueError(f"{path}: r_mag reaches {largest:.4g}, at most {MAX_EXPONENT} has an exponential in float32: fetch it again")
    return dictionary


def only_sae(folder: epath.PathLike, told: Provenance, decoder_alone: bool) -> None:
    """Raises ValueError naming the folder of a crosscoder, or of a transcoder where more than its decoder is wanted."""
    if told.kind == CROSSCODER or (told.kind != SAE and not decoder_alone):
        raise ValueError(f"{folder} is {refusal(told)}")


def agree(path: epath.PathLike, name: str, configured: Any, there: int) -> None:
    """Raises ValueError naming file and field if a configuration tells another number than the weights do; None: it does not tell."""
    if configured is not None and (type(configured) is not int or configured != there):
        raise ValueError(f"{path}: {name}={str(configured)[:80]!r}, the weights say {there}: correct it or fetch both again")


def setting(path: epath.PathLike, config: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """`config[name]`, or the default where it is not there. Raises ValueError naming file and field if it is not exactly of type `kind`."""
    value = config.get(name, default)
    if type(value) is not kind:
        shown = "null" if value is None else f"{str(value)[:80]!r}"
        raise ValueError(f"{path}: {name}={shown} must be of type {kind.__name__}")
    return value


def active_features(path: epath.PathLike, k: Any, n_features: int) -> int:
    """K of a topk SAE. Raises ValueError naming the file if it is no whole number from 1 to F."""
    if type(k) is not int or not 1 <= k <= n_features:
        raise ValueError(f"{path}: k={' '.join(str(k).split())[:40]} must be a whole number between 1 and {n_features} features")
    return k


def number(path: epath.PathLike, name: str, tensor: np.ndarray) -> float:
    """A tensor that holds one finite number. Raises ValueError naming file and tensor."""
    if tensor.size != 1 or not np.isfinite(value := float(np.asarray(tensor, np.float64).reshape(()))):
        raise ValueError(f"{path}: {name} must be a single finite number")
    return value
