"""ConfigDict → validated frozen dataclasses. Below this layer nobody sees a ConfigDict.

Defaults live in `configs/default.py` (one place, commented); types and bounds live in the dataclasses.  The two lists of
fields must agree: `validated` refuses a field too many or too few.
"""

import dataclasses
import math
import types
import typing
from typing import Any

import ml_collections

from launch.sections import check
from launch.studies import (
    Comparison,
    FactorialStudy,
    GridCell,
    GridStudy,
    PoolStudy,
    Prediction,
    Pretraining,
    Study,
    SyntheticPoolStudy,
    SyntheticStudy,
)
from saes.config import SAEConfig, TrainConfig
from synthetic.config import WorldConfig

NEEDS = {
    "sensitivity": "stability",
    "subspace": "stability",
    "atlas": "stability",
    "diagnosis": "atlas",
    "transfer": "sensitivity",
    "predict": "sensitivity",
    "function": "stability",
    "splice": "function",
    "statistics": "stability",
    "explanations": "statistics",
    "recovery": "stability",
    "report": "stability",
    "pool": "train",
    "finetune": "pool",
    "pooled": "pool",
}
Settings = Study | FactorialStudy | PoolStudy | SyntheticPoolStudy | Comparison | Prediction | SyntheticStudy | GridStudy | Pretraining


def validated(config: ml_collections.ConfigDict) -> Any:
    """The config as frozen dataclasses.

    Raises:
      ValueError: an unknown stage, a field of a wrong type or out of bounds, or NaN anywhere; names the field.
    """
    stages = tuple(config.get("stages", ()))
    kind: Any = Pretraining if "pretrain" in config else SyntheticStudy if "synthetic" in config else Study
    if "cells" in config:
        kind = GridStudy
    if "pool" in config:
        kind = SyntheticPoolStudy if "synthetic" in config else PoolStudy
    if "saes" in config:
        kind = Prediction if "newcomers" in config else Comparison
    if "arms" in config:
        kind = FactorialStudy
    if not stages or (wrong := [name for name in stages if name not in kind.STAGES]):
        found = f"{wrong[0]!r}" if stages else "nothing"
        known = repr(kind.STAGES)
        raise ValueError(f'config.stages holds {found}: a part of --config.stages="{known}"')
    for stage, needed in NEEDS.items():
        check(
            stage not in stages or needed not in kind.STAGES or needed in stages,
            "stages",
            stages,
            f"{stage!r} reads what {needed!r} writes",
        )
    values = config.to_dict()
    if kind is GridStudy:
        values["cells"] = tuple(_cell(name, change, values) for name, change in values["cells"].items())
    settings = _from_dict(kind, values, "")
    if "pool" in config:  # not where a stage trains two SAEs more with the same settings
        _check_pools(settings, stages)
    return settings


def _check_pools(settings: Any, stages: tuple[str, ...]) -> None:
    needed = 2 * settings.pool.group + 2
    check(
        len(settings.seed_list) >= needed, "seeds", settings.seeds,
        f"at least {needed}: two groups of pool.group={settings.pool.group}, and 2 that judge",
    )  # fmt: skip
    pool, size = settings.pool, settings.sae.n_features
    check(2 * pool.span_rank < size, "pool.span_rank", pool.span_rank, f"below half of sae.n_features={size}: two features a dimension")
    check(", " not in pool.headline or "finetune" in stages, "pool.headline", pool.headline, "wants the stage 'finetune'")
    for field in ("rows", "eval_rows"):
        rare = settings.stability.rare_firings
        check(
            getattr(pool, field) >= rare,
            f"pool.{field}",
            getattr(pool, field),
            f"at least stability.rare_firings={rare}, or no feature counts",
        )
    foreign = settings.stability.dictionaries
    check(not foreign, "stability.dictionaries", foreign, "a study of pools trains its SAEs: leave it empty")
    most = settings.source.tokens if hasattr(settings, "source") else pool.rows
    check(pool.rows <= most, "pool.rows", pool.rows, f"at most source.tokens={most}")


def _cell(name: str, change: dict[str, Any], study: dict[str, Any]) -> GridCell:
    """The study's sections with what the cell changes in them."""
    sections = {"synthetic": WorldConfig, "sae": SAEConfig, "train": TrainConfig}
    check(isinstance(change, dict), f"cells.{name}", change, "a section of what the cell changes")
    for part, value in change.items():
        check(isinstance(value, dict), f"cells.{name}.{part}", value, "a section")
    for axis, value in change.get("at", {}).items():
        check(isinstance(value, int | float), f"cells.{name}.at.{axis}", value, "a number")
    if unknown := change.keys() - sections.keys() - {"at"}:
        raise ValueError(f"config.cells.{name}.{min(unknown)} is no section: at, synthetic, sae or train")
    of = {s: _from_dict(cls, study[s] | change.get(s, {}), f"cells.{name}.{s}.") for s, cls in sections.items()}
    return GridCell(name, tuple((axis, float(value)) for axis, value in change.get("at", {}).items()), **of)


def _from_dict(cls: Any, values: dict[str, Any], prefix: str) -> Any:
    hints = {field.name: typing.get_type_hints(cls)[field.name] for field in dataclasses.fields(cls)}
    for name in sorted(values.keys() ^ hints.keys()):
        problem = "is missing" if name in hints else f"is no field of {cls.__name__}"
        raise ValueError(f"config.{prefix}{name} {problem}")
    return cls(**{name: _convert(hints[name], values[name], f"{prefix}{name}") for name in hints})


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _from_dict(hint, value, f"{name}.") if isinstance(value, dict) else value
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        check(isinstance(value, list | tuple), name, value, "must be a tuple")
        return tuple(_convert(inner, v, name) for v in value)
    if isinstance(hint, types.UnionType) and value is None:
        return None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    check(
        isinstance(value, hint) and not (isinstance(value, bool) and hint is int),
        name,
        value,
        f"must be of type {getattr(hint, '__name__', hint)}",
    )
    check(not isinstance(value, float) or math.isfinite(value), name, value, "must be a finite number")
    check(not isinstance(value, int) or abs(value) < 2**53, name, value, "too large to count with")
    return value
