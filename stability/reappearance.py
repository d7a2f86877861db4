"""How probable it is that a feature reappears in an independently trained SAE (the paper's eq. 3–4), and its label."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from stability import nulls, similarity

STABLE, INTERMEDIATE, UNSTABLE = "stable", "intermediate", "unstable"
DEAD, RARE, LIVE = "dead", "rare", "live"


class Interval(NamedTuple):
    """Bounds of a probability, arrays of one shape."""

    low: np.ndarray
    high: np.ndarray


def table(
    dictionaries: Sequence[np.ndarray] | np.ndarray,
    *,
    theta: float = 0.7,
    epsilon: float = 0.05,
    confidence: float = 0.95,
    seeds: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
    """p̂ of every feature of every dictionary: columns of equal length, a row per (dictionary, feature), as `pandas.DataFrame` takes them.

    Args:
      dictionaries: (S, F, D), or S arrays (F_s, D): decoder rows of any length. Where sizes differ p̂ has a direction: how often a feature
        of one is found in the others.
      theta: cosine from which a feature counts as the same; 1: rows that are equal up to rounding.
      epsilon: stable is p̂ ≥ 1−ε, unstable p̂ ≤ ε.
      confidence: of the intervals, which are Clopper–Pearson's over the other dictionaries.
      seeds: names of the dictionaries; None: 0, 1, …

    Returns:
      seed, feature; reappearances, comparisons, p, p_low, p_high; label; best_cosine (mean over the others), and chance: p̂ of uniform
      directions against as many as the largest of the others has.

    Raises:
      ValueError: fewer than two dictionaries, of different width, not finite, θ, ε or the confidence out of bounds, or a name that stands twice.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: between 0 and 1")
    _check_theta(theta)
    allowed_misses(1, epsilon)
    if not len(dictionaries) or (isinstance(dictionaries, np.ndarray) and dictionaries.ndim != 3):
        of = f"an array of shape {dictionaries.shape}" if isinstance(dictionaries, np.ndarray) else f"{type(dictionaries).__name__}"
        raise ValueError(f"dictionaries is {of}: an array (S, F, D), or a list of arrays (F, D), at least 2")
    arrays = [np.asarray(w) for w in dictionaries]
    shapes = [w.shape for w in arrays]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(f"dictionaries of shapes {shapes}: each must be (features, width), of one width")
    sizes, s = [len(w) for w in arrays], len(arrays)
    if seeds is not None and len(seeds) != s:
        raise ValueError(f"{len(seeds)} seeds for {s} dictionaries")
    if seeds is not None and len({str(seed) for seed in seeds}) < s:
        raise ValueError(f"seeds={list(seeds)}: one name stands twice; each dictionary needs its own")
    if s < 2:
        raise ValueError(f"{s} dictionary: stability compares at least 2")
    if not all(np.issubdtype(w.dtype, np.number) and not np.iscomplexobj(w) for w in arrays):
        raise ValueError(f"dictionaries of types {[str(w.dtype) for w in arrays]}: each must hold real numbers")
    most = max(sizes)
    padded_SFD = np.stack([np.pad(w, ((0, most - len(w)), (0, 0))) for w in arrays])
    cosine_SSF = similarity.all_pairs(padded_SFD, sizes=sizes).cosine
    counts_SF = reappears(cosine_SSF, theta).sum(axis=1)
    interval = clopper_pearson(counts_SF, s - 1, confidence)
    exists_SF = np.arange(most) < np.array(sizes)[:, None]
    place_SF, feature_SF = np.indices(counts_SF.shape)
    others = [max(size for k, size in enumerate(sizes) if k != i) for i in range(s)]
    width = shapes[0][1]
    chance_S = np.array([nulls.chance_of_match(theta, width, size) if width > 1 else np.nan for size in others])
    columns = {
        "seed": np.asarray(range(s) if seeds is None else seeds)[place_SF],
        "feature": feature_SF,
        "reappearances": counts_SF,
        "comparisons": np.full_like(counts_SF, s - 1),
        "p": counts_SF / (s - 1),
        "p_low": interval.low,
        "p_high": interval.high,
        "label": labels(counts_SF, s - 1, epsilon),
        "best_cosine": np.where(np.isnan(cosine_SSF), 0.0, cosine_SSF).sum(axis=1) / (s - 1),
        "chance": chance_S[place_SF],
    }
    return {name: values[exists_SF] for name, values in columns.items()}


def reappears(best_cosine_SSF: np.ndarray, theta: float) -> np.ndarray:
    """Whether feature f of anchor s has a match at cosine ≥ θ in seed k: bool (S, S, F), False on the diagonal.

    Signed cosine, many-to-one; θ = 1: equal up to rounding.  Raises ValueError for θ outside (0, 1].
    """
    _check_theta(theta)
    with np.errstate(invalid="ignore"):
        return similarity.reaches(np.asarray(best_cosine_SSF), theta)


def _check_theta(theta: float) -> None:
    if not 0 < theta <= 1:
        raise ValueError(f"theta={theta}: a cosine in (0, 1]")


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

    Raises:
      ValueError: no comparisons, which tell nothing, or ε out of bounds.
    """
    if comparisons < 1:
        raise ValueError(f"labels of {comparisons} comparisons: at least 1 is needed, which takes 2 dictionaries")
    counts, misses = np.asarray(counts), allowed_misses(comparisons, epsilon)
    return np.select([counts >= comparisons - misses, counts <= misses], [STABLE, UNSTABLE], INTERMEDIATE)


def clopper_pearson(counts: np.ndarray, comparisons: int, confidence: float) -> Interval:
    """Exact binomial interval of p for `counts` successes in `comparisons` (Clopper & Pearson 1934).

    Raises:
      ValueError: no comparisons, counts that are not between 0 and their number, or a confidence that is not between 0 and 1.
    """
    counts = np.asarray(counts)
    if comparisons < 1 or not 0 < confidence < 1 or (counts.size and not 0 <= counts.min() <= counts.max() <= comparisons):
        raise ValueError(
            f"an interval of {comparisons} comparisons at {confidence=}: at least 1, counts from 0 to it, confidence between 0 and 1"
        )
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
