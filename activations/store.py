"""Activations on disk: safetensors shards with a manifest of checksums. The final format of this repository.

A store is a folder:
  manifest.json         format, width, dtype, hook, documents' names, and of every shard its rows, bytes and sha256
  shard-00000.safetensors   acts (rows, D) float32 | bfloat16; document, position, token (rows,) int32

Rows follow the documents' order; `position` is the token's place in its document.  A shard is written whole or not at
all, and one that is there is not made again, so a harvest that was killed goes on where it stopped.
"""

import hashlib
import os
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors.numpy
from etils import epath

from storage import files
from storage.memory_map import memory_map
from storage.tensors import loads

FORMAT = "sae-stability activations 1"
ADVICE = "harvest again with --overwrite"
MANIFEST = "manifest.json"
_DTYPES: dict[str, Any] = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


class Rows(NamedTuple):
    """Activations (N, D) with the place of each row: document index, position in it, token id; each (N,) int32."""

    acts_ND: np.ndarray
    document_N: np.ndarray
    position_N: np.ndarray
    token_N: np.ndarray


class StoreWriter:
    """Writes shards one by one; `finish` makes the folder a store.

    Args:
      folder: made if it is not there; shards found in it with a matching record are kept.
      header: what the manifest says besides its shards (width, dtype, hook, documents, …).
    """

    def __init__(self, folder: epath.PathLike, header: dict[str, Any]):
        self._folder = epath.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._header = {"format": FORMAT, **header}
        self._shards: list[dict[str, Any]] = []

    def kept(self, index: int) -> bool:
        """Whether shard `index` stands from an earlier attempt at the same store, whole; then it counts as written."""
        record = self._record(index)
        if not record.exists():
            return False
        entry = files.read_json(record)
        path = self._folder / entry["shard"]["file"]
        if entry["header"] != self._header or not path.exists() or files.sha256_file(path) != entry["shard"]["sha256"]:
            return False
        self._shards.append(entry["shard"])
        return True

    def write(self, index: int, rows: Rows) -> None:
        """Raises ValueError for activations that are not finite or of another width."""
        if rows.acts_ND.shape[1] != self._header["width"]:
            raise ValueError(f"shard {index}: width {rows.acts_ND.shape[1]}, the store says {self._header['width']}")
        if not np.isfinite(rows.acts_ND.astype(np.float32)).all():
            raise ValueError(f"shard {index}: activations hold NaN or infinity; look at the model (lm.path)")
        tensors = {
            "acts": np.ascontiguousarray(rows.acts_ND, _DTYPES[self._header["dtype"]]),
            "document": np.ascontiguousarray(rows.document_N, np.int32),
            "position": np.ascontiguousarray(rows.position_N, np.int32),
            "token": np.ascontiguousarray(rows.token_N, np.int32),
        }
        path = self._folder / f"shard-{index:05d}.safetensors"
        data = safetensors.numpy.save(tensors)
        files.write_bytes(path, data)
        shard = {"file": path.name, "rows": len(rows.token_N), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        files.write_json(self._record(index), {"header": self._header, "shard": shard})
        self._shards.append(shard)

    def finish(self) -> epath.Path:
        """Writes the manifest and returns its path."""
        manifest = {**self._header, "rows": sum(s["rows"] for s in self._shards), "shards": self._shards}
        files.write_json(self._folder / MANIFEST, manifest)
        for record in self._folder.glob("*.record"):
            record.unlink()
        return self._folder / MANIFEST

    def _record(self, index: int) -> epath.Path:
        return self._folder / f"shard-{index:05d}.record"


class ActivationStore:
    """A finished store, read. Rows come from memory maps; a shard is verified against its checksum when it is first touched.

    Attributes:
      manifest: the whole manifest.
      width, rows: shape of the activations.

    Raises:
      FileNotFoundError: no manifest, or a shard is missing.
      ValueError: a manifest that is damaged or of another format, or a shard of another length.
    """

    def __init__(self, folder: epath.PathLike):
        self._folder = epath.Path(folder)
        path = self._folder / MANIFEST
        if not path.exists():
            raise FileNotFoundError(f"no {MANIFEST} in {self._folder}: not a finished activation store")
        self.manifest: dict[str, Any] = files.read_json(path)
        if self.manifest.get("format") != FORMAT:
            raise ValueError(f"{path}: format {self.manifest.get('format')!r}, expected {FORMAT!r}")
        for shard in self.manifest["shards"]:
            file = self._folder / shard["file"]
            if not file.exists():
                raise FileNotFoundError(f"activation shard {file} is missing: {ADVICE}")
            if file.stat().length != shard["bytes"]:
                raise ValueError(f"activation shard {file} has {file.stat().length} bytes, {shard['bytes']} were written: {ADVICE}")
        self.width: int = self.manifest["width"]
        self.rows: int = self.manifest["rows"]
        self._first_row = np.concatenate([[0], np.cumsum([s["rows"] for s in self.manifest["shards"]])])
        self._open: dict[int, dict[str, np.ndarray]] = {}

    def take(self, rows_N: np.ndarray) -> np.ndarray:
        """Activations of the given rows, in the given order: (N, D) float32. Raises ValueError naming a damaged shard."""
        out_ND = np.empty((len(rows_N), self.width), np.float32)
        shard_N = np.searchsorted(self._first_row, rows_N, side="right") - 1
        for index in np.unique(shard_N):
            here = shard_N == index
            out_ND[here] = self._shard(int(index))["acts"][rows_N[here] - self._first_row[index]]
        return out_ND

    def column(self, name: str) -> np.ndarray:
        """`document`, `position` or `token` of every row, (rows,) int32."""
        return np.concatenate([self._shard(i)[name] for i in range(len(self.manifest["shards"]))])

    def load(self) -> Rows:
        """Everything in memory, activations as float32."""
        places = (self.column(name) for name in ("document", "position", "token"))
        return Rows(self.take(np.arange(self.rows)), *places)

    def _shard(self, index: int) -> dict[str, np.ndarray]:
        """The tensors of a shard, verified; mapped where the store is on a local disk, read where it is in a bucket."""
        if index not in self._open:
            shard = self.manifest["shards"][index]
            path = self._folder / shard["file"]
            if os.path.exists(path):
                files.check_sha256(path, shard["sha256"], ADVICE)
                tensors = memory_map(path)
            else:
                tensors = loads(files.checked_bytes(path, shard["sha256"], ADVICE), shard["file"])
            self._check(path, tensors, shard["rows"])
            self._open[index] = tensors
        return self._open[index]

    def _check(self, path: epath.Path, tensors: dict[str, np.ndarray], rows: int) -> None:
        expected: dict[str, tuple[tuple[int, ...], Any]] = {"acts": ((rows, self.width), np.dtype(_DTYPES[self.manifest["dtype"]]))}
        expected |= {name: ((rows,), np.dtype(np.int32)) for name in ("document", "position", "token")}
        for name, (shape, dtype) in expected.items():
            found = tensors.get(name)
            if found is None or (found.shape, found.dtype) != (shape, dtype):
                what = "is missing" if found is None else f"is {found.dtype} {found.shape}, the manifest says {dtype} {shape}"
                raise ValueError(f"{path}: tensor {name!r} {what}: {ADVICE}")
