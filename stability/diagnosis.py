"""Why a feature does not reappear: one reason for each, from evidence that is given with it."""

from typing import NamedTuple

import numpy as np

from stability.reappearance import DEAD, RARE
from stability.similarity import least_cosine

NEVER, UNDER_TRAINED, SPLIT, AMBIGUOUS, UNEXPLAINED = "dead", "rare or under-trained", "split or absorbed", "basis ambiguity", "unexplained"
REASONS = (NEVER, UNDER_TRAINED, SPLIT, AMBIGUOUS, UNEXPLAINED)


class Evidence(NamedTuple):
    """Of N features.

    Attributes:
      stratum_N: dead, rare or live, on held-out tokens.
      split_N: share of the other seeds in which a combination of a few features reconstructs it.
      entry_N: reproducible subspace in which it lies, −1: none.
      split_by_chance_N: probability of such a combination by chance among the features of that subspace; 0 where it lies in none.
      drift_N: cosine with its own direction earlier in training; NaN where that is not known.
    """

    stratum_N: np.ndarray
    split_N: np.ndarray
    entry_N: np.ndarray
    split_by_chance_N: np.ndarray
    drift_N: np.ndarray


def reasons(e: Evidence, *, in_seeds: float, chance: float, settled: float) -> np.ndarray:
    """One of `REASONS` for every feature; the first that applies.

    Dead; rare; split or absorbed, if it happens in enough seeds and not by chance in the crowd of its subspace; in a subspace whose basis is
    arbitrary; still moving; unexplained.  Moving comes late, since directions of an arbitrary basis drift for ever.

    Args:
      in_seeds: share of the other seeds in which a combination must be found.
      chance: probability from which combinations inside a subspace say nothing.
      settled: cosine below which a feature still moves.
    """
    with np.errstate(invalid="ignore"):
        moving_N = e.drift_N < least_cosine(settled)
    split_N = (e.split_N >= in_seeds) & (e.split_by_chance_N <= chance)
    conditions = [e.stratum_N == DEAD, e.stratum_N == RARE, split_N, e.entry_N >= 0, moving_N]
    return np.select(conditions, [NEVER, UNDER_TRAINED, SPLIT, AMBIGUOUS, UNDER_TRAINED], UNEXPLAINED)


def confusion(truth_N: np.ndarray, found_N: np.ndarray) -> np.ndarray:
    """How many features of each true reason (rows, in the order of `REASONS`) got each (columns)."""
    return np.array([[int(((truth_N == t) & (found_N == f)).sum()) for f in REASONS] for t in REASONS])
