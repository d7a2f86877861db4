"""Arrays in a user's file, memory-mapped: `.npy`, `.npz`, safetensors. Nothing is unpickled, and what is not asked for is not read."""

import functools
import math
import os
import struct
import zipfile

import numpy as np

from storage.memory_map import memory_map
from storage.npz import DAMAGE, plain_header, read_header, read_npz, reason

SUFFIXES = (".npy", ".npz", ".safetensors")
_LOCAL_HEADER = 30  # bytes of a zip member's header before its name


def open_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file by name; the only one of a `.npy` is called "".

    Members of a `.npz` that are compressed (`np.savez_compressed`) cannot be mapped and are read whole.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not such a file, truncated, or one that holds pickled objects; names it.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"no file at {path}")
    about = os.stat(path)
    return _open(str(path), about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _open(path: str, size: int, changed: int) -> dict[str, np.ndarray]:
    del size, changed  # of another file under an old name
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".safetensors":
        return memory_map(path)
    try:
        if suffix == ".npy":
            return {"": _mapped_array(path)}
        if suffix != ".npz":
            raise ValueError(f"{path}: one of {', '.join(SUFFIXES)} is wanted")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED for m in members):
            return read_npz(path)
        if len({m.filename for m in members}) < len(members):
            raise ValueError("it holds a member twice")
        return {m.filename.removesuffix(".npy"): _mapped_member(path, m) for m in members}
    except (*DAMAGE, struct.error) as error:
        raise ValueError(f"{path} is damaged or not a plain NumPy file ({reason(error)}): make it again") from error


def _mapped_array(path: str) -> np.ndarray:
    with open(path, "rb") as f:
        shape, fortran, dtype = plain_header(f, "the array")
        first = f.tell()
    declared, there = dtype.itemsize * math.prod(shape), os.path.getsize(path) - first
    if declared > there:
        raise ValueError(f"its header declares {declared:,} bytes of numbers and {there:,} are there")
    return np.memmap(path, dtype, "r", first, shape, "F" if fortran else "C") if declared else np.empty(shape, dtype)


def _mapped_member(path: str, member: zipfile.ZipInfo) -> np.ndarray:
    with open(path, "rb") as f:
        f.seek(member.header_offset)
        header = f.read(_LOCAL_HEADER)
        if header[:4] != b"PK\3\4":
            raise ValueError(f"member {member.filename!r} is not where the archive says")
        f.seek(sum(struct.unpack("<HH", header[26:30])), os.SEEK_CUR)  # behind its name and what else it says
        shape, order, dtype = read_header(f, member)
        if f.tell() + dtype.itemsize * math.prod(shape) > os.path.getsize(path):
            raise ValueError(f"member {member.filename!r} reaches beyond the file's end")
        return np.memmap(path, dtype, "r", f.tell(), shape, order) if 0 not in shape else np.empty(shape, dtype)
