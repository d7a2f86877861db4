"""Whether the figures that decide a claim still move with training: their plateau, from the same rule at a quarter, at half and at the end.

A part is on its plateau if the interval of its change per doubling of training tokens lies within a third of its margin, the distance from its threshold,
on both sides of zero, and the change is not growing: a slow start has small first changes. The two ends are of the same seeds and the same text, so the
interval is that of a difference of pairs. Where a figure does not say what it is without each seed, the ends count as independent, which is rather too wide.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reports.results import Estimated
from reports.text import number
from stability import aggregates
from stability.estimates import Replicates

SHARE_OF_MARGIN = 1 / 3


class Point(NamedTuple):
    """The deciding figures after so many training tokens: estimates by the name of the part."""

    tokens: int
    estimates: Mapping[str, tuple[Estimated, ...]]


class Change(NamedTuple):
    """Per doubling of training tokens.

    Attributes:
      value, half: the change and the half width of its interval.
    """

    value: float
    half: float


def change(before: Estimated, after: Estimated, doublings: float) -> Change | None:
    """Between two points; None where one has no interval."""
    if any(e["low"] is None or e["high"] is None for e in (before, after)):
        return None
    one, other = _replicates(before), _replicates(after)
    if one is not None and other is not None and len(one.without_seed) == len(other.without_seed):
        half = aggregates.change(one, other)
    else:
        half = math.hypot(*((e["high"] - e["low"]) / 2 for e in (before, after)))
    return Change((after["value"] - before["value"]) / doublings, half / doublings)


def _replicates(estimate: Estimated) -> Replicates | None:
    fields = estimate.get("replicates")
    return None if fields is None else Replicates(**fields)


def moves(points: Sequence[Point], name: str, threshold: float) -> str:
    """Why a part is not on its plateau, with what would settle it, in one clause; "" if it is.

    Args:
      points: in order; the last is the end.
    """
    *_, first, middle, end = points
    texts = []
    if name not in end.estimates:
        return "not measured along training"
    for i, last in enumerate(end.estimates[name]):
        earlier = [point.estimates.get(name, ()) for point in (first, middle)]
        if any(len(estimates) <= i for estimates in earlier):
            return "not measured along training"
        changes = [
            change(one, other, math.log2(after.tokens / before.tokens))
            for one, other, before, after in ((earlier[0][i], earlier[1][i], first, middle), (earlier[1][i], last, middle, end))
        ]
        if changes[0] is None or changes[1] is None:
            return "without an interval along training"
        texts.append(_one(changes[0], changes[1], last["value"], threshold))
    return next((text for text in texts if text), "")


def _one(earlier: Change, last: Change, value: float, threshold: float) -> str:
    growing = abs(last.value) > (1 + 1e-6) * abs(earlier.value) and abs(last.value) > last.half
    if not growing and abs(last.value) + last.half <= SHARE_OF_MARGIN * abs(value - threshold):
        return ""
    text = f"changes by {number(last.value)} ± {number(last.half)} per doubling of training tokens"
    if abs(last.value) <= last.half:
        return f"{text}, not known to lie within a third of its margin of {number(abs(value - threshold))}: more seeds would tell"
    ratio = last.value / earlier.value if earlier.value else math.inf
    if growing or not 0 < ratio < 1:
        return f"{text}, {'and faster than before' if growing else 'without slowing down'}: no bound"
    return f"{text}; slowing down as it does it ends at {number(value + last.value * ratio / (1 - ratio))}"
