"""Tables of what sets of features do for the reconstruction."""

from typing import Any

import numpy as np

from experiments.reappearance.feature_sets import STABLE, UNSTABLE
from experiments.reappearance.seed_values import Values


def _columns(rows: list[tuple[Any, ...]], names: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def curves_table(values: Values) -> dict[str, list[Any]]:
    """How: removed after the activation, removed before the selection, or all that is left."""
    rows = []
    for how in ("removed", "refilled", "kept"):
        for key in values.keys(how):
            e = values.mean(key)
            if np.isnan(values.of_seeds(key)).any() or e.value is None:
                continue  # a set that is smaller than m in some seed
            rows.append((how, key[1], key[2], e.value, e.low, e.high))
    return _columns(rows, ("how", "set", "features", "value", "low", "high"))


def sets_table(values: Values) -> dict[str, list[Any]]:
    figures = (
        "features",
        "part",
        "joint",
        "marginal",
        "redundancy",
        "per token",
        "per firing",
        "only",
        "refitted only",
        "refitted without",
        "refilled without",
    )
    rows = []
    for figure in figures:
        for key in values.keys(figure):
            e = values.mean(key)
            rows.append((key[1], figure, e.value, e.low, e.high))
    return _columns(rows, ("set", "figure", "value", "low", "high"))


def deciles_table(values: Values, bins: int) -> dict[str, list[Any]]:
    rows = []
    for label in (STABLE, UNSTABLE):
        for b in range(bins):
            e = values.mean(("decile", label, b))
            rows.append((b + 1, label, e.value, e.low, e.high, float(np.nansum(values.of_seeds(("decile features", label, b))))))
    return _columns(rows, ("decile", "label", "value", "low", "high", "features"))
