"""Activations on disk: safetensors shards with a manifest of checksums. The final format of this repository.

A store is a folder:
  manifest.json         format, width, dtype, hook, documents' names, and of every shard its rows, bytes and sha256
  shard-00000.safetensors   acts (rows, D) float32 | bfloat16; document, position, token (rows,) int32;
                            acts_crc32 (rows / 256,) int64: of every block of rows, so that a block is verified when it is read

The activations themselves may lie elsewhere, in a user's array (`Elsewhere`): the shard then holds the rest, and the manifest says where.

Rows follow the documents' order; `position` is the token's place in its document.  A shard is written whole or not at
all, and one that is there is not made again, so a harvest that was killed goes on where it stopped.
"""

import collections
import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy
from etils import epath

from storage import files
from storage.arrays import open_arrays
from storage.memory_map import memory_map
from storage.tensors import loads

FORMAT = "sae-stability activations 2"
BLOCK = 256  # rows that have a checksum of their own
OPEN_SHARDS = 256  # at a time: each holds a file descriptor
ADVICE = "harvest again with --overwrite"
MANIFEST = "manifest.json"
_DTYPES: dict[str, Any] = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float64": np.float64}


class Rows(NamedTuple):
    """Activations (N, D) with the place of each row: document index, position in it, token id; each (N,) int32."""

    acts_ND: np.ndarray
    document_N: np.ndarray
    position_N: np.ndarray
    token_N: np.ndarray


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """Rows `first` to `first` + count of an array in a user's file, which is not copied.

    Attributes:
      path: absolute.
      name: of the array in the file; "": the file is a `.npy`.
      first: its first row here, of the array's leading axes flattened.
    """

    path: str
    name: str
    first: int

    def rows(self, count: int) -> np.ndarray:
        """(count, D), memory-mapped. Raises ValueError, FileNotFoundError where the file is not what it was."""
        acts = open_arrays(self.path)[self.name]
        return as_rows(acts)[self.first : self.first + count]


def as_rows(array: np.ndarray) -> np.ndarray:
    """All leading axes as one: (…, D) → (N, D), a view."""
    return array.reshape(-1, array.shape[-1])


