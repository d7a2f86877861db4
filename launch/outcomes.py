"""What a stage leaves where it finds nothing to measure."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from storage import files


def not_measured(folder: epath.Path, because: str, empty: Mapping[str, Any] | None = None) -> list[epath.Path]:
    """Says so, and writes a summary of `empty` figures and the reason; returns the stage's files."""
    print(f"{folder.name}: not measured, {because}")
    files.write_json(folder / "summary.json", {**(empty or {}), "not_measured": because})
    return [folder / "summary.json"]
