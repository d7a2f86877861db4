"""What every reader checks before it believes a file."""

from typing import Any

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
        if tensor.dtype.kind not in "fV":  # bfloat16 is of kind V
            raise ValueError(f"{path}: {name} is of type {tensor.dtype}, weights are floats")
        if not np.isfinite(as_float32(tensor)).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity")


def as_float32(tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor, np.float32)
