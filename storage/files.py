"""Files written whole or not at all, and their checksums. Paths are `etils.epath`, so a bucket works as a folder does."""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
from typing import Any

import jax
import numpy as np
from etils import epath

from storage import ownership

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EROFS: "the disk is read-only"}
AGAIN = "put the file back from a copy, or --overwrite to make it again"
_SEAL = "# sha256 of the lines above: "  # ends a side-car; `sha256sum -c` passes over it
_CHECKSUM = re.compile(r"(?P<sum>[0-9a-f]{64})(  ?\*?(?P<name>.*[^ ]))?")  # a line of `sha256sum`, or the sum alone


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


def write_with_sidecar(path: epath.PathLike, data: bytes, also: dict[str, bytes] | None = None) -> None:
    """Writes a file and its checksum beside it, which ends with a checksum of its own.

    Args:
      also: by name, files of the same folder that belong to it: written too, and listed there too.
    """
    path = epath.Path(path)
    contents = {**(also or {}), path.name: data}  # the file itself last: a list cut behind a line lacks it, and is refused
    for name, content in contents.items():
        write_bytes(path.with_name(name), content)
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())
    write_bytes(sidecar(path), f"{lines}{_SEAL}{hashlib.sha256(lines.encode()).hexdigest()}\n".encode())


def sidecar_checksums(path: epath.PathLike, advice: str) -> dict[str, str] | None:
    """The checksums beside a file by file name, its own among them; None if there are none.

    What `sha256sum` or earlier versions wrote has no checksum of its own, and is read as it is; a checksum alone is that of the file.

    Args:
      advice: what to do about a damaged one.

    Raises:
      ValueError: empty, cut, not a list of checksums, not what its own checksum says, or without the file; names the side-car.
    """
    path, beside = epath.Path(path), sidecar(path)
    if not beside.exists():
        return None
    text = _text_of(beside)
    lines, seal, told = text.rpartition(_SEAL)
    if not seal:
        lines = text
    elif told != f"{hashlib.sha256(lines.encode()).hexdigest()}\n":
        raise ValueError(f"{beside} is damaged: it does not match its own checksum: {advice}")
    sums: dict[str, str] = {}
    for line in lines.splitlines():
        entry = _CHECKSUM.fullmatch(line)
        if entry is None:
            raise ValueError(f"{beside} is damaged: not a list of sha256 and file names: {advice}")
        sums[os.path.basename(entry["name"] or path.name)] = entry["sum"]
    if path.name not in sums:
        raise ValueError(f"{beside} is damaged: it has no checksum of {path.name}: {advice}")
    return sums


def check_sidecar(path: epath.PathLike, name: str, advice: str) -> None:
    """Raises ValueError naming a file of the same folder that is not what the list beside `path` says, where that lists it."""
    path = epath.Path(path)
    other = path.with_name(name)
    told = (sidecar_checksums(path, advice) or {}).get(name)
    if told is not None and other.exists() and not other.is_dir() and sha256_file(other) != told:
        raise ValueError(
            f"{other} does not match its sha256 in {sidecar(path).name}, it is damaged: {advice}, or remove that list if you changed it yourself"
        )


def _text_of(path: epath.Path) -> str:
    """Of a small file; bytes that are no text are replaced, so that they match nothing. Raises ValueError naming what cannot be read."""
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def write_json(path: epath.PathLike, value: Any, every_process: bool = False) -> None:
    """JSON with sorted keys and one newline at the end; numbers that are not finite become null."""
    write_bytes(path, json_bytes(value), every_process)


def json_bytes(value: Any) -> bytes:
    """What `write_json` writes."""
    return (json.dumps(plain(value), indent=2, sort_keys=True) + "\n").encode()


def json_line(value: Any) -> str:
    """One line of a JSON-lines file; numbers that are not finite become null."""
    return json.dumps(plain(value)) + "\n"


def read_json(path: epath.PathLike) -> Any:
    """Raises ValueError naming the file if it holds no JSON."""
    return _parsed(epath.Path(path).read_bytes(), str(path), "put it back from a copy, or make it again")


def read_json_lines(path: epath.PathLike) -> list[dict[str, Any]]:
    """The records of a JSON-lines file, without the last if a kill cut it: then it does not end its line.

    Raises:
      ValueError: any other line that is no JSON object; names file and line.
    """
    *whole, last = epath.Path(path).read_bytes().split(b"\n")
    records = [_parsed(line, f"{path}, line {number}", AGAIN) for number, line in enumerate(whole, 1)]
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number} is damaged: not a JSON object: {AGAIN}")
    with contextlib.suppress(ValueError):
        if isinstance(record := parse_json(last, ""), dict):
            records.append(record)
    return records


def _parsed(data: bytes, source: str, advice: str) -> Any:
    try:
        return parse_json(data, source)
    except ValueError as error:
        raise ValueError(f"{error}: {advice}") from error


def parse_json(data: bytes, source: str) -> Any:
    """What JSON text says. Raises ValueError naming `source` for what is no JSON."""
    try:
        return json.loads(data.decode())
    except json.JSONDecodeError as error:
        problem = f"not JSON at line {error.lineno} column {error.colno}"
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is no UTF-8"
    except RecursionError:
        problem = "its JSON is nested too deeply"
    except ValueError:
        problem = "a number in it has too many digits"
    raise ValueError(f"{source} is damaged: {problem}")


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
    return without_seal(path, _parsed(epath.Path(path).read_bytes(), str(path), advice), advice, unsealed)


def without_seal(path: epath.PathLike, record: Any, advice: str, unsealed: set[str] | None) -> dict[str, Any]:
    """As `read_record`, of what was read from `path` already."""
    if isinstance(record, dict):
        content = {key: value for key, value in record.items() if key != "sha256"}
        told = record.get("sha256")
        try:
            whole = told == digest(content) if "sha256" in record else _never_sealed(content, unsealed)
        except RecursionError:
            whole = False
        if whole:
            return content
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
