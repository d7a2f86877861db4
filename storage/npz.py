"""NumPy archives from elsewhere: nothing is unpickled, and no more memory is asked for than the file holds."""

import io
import math
import zipfile
import zlib

import numpy as np
from etils import epath
from numpy.lib import format as npy

MAX_RATIO = 1100  # what deflate can do at most is about 1030; a member that claims more was made to fill the memory


def read_npz(path: epath.PathLike) -> dict[str, np.ndarray]:
    """All members by name.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no archive, damaged, a member that is pickled or whose header declares more data than it has; names the file.
    """
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no archive at {path}")
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            return {info.filename.removesuffix(".npy"): _member(archive, info) for info in archive.infolist()}
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OverflowError, SyntaxError, TypeError) as error:
        raise ValueError(f"{path} is damaged or not a plain NumPy archive ({error}): fetch it again") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > MAX_RATIO * max(info.compress_size, 1):
        raise ValueError(f"member {info.filename!r} claims {info.file_size} bytes from {info.compress_size} compressed ones")
    with archive.open(info) as member:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(member))
        if read is None:
            raise ValueError(f"member {info.filename!r} is of an unknown version")
        shape, fortran, dtype = read(member)
        if dtype.hasobject:
            raise ValueError(f"member {info.filename!r} holds pickled objects, which are never loaded")
        declared, there = dtype.itemsize * math.prod(shape), info.file_size - member.tell()
        if declared != there:
            raise ValueError(f"member {info.filename!r} declares {declared} bytes and has {there}")
        data = np.frombuffer(member.read(), dtype)  # read to the end: the archive's checksum is verified there
        return data.reshape(shape, order="F" if fortran else "C")
