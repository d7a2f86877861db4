"""What every reader checks before it believes a file."""

from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from storage import files


def read_config(path: epath.PathLike, needed: tuple[str, ...], what: str) -> dict[str, Any]:
    """A JSON object with at least the `needed` keys.

    Raises:
      FileNotFoundError, ValueError: naming the file and, by `what`, the format that was expected.
    """
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no {path.name} in {path.parent}: not {what}")
    config = files.read_json(path)
    if not isinstance(config, dict) or (missing := set(needed) - config.keys()):
        raise ValueError(f"{path} lacks {sorted(missing) if isinstance(config, dict) else 'an object'}: not {what}")
    return config


def check_tensors(
    path: epath.PathLike, tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], optional: tuple[str, ...] = ()
) -> None:
    """Raises ValueError naming the file for tensors missing or unknown, of another shape, not of floats, or not finite."""
    if odd := sorted((tensors.keys() ^ shapes.keys()) - (set(optional) - tensors.keys())):
        raise ValueError(f"{path}: tensors {odd} are missing or unknown (expected {sorted(shapes)})")
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name]:
            raise ValueError(f"{path}: {name} has shape {tensor.shape}, its configuration says {shapes[name]}")
        if not np.issubdtype(tensor.dtype, np.floating) and tensor.dtype != ml_dtypes.bfloat16:
            raise ValueError(f"{path}: {name} is of type {tensor.dtype}, weights are floats")
        if not np.isfinite(as_float32(tensor)).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity")


def as_float32(tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor, np.float32)


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
        raise ValueError(f"{path}: k={str(k)[:40]} must be a whole number between 1 and {n_features} features")
    return k


def number(path: epath.PathLike, name: str, tensor: np.ndarray) -> float:
    """A tensor that holds one finite number. Raises ValueError naming file and tensor."""
    if tensor.size != 1 or not np.isfinite(value := float(np.asarray(tensor, np.float64).reshape(()))):
        raise ValueError(f"{path}: {name} must be a single finite number")
    return value
