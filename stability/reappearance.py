"""How probable it is that a feature reappears in an independently trained SAE (the paper's eq. 3–4), and its label."""

import math
from typing import NamedTuple

import numpy as np
import scipy.stats

STABLE, INTERMEDIATE, UNSTABLE = "stable", "intermediate", "unstable"
DEAD, RARE, LIVE = "dead", "rare", "live"


class Interval(NamedTuple):
    """Bounds of a probability, arrays of one shape."""

    low: np.ndarray
    high: np.ndarray


def reappears(best_cosine_SSF: np.ndarray, theta: float) -> np.ndarray:
    """Whether feature f of anchor s has a match at cosine ≥ θ in seed k: bool (S, S, F), False on the diagonal.

    Signed cosine, many-to-one.  Raises ValueError for θ outside (0, 1].
    """
    if not 0 < theta <= 1:
        raise ValueError(f"theta={theta}: a cosine in (0, 1]")
    with np.errstate(invalid="ignore"):
        return np.asarray(best_cosine_SSF) >= theta


def allowed_misses(comparisons: int, epsilon: float) -> int:
    """⌊εN⌋: comparisons that a stable feature may miss, and an unstable one may hit. 0 with fewer than 1/ε comparisons."""
    if not 0 <= epsilon < 0.5:
        raise ValueError(f"epsilon={epsilon}: must be in [0, 0.5)")
    return math.floor(epsilon * comparisons + 1e-9)


def labels(counts: np.ndarray, comparisons: int, epsilon: float) -> np.ndarray:
    """Stable if p̂ ≥ 1−ε, unstable if p̂ ≤ ε, else intermediate; decided on integer counts, never on floating-point p̂.

    Args:
      counts: comparisons in which the feature reappears.
      comparisons: N.
      epsilon: in [0, ½); with fewer than 1/ε comparisons it means all or none.
    """
    counts, misses = np.asarray(counts), allowed_misses(comparisons, epsilon)
    return np.select([counts >= comparisons - misses, counts <= misses], [STABLE, UNSTABLE], INTERMEDIATE)


def clopper_pearson(counts: np.ndarray, comparisons: int, confidence: float) -> Interval:
    """Exact binomial interval of p for `counts` successes in `comparisons` (Clopper & Pearson 1934)."""
    counts = np.asarray(counts)
    tail = (1 - confidence) / 2
    # The Beta quantile is undefined at counts 0 (lower) and N (upper), where the bound is 0 and 1.
    inside_low, inside_high = np.maximum(counts, 1), np.minimum(counts, comparisons - 1)
    low = scipy.stats.beta.ppf(tail, inside_low, comparisons - inside_low + 1)
    high = scipy.stats.beta.ppf(1 - tail, inside_high + 1, comparisons - inside_high)
    return Interval(np.where(counts == 0, 0.0, low), np.where(counts == comparisons, 1.0, high))


def strata(firings: np.ndarray, rare_below: int) -> np.ndarray:
    """Dead (never fires on the evaluation tokens), rare (fewer than `rare_below` firings), or live."""
    firings = np.asarray(firings)
    return np.select([firings == 0, firings < rare_below], [DEAD, RARE], LIVE)


def chance_corrected(p: np.ndarray | float, chance: float) -> np.ndarray | float:
    """(p − c) / (1 − c): 0 at the null model's rate c, 1 at certainty. Raises ValueError where c is 1 (nothing can be told)."""
    if not 0 <= chance < 1:
        raise ValueError(f"chance={chance}: p̂ cannot be corrected for a null that reappears always")
    return (p - chance) / (1 - chance)
