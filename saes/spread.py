"""How far rows lie from their mean, added up in batches, exact also where the mean is large beside the spread.

Sums are of rows less a fixed centre, the mean of the first batch, in float64 ("shifted data"; Chan, Golub & LeVeque 1983, "Algorithms for
computing the sample variance"): what is subtracted in the end is small.
"""

from typing import Any, NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Sums over rows x (D), float64.

    Attributes:
      rows: how many.
      centre_D: what is taken off every row; any, but near the mean.
      sum_D: Σ (x − centre).
      square: Σ ‖x − centre‖².
    """

    rows: int
    centre_D: np.ndarray
    sum_D: np.ndarray
    square: float

    @property
    def variance(self) -> float:
        """Σ ‖x − x̄‖², x̄ the mean of the rows; 0 where they are all alike."""
        return max(self.square - float(np.square(self.sum_D).sum()) / self.rows, 0.0) if self.rows else 0.0

    @property
    def mean_D(self) -> np.ndarray:
        """x̄."""
        return self.centre_D + self.sum_D / self.rows

    def from_point(self, b_D: np.ndarray) -> float:
        """Σ ‖x − b‖²."""
        away_D = np.asarray(b_D, np.float64) - self.centre_D
        return self.square - 2.0 * float(away_D @ self.sum_D) + self.rows * float(np.square(away_D).sum())

    def about(self, centre_D: np.ndarray) -> "Spread":
        """The same sums with another centre."""
        away_D = self.centre_D - centre_D
        square = self.square + 2.0 * float(away_D @ self.sum_D) + self.rows * float(np.square(away_D).sum())
        return Spread(self.rows, centre_D, self.sum_D + self.rows * away_D, square)


def of_rows(x_BD: np.ndarray, centre_D: np.ndarray | None = None) -> Spread:
    """Of one batch, at least one row; the centre is their mean where none is given."""
    x = np.asarray(x_BD, np.float64)
    centre_D = x.mean(axis=0) if centre_D is None else centre_D
    left_BD = x - centre_D
    return Spread(len(x), centre_D, left_BD.sum(axis=0), float(np.square(left_BD).sum()))


def added(one: Spread | None, other: Spread) -> Spread:
    """Of both sets of rows together, about the first one's centre; None: no rows."""
    if one is None:
        return other
    other = other if other.centre_D is one.centre_D else other.about(one.centre_D)
    return Spread(one.rows + other.rows, one.centre_D, one.sum_D + other.sum_D, one.square + other.square)


def with_rows(before: Spread | None, x_BD: np.ndarray) -> Spread | None:
    """With one more batch; of one without rows nothing comes."""
    return added(before, of_rows(x_BD, None if before is None else before.centre_D)) if len(x_BD) else before


def share(part: Any, variance: float) -> Any:
    """`part` over Σ ‖x − x̄‖²; NaN where the rows are all alike, so that no share of their variance is defined."""
    return np.asarray(part, np.float64) / (variance if variance > 0 else np.nan)
