"""JSON configurations and weights of others, read with every fault of the file named."""

import json
from typing import Any

import numpy as np
from etils import epath

from storage import files, tensors


def read_json(path: epath.PathLike) -> Any:
    """What a JSON file holds. Raises FileNotFoundError or ValueError naming a file that is missing, a folder, or no JSON."""
    try:
        return json.loads(_content(epath.Path(path)).decode())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: not JSON from line {error.lineno}, column {error.colno}: fetch it again") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: byte {error.start} is no UTF-8: fetch it again") from error
    except RecursionError as error:
        raise ValueError(f"{path} is damaged: its JSON is nested too deeply: fetch it again") from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged: a number in it has too many digits: fetch it again") from error


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
    beside = files.sidecar(path)
    data = _content(path)
    if beside.exists() or checksum_needed:
        said = _content(beside).decode(errors="replace").split() if beside.exists() else []
        data = files.checked_bytes(path, said[0] if said else "", advice)
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
