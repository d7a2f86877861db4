"""Metrics as JSON lines: one record a dispatch, per-seed values as lists."""

from typing import Any

import jax
from etils import epath

from storage.files import append_line, json_line, read_json_lines, write_bytes


class MetricsWriter:
    """Appends records to `path`; opened at step n it first cuts off what was written after step n.

    A run that was killed and resumed from a checkpoint leaves the same file as an unbroken one.  Wall times do not
    belong here (they would differ): see `WallTimes`.

    Args:
      resume_step: step of the checkpoint that training goes on from.
      width: of arrays only the first so many values are written (lanes behind them are dummies); None: all.
    """

    def __init__(self, path: epath.PathLike, resume_step: int, width: int | None = None):
        self._path = epath.Path(path)
        self._width = width
        written = read_json_lines(self._path) if self._path.exists() else []
        if nameless := [i for i, record in enumerate(written, 1) if not isinstance(record.get("step"), int)]:
            raise ValueError(f"{self._path}: line {nameless[0]} has no step, it is damaged: take it out, or train again with --overwrite")
        lines = [json_line(record) for record in written if record["step"] <= resume_step]
        write_bytes(self._path, "".join(lines).encode())

    def write(self, step: int, **values: Any) -> None:
        cut = {k: v[: self._width] if getattr(v, "ndim", 0) else v for k, v in values.items()}
        _append(self._path, {"step": step, **cut})


class WallTimes:
    """Appends what differs from run to run (seconds, rates, device) to a file of its own."""

    def __init__(self, path: epath.PathLike):
        self._path = epath.Path(path)

    def write(self, **values: Any) -> None:
        _append(self._path, values)


def _append(path: epath.Path, record: dict[str, Any]) -> None:
    if jax.process_index() != 0:
        return
    append_line(path, json_line(record))
