"""Figures as text: value, interval and unit in the form that tables and page share."""

from collections.abc import Mapping
from typing import Any


def number(value: float | None) -> str:
    """Three significant digits; counts whole; what is too small to matter as such."""
    if value is None:
        return "–"
    if isinstance(value, int) or (abs(value) >= 100 and value == int(value)):
        return f"{int(value):,}"
    if value == 0:
        return "0"
    if 0 < abs(value) < 1e-9:
        return "< 1e-9"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1e}"


def with_interval(estimate: Mapping[str, Any]) -> str:
    """`0.431 [0.402, 0.460]`, or the value alone, or `not measured`."""
    if estimate["value"] is None:
        return "not measured"
    if estimate["low"] is None or estimate["high"] is None:
        return number(estimate["value"])
    return f"{number(estimate['value'])} [{number(estimate['low'])}, {number(estimate['high'])}]"
