"""NumPy archives from elsewhere: nothing is unpickled, and memory is asked for in proportion to the file."""

import io
import lzma
import math
import tokenize
import zipfile
import zlib
from typing import IO, Literal

import numpy as np
from etils import epath
from numpy.lib import format as npy

MAX_RATIO = 100  # uncompressed over compressed; that of trained weights is near 1, more was made to fill the memory
# What NumPy, zipfile and their codecs raise for files that are not as they should be.
DAMAGE = (
    ValueError, EOFError, RuntimeError, OverflowError, SyntaxError, TypeError, MemoryError, OSError, tokenize.TokenError,
    NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip


def read_npz(path: epath.PathLike) -> dict[str, np.ndarray]:
    """All members by name.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no archive, damaged, or a member that is pickled, twice there, or declares more data than it has; names the file.
    """
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no archive at {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: a file is wanted there")
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if sum(info.file_size for info in members) > MAX_RATIO * len(data):
                raise ValueError(f"its members claim more than {MAX_RATIO} times the file's length")
            names = [info.filename.removesuffix(".npy") for info in members]
            if len(set(names)) < len(names):
                raise ValueError("it holds a member twice")
            return {name: _member(archive, info) for name, info in zip(names, members, strict=True)}
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged or not a plain NumPy archive ({reason(error)}): fetch it again") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"member {info.filename!r} is compressed in a way that NumPy does not write")
    with archive.open(info) as member:
        shape, order, dtype = read_header(member, info)
        data = np.frombuffer(member.read(), dtype)  # read to the end: the archive's checksum is verified there
        return data.reshape(shape, order=order)


def read_header(file: IO[bytes], info: zipfile.ZipInfo) -> tuple[tuple[int, ...], Literal["F", "C"], np.dtype]:
    """Shape, order and dtype of a member whose first byte comes next; its data follow.

    Raises:
      ValueError: of an unknown version, pickled, no numbers, or of another length than it declares; names the member.
    """
    start = file.tell()
    shape, fortran, dtype = plain_header(file, f"member {info.filename!r}")
    if dtype.kind not in "fiub":
        raise ValueError(f"member {info.filename!r} holds {dtype}, not numbers")
    declared, there = dtype.itemsize * math.prod(shape), info.file_size - (file.tell() - start)
    if declared != there:
        raise ValueError(f"member {info.filename!r} declares {declared} bytes and has {there}")
    return shape, "F" if fortran else "C", dtype


def plain_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in column order, and dtype of an array whose `.npy` header comes next. Raises ValueError that begins with `name`."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        read = readers.get(npy.read_magic(file))
        found = read(file) if read else None
    except DAMAGE as error:
        raise ValueError(f"{name} has no header that can be read") from error
    if found is None:
        raise ValueError(f"{name} is of an unknown version")
    shape, fortran, dtype = found
    if dtype.hasobject:
        raise ValueError(f"{name} holds pickled objects, which are never loaded")
    if any(n < 0 for n in shape):
        raise ValueError(f"{name} has the shape {shape}")
    return shape, fortran, dtype


def reason(error: BaseException) -> str:
    """What is wrong with a file in our words: those of a library are left out."""
    return str(error) if type(error) is ValueError else "its bytes are not what they should be"
