"""A config as a run wrote it: `--config=<workdir>/config.json` runs again what was run, and flags change it as they change any config."""

import os
from typing import Any

import ml_collections

from storage import files


def get_config(path: str) -> ml_collections.ConfigDict:
    """That of a file that a run wrote. Raises ValueError where it is none."""
    try:
        values = files.read_json(path)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise ValueError(f"--config={path}: no config of a run can be read there: {reason}") from error
    if not isinstance(values, dict) or "stages" not in values:
        raise ValueError(f"--config={path}: no config of a run, it names no stages")
    return ml_collections.ConfigDict(_tuples(values))


def _tuples(value: Any) -> Any:
    """JSON has lists where configs have tuples."""
    if isinstance(value, dict):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value
