"""Files written whole or not at all, and their checksums. Paths are `etils.epath`, so a bucket works as a folder does."""

import errno
import hashlib
import json
import math
import os
import shutil
from typing import Any

import jax
import numpy as np
from etils import epath

from storage import ownership

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EROFS: "the disk is read-only"}


def sha256_file(path: epath.PathLike) -> str:
    found = hashlib.sha256()
    with epath.Path(path).open("rb") as f:
        while block := f.read(1 << 22):
            found.update(block)
    return found.hexdigest()


def sha256_pieces(path: epath.PathLike, pieces: int = 64, size: int = 1 << 14) -> str:
    """Of a file's length and evenly spaced pieces of it: tells another file under an old name apart without reading all of it."""
    path = epath.Path(path)
    length = path.stat().length
    found = hashlib.sha256(str(length).encode())
    with path.open("rb") as f:
        for i in range(pieces):
            f.seek(i * max(length - size, 0) // max(pieces - 1, 1))
            found.update(f.read(size))
    return found.hexdigest()


def write_bytes(path: epath.PathLike, data: bytes, every_process: bool = False) -> None:
    """Replaces `path` in one step: a reader sees the old content or the new, never a part.

    Args:
      every_process: of several hosts, all write (each a file of its own); else process 0 alone.

    Raises:
      OSError: it cannot be written; names the file and the space that is left.
    """
    if jax.process_index() != 0 and not every_process:
        return
    path = epath.Path(path)
    temporary = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ownership.note(path)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise OSError(cannot_write(path, error)) from error


def append_line(path: epath.PathLike, line: str) -> None:
    """Adds a line to a file. Raises OSError naming the file and the space that is left."""
    path = epath.Path(path)
    try:
        ownership.note(path)
        with path.open("a") as handle:
            handle.write(line)
    except OSError as error:
        raise OSError(cannot_write(path, error)) from error


def cannot_write(path: epath.PathLike, error: OSError) -> str:
    """One line on a file that could not be written: why, and how much space there is."""
    place = os.path.abspath(path)
    while not os.path.isdir(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    free = f", {shutil.disk_usage(place).free / 2**20:,.0f} MiB free there" if os.path.isdir(place) else ""
    reason = _FULL.get(error.errno or 0) or error.strerror or str(error)
    return f"{path} cannot be written: {reason}{free}; make room, or take another --workdir"


def checked_bytes(path: epath.PathLike, checksum: str, advice: str) -> bytes:
    """Content of a file that must match its sha256. Raises FileNotFoundError or ValueError naming the file and what to do."""
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: {advice}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError(f"{path} does not match its sha256, it is damaged: {advice}")
    return data


def check_sha256(path: epath.PathLike, checksum: str, advice: str) -> None:
    """Raises ValueError naming the file and what to do if it does not match its sha256."""
    if sha256_file(path) != checksum:
        raise ValueError(f"{path} does not match its sha256, it is damaged: {advice}")


def sidecar(path: epath.PathLike) -> epath.Path:
    """Where the checksum of a file lies, in the format of `sha256sum`."""
    path = epath.Path(path)
    return path.with_name(path.name + ".sha256")


def write_with_sidecar(path: epath.PathLike, data: bytes) -> None:
    """Writes a file and its checksum beside it."""
    write_bytes(path, data)
    write_bytes(sidecar(path), f"{hashlib.sha256(data).hexdigest()}  {epath.Path(path).name}\n".encode())


def sidecar_checksum(path: epath.PathLike) -> str | None:
    """The checksum beside a file, None if there is none."""
    beside = sidecar(path)
    return (beside.read_text().split() or [""])[0] if beside.exists() else None


def write_json(path: epath.PathLike, value: Any, every_process: bool = False) -> None:
    """JSON with sorted keys and one newline at the end; numbers that are not finite become null."""
    write_bytes(path, (json.dumps(plain(value), indent=2, sort_keys=True) + "\n").encode(), every_process)


def json_line(value: Any) -> str:
    """One line of a JSON-lines file; numbers that are not finite become null."""
    return json.dumps(plain(value)) + "\n"


def read_json(path: epath.PathLike) -> Any:
    """Raises ValueError naming the file if it holds no JSON."""
    try:
        return json.loads(epath.Path(path).read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: not JSON ({error})") from error


def read_json_lines(path: epath.PathLike) -> list[Any]:
    """The records of a JSON-lines file up to the first that is not whole (the last may have been cut by a kill)."""
    records = []
    for line in epath.Path(path).read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def write_record(path: epath.PathLike, record: dict[str, Any], every_process: bool = False) -> None:
    """JSON that carries its own checksum, under the key `sha256`."""
    write_json(path, {**record, "sha256": digest(record)}, every_process)


def read_record(path: epath.PathLike, advice: str, unsealed: set[str] | None) -> dict[str, Any]:
    """What `write_record` wrote, without its checksum.

    Args:
      advice: what to do about a damaged one.
      unsealed: the keys of records that earlier versions wrote without a checksum, which are read as they are; None: any keys.

    Raises:
      ValueError: no such record, or one that does not match its checksum; names the file.
    """
    try:
        record = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}: {advice}") from error
    if isinstance(record, dict):
        told = record.pop("sha256", None)
        if told == digest(record) or (told is None and _never_sealed(record, unsealed)):
            return record
    raise ValueError(f"{path} is damaged: it does not match its own checksum: {advice}")


def _never_sealed(record: dict[str, Any], unsealed: set[str] | None) -> bool:
    """Not one whose key `sha256` was damaged, which leaves the checksum under another name."""
    if unsealed is not None:
        return record.keys() == unsealed
    return not any(isinstance(value, str) and len(value) == 64 for value in record.values())


def digest(value: Any) -> str:
    """sha256 of what `write_json` would write."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


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
