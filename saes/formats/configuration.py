"""JSON configurations and weights of others, read with every fault of the file named."""

from typing import Any

import numpy as np
from etils import epath

from storage import files, tensors


def read_json(path: epath.PathLike) -> Any:
    """What a JSON file holds. Raises FileNotFoundError or ValueError naming a file that is missing, a folder, or no JSON."""
    data = _content(epath.Path(path))
    try:
        return files.parse_json(data, str(path))
    except ValueError as error:
        raise ValueError(f"{error}: fetch it again") from error


def read_weights(path: epath.PathLike, advice: str, checksum_needed: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(tensors by name, free entries of the header) of a safetensors file, verified where a sha256 lies beside it.

    Args:
      advice: what to do about a file that is damaged.
      checksum_needed: without one the file is refused.

    Raises:
      FileNotFoundError: no such file.
      ValueError: damaged, a folder, or it does not match its sha256; names the file.
    """
    path = epath.Path(path)
    data = _content(path)
    sums = files.sidecar_checksums(path, advice)
    if sums is None and checksum_needed:
        raise ValueError(f"{path} has no {files.sidecar(path).name} beside it, so it cannot be verified: {advice}")
    if sums is not None:
        data = files.checked_bytes(path, sums[path.name], advice)
    return tensors.loads(data, str(path)), tensors.metadata(data)


def _content(path: epath.Path) -> bytes:
    """Raises FileNotFoundError or ValueError naming what is not a file that can be read."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: a file is wanted there")
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: missing, or a link to nothing")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
