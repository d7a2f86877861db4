"""A figure with what it takes to believe it."""

from typing import Any, NamedTuple


class Count(NamedTuple):
    """How many of what an estimate rests on."""

    number: int
    of: str


class Estimate(NamedTuple):
    """One figure of `summary.json`.

    Attributes:
      value: the figure; None if it could not be measured.
      low, high: confidence interval; None where there is none.
      null: what the strongest null model gives for the same figure; None where no null applies.
      n: what the interval's unit of replication is, and how many.
      unit: of value, interval and null.
    """

    value: float | None
    low: float | None
    high: float | None
    null: float | None
    n: Count
    unit: str

    def as_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "n": self.n._asdict()}


def unmeasured(n: Count, unit: str) -> Estimate:
    return Estimate(None, None, None, None, n, unit)
