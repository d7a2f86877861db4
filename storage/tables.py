"""Parquet tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from storage.files import write_bytes


def write_table(path: epath.PathLike, columns: dict[str, Any]) -> epath.Path:
    """Writes columns of equal length (arrays, lists, or 2-D arrays, which become one list a row)."""
    arrays = {}
    for name, values in columns.items():
        values = np.asarray(values) if not isinstance(values, list) else values
        arrays[name] = pa.array(list(values)) if getattr(values, "ndim", 1) == 2 else pa.array(values)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink)
    write_bytes(path, sink.getvalue().to_pybytes())
    return epath.Path(path)


def read_table(path: epath.PathLike, columns: Sequence[str] | None = None) -> dict[str, Any]:
    """Columns (all, or those named) as NumPy arrays, list columns 2-D. Raises FileNotFoundError or ValueError naming the file."""
    table = _read(path, columns)
    return {
        name: np.stack(table[name].to_numpy()) if pa.types.is_list(table[name].type) else table[name].to_numpy()
        for name in table.column_names
    }


def read_records(path: epath.PathLike, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows as dictionaries, of all columns or those named that there are. Raises FileNotFoundError or ValueError naming the file."""
    return _read(path, columns).to_pylist()


def _read(path: epath.PathLike, columns: Sequence[str] | None) -> pa.Table:
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no table at {path}")
    try:
        file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
        return file.read(None if columns is None else [name for name in columns if name in file.schema_arrow.names])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged: not Parquet, or cut: make it again") from error
