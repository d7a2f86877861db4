"""A figure with what it takes to believe it."""

from typing import Any, NamedTuple


class Count(NamedTuple):
    """How many of what an estimate rests on."""

    number: int
    of: str


class Replicates(NamedTuple):
    """What an interval was made from, so that the interval of a difference between two figures of the same seeds and the same text can be made from both.

    Attributes:
      confidence: of the interval.
      without_seed: the figure without each seed, in order.
      without_document: the figure without each part of the text, seeds fixed; empty where the text plays no part in the interval.
      other_variance: of another source, as directions or few SAEs on Gaussian activations.
    """

    confidence: float
    without_seed: tuple[float, ...]
    without_document: tuple[float, ...] = ()
    other_variance: float = 0.0


class Estimate(NamedTuple):
    """One figure of `summary.json`.

    Attributes:
      value: the figure; None if it could not be measured.
      low, high: confidence interval; None where there is none.
      null: what the strongest null model gives for the same figure; None where no null applies.
      n: what the interval's unit of replication is, and how many.
      unit: of value, interval and null.
      replicates: what the interval is from, where it is from leaving out one seed at a time.
    """

    value: float | None
    low: float | None
    high: float | None
    null: float | None
    n: Count
    unit: str
    replicates: Replicates | None = None

    def as_dict(self) -> dict[str, Any]:
        """As `summary.json` holds it; `replicates` are left out where there are none."""
        fields = {**self._asdict(), "n": self.n._asdict()}
        replicates = fields.pop("replicates")
        return fields if replicates is None else fields | {"replicates": {k: _plain(v) for k, v in replicates._asdict().items()}}


def _plain(value: Any) -> Any:
    """Numbers of a list to seven digits: intervals need no more, and files stay small."""
    return [float(f"{x:.7g}") for x in value] if isinstance(value, tuple) else value


def unmeasured(n: Count, unit: str) -> Estimate:
    return Estimate(None, None, None, None, n, unit)