class StoreWriter:
    """Writes shards one by one, by one host or several; `finish` makes the folder a store.

    Args:
      folder: made if it is not there; shards found in it of the same header are kept, those of a finished store too.
      header: what the manifest says besides its shards (width, dtype, hook, documents, …).
    """

    def __init__(self, folder: epath.PathLike, header: dict[str, Any]):
        self._folder = epath.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._header = {"format": FORMAT, **header}
        self._digest = files.digest(self._header)
        self._finished = self._of_manifest()

    def kept(self, index: int) -> bool:
        """Whether shard `index` stands from an earlier attempt at the same store, whole."""
        shard = self._shard(index)
        if shard is None:
            return False
        path = self._folder / shard["file"]
        return path.exists() and files.sha256_file(path) == shard["sha256"]

    def write(self, index: int, rows: Rows, elsewhere: Elsewhere | None = None) -> None:
        """A shard.

        Args:
          elsewhere: where the activations lie, if they are not to be copied.

        Raises:
          ValueError: activations that are not finite or of another width.
        """
        if rows.acts_ND.shape[1] != self._header["width"]:
            raise ValueError(f"shard {index}: width {rows.acts_ND.shape[1]}, the store says {self._header['width']}")
        if elsewhere is None and not np.isfinite(rows.acts_ND.astype(np.float32)).all():
            raise ValueError(f"shard {index}: activations hold NaN or infinity; look at the model (lm.path)")
        acts = rows.acts_ND if elsewhere else np.ascontiguousarray(rows.acts_ND, _DTYPES[self._header["dtype"]])
        tensors: dict[str, np.ndarray] = {
            "document": np.ascontiguousarray(rows.document_N, np.int32),
            "position": np.ascontiguousarray(rows.position_N, np.int32),
            "token": np.ascontiguousarray(rows.token_N, np.int32),
            "acts_crc32": np.array([_checksum(acts, b) for b in range(-(-len(acts) // BLOCK))], np.int64),
        }
        if elsewhere is None:
            tensors["acts"] = acts
        path = self._folder / f"shard-{index:05d}.safetensors"
        data = safetensors.numpy.save(tensors)
        files.write_bytes(path, data, every_process=True)
        shard = {"file": path.name, "rows": len(rows.token_N), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if elsewhere is not None:
            shard["acts"] = dataclasses.asdict(elsewhere)
        files.write_record(self._record(index), {"header": self._digest, "shard": shard}, every_process=True)

    def finish(self, count: int) -> epath.Path:
        """Writes the manifest, of the `count` shards that were written here or by other processes, and returns its path.

        Of several hosts the first does it, after all have written; the others wait for it outside.

        Raises:
          ValueError: a shard is not there.
        """
        if jax.process_index() == 0:
            shards = [self._shard(index) for index in range(count)]
            if missing := [index for index, shard in enumerate(shards) if shard is None]:
                raise ValueError(f"{self._folder} lacks {len(missing)} of {count} shards, first {missing[0]}: run the same command again")
            rows = sum(shard["rows"] for shard in shards if shard)
            files.write_record(self._folder / MANIFEST, {**self._header, "rows": rows, "shards": shards})
            for record in self._folder.glob("shard-*.record"):
                if re.fullmatch(r"shard-\d{5,}\.record", record.name):
                    record.unlink()
        return self._folder / MANIFEST

    def _shard(self, index: int) -> dict[str, Any] | None:
        """What is written of a shard, here or in the manifest of a finished store."""
        record = self._record(index)
        if record.exists():
            try:
                entry = files.read_record(record, "", unsealed=None)
            except ValueError:  # then the shard is made again
                return None
            return entry["shard"] if entry["header"] == self._digest else None
        return self._finished.get(index)

    def _of_manifest(self) -> dict[int, dict[str, Any]]:
        path = self._folder / MANIFEST
        if not path.exists():
            return {}
        manifest = files.read_record(path, ADVICE, unsealed=None)
        header = {name: value for name, value in manifest.items() if name not in ("rows", "shards")}
        return dict(enumerate(manifest["shards"])) if files.digest(header) == self._digest else {}

    def _record(self, index: int) -> epath.Path:
        return self._folder / f"shard-{index:05d}.record"


def _checksum(acts_ND: np.ndarray, block: int) -> int:
    return zlib.crc32(np.ascontiguousarray(acts_ND[block * BLOCK : (block + 1) * BLOCK]).tobytes())


class ActivationStore:
    """A finished store, read. Rows come from memory maps; a block of rows is verified against its checksum when it is first touched.

    Args:
      arrays: a user's files in which activations that were not copied lie now, if they were moved since.

    Attributes:
      manifest: the whole manifest.
      width, rows: shape of the activations.

    Raises:
      FileNotFoundError: no manifest, or a shard is missing.
      ValueError: a manifest that is damaged or of another format, or a shard of another length.
    """

    def __init__(self, folder: epath.PathLike, arrays: Sequence[pathlib.Path] = ()):
        self._folder, self._arrays = epath.Path(folder), tuple(arrays)
        path = self._folder / MANIFEST
        if not path.exists():
            raise FileNotFoundError(f"no {MANIFEST} in {self._folder}: not a finished activation store")
        self.manifest: dict[str, Any] = files.read_record(path, ADVICE, unsealed=None)
        if self.manifest.get("format") != FORMAT:
            found = self.manifest.get("format")
            raise ValueError(f"{path}: format {found!r}, expected {FORMAT!r}: {ADVICE}")
        for shard in self.manifest["shards"]:
            file = self._folder / shard["file"]
            if not file.exists():
                raise FileNotFoundError(f"activation shard {file} is missing: {ADVICE}")
            if file.stat().length != shard["bytes"]:
                raise ValueError(f"activation shard {file} has {file.stat().length} bytes, {shard['bytes']} were written: {ADVICE}")
        self.width: int = self.manifest["width"]
        self.rows: int = self.manifest["rows"]
        self._first_row = np.concatenate([[0], np.cumsum([s["rows"] for s in self.manifest["shards"]])])
        self._open: collections.OrderedDict[int, dict[str, np.ndarray]] = collections.OrderedDict()
        self._verified: dict[int, np.ndarray] = {}

    def take(self, rows_N: np.ndarray) -> np.ndarray:
        """Activations of the given rows, in the given order: (N, D) float32. Raises ValueError naming a damaged shard."""
        out_ND = np.empty((len(rows_N), self.width), np.float32)
        ascending = np.argsort(rows_N, kind="stable")  # as they lie on disk
        sorted_N = rows_N[ascending]
        bounds = np.searchsorted(sorted_N, self._first_row)
        for index in np.flatnonzero(np.diff(bounds)):
            here = slice(bounds[index], bounds[index + 1])
            out_ND[ascending[here]] = self._rows(int(index), sorted_N[here] - self._first_row[index])
        return out_ND

    def column(self, name: str) -> np.ndarray:
        """`document`, `position` or `token` of every row, (rows,) int32; verifies every shard whole."""
        columns = []
        for index, shard in enumerate(self.manifest["shards"]):
            files.check_sha256(self._folder / shard["file"], shard["sha256"], ADVICE)
            columns.append(np.array(self._shard(index)[name]))
        return np.concatenate(columns)

    def load(self) -> Rows:
        """Everything in memory, activations as float32."""
        places = [self.column(name) for name in ("document", "position", "token")]
        return Rows(self.take(np.arange(self.rows)), *places)

    def _rows(self, index: int, rows_N: np.ndarray) -> np.ndarray:
        """Activations of rows of one shard, their blocks verified."""
        tensors = self._shard(index)
        verified = self._verified.setdefault(index, np.zeros(len(tensors["acts_crc32"]), bool))
        blocks = np.unique(rows_N // BLOCK)
        for block in blocks[~verified[blocks]]:
            if _checksum(tensors["acts"], int(block)) != tensors["acts_crc32"][block]:
                raise ValueError(self._damaged(self.manifest["shards"][index], int(block) * BLOCK))
            verified[block] = True
        return tensors["acts"][rows_N]

    def _shard(self, index: int) -> dict[str, np.ndarray]:
        """The tensors of a shard; mapped where the store is on a local disk, read where it is in a bucket."""
        if index not in self._open:
            shard = self.manifest["shards"][index]
            path = self._folder / shard["file"]
            tensors = memory_map(path) if os.path.exists(path) else loads(path.read_bytes(), shard["file"])
            if "acts" in shard:
                tensors["acts"] = self._elsewhere(shard).rows(shard["rows"])
            self._check(path, tensors, shard["rows"])
            self._open[index] = tensors
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(index)
        return self._open[index]

    def _elsewhere(self, shard: dict[str, Any]) -> Elsewhere:
        """Where a shard's activations lie now: where they lay, or in the array of that name, the one whose folders are called alike from the end on."""
        found = Elsewhere(**shard["acts"])
        was = pathlib.PurePath(found.path)
        if os.path.exists(found.path) and (not self._arrays or was in self._arrays):
            return found
        alike = lambda p: sum(
            1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(reversed(p.parts), reversed(was.parts), strict=False))
        )
        named = [p for p in self._arrays if p.name == was.name]
        return dataclasses.replace(found, path=str(max(named, key=alike))) if named else found

    def _damaged(self, shard: dict[str, Any], row: int) -> str:
        if "acts" in shard:
            first = shard["acts"]["first"] + row
            return f"{shard['acts']['path']} is not what it was at rows from {first:,}: put it back, or take it in again with --overwrite"
        return f"{self._folder / shard['file']} does not match its checksum at rows from {row}, it is damaged: {ADVICE}"

    def _check(self, path: epath.Path, tensors: dict[str, np.ndarray], rows: int) -> None:
        dtype = (
            tensors["acts"].dtype if self.manifest["dtype"] == "as they are" and "acts" in tensors else _DTYPES.get(self.manifest["dtype"])
        )
        expected: dict[str, tuple[tuple[int, ...], Any]] = {"acts": ((rows, self.width), np.dtype(dtype))}
        expected |= {name: ((rows,), np.dtype(np.int32)) for name in ("document", "position", "token")}
        expected["acts_crc32"] = ((-(-rows // BLOCK),), np.dtype(np.int64))
        for name, (shape, dtype) in expected.items():
            found = tensors.get(name)
            if found is None or (found.shape, found.dtype) != (shape, dtype):
                what = "is missing" if found is None else f"is {found.dtype} {found.shape}, the manifest says {dtype} {shape}"
                raise ValueError(f"{path}: tensor {name!r} {what}: {ADVICE}")
