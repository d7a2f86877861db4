"""Files written whole or not at all, and their checksums. Paths are `etils.epath`, so a bucket works as a folder does."""

import hashlib
import json
import math
from typing import Any

import jax
import numpy as np
from etils import epath


def sha256_file(path: epath.PathLike) -> str:
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as f:
        while block := f.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Replaces `path` in one step: a reader sees the old content or the new, never a part. Process 0 alone writes."""
    if jax.process_index() != 0:
        return
    path = epath.Path(path)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_json(path: epath.PathLike, value: Any) -> None:
    """JSON with sorted keys and one newline at the end; numbers that are not finite become null."""
    write_bytes(path, (json.dumps(plain(value), indent=2, sort_keys=True) + "\n").encode())


def read_json(path: epath.PathLike) -> Any:
    """Raises ValueError naming the file if it holds no JSON."""
    try:
        return json.loads(epath.Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: not JSON ({error})") from error


def plain(value: Any) -> Any:
    """Arrays and NumPy scalars to lists and numbers; NaN and infinity to None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
