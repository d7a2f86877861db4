"""How true reappearance probabilities p are spread over features, from counts of few comparisons.

A feature with probability p is found in h of n independent comparisons with probability Binomial(h; n, p). A table of counts says how
often each h occurs; many laws of p fit it. What can be said of a share of features, as those with p in [0.2, 0.8], are its least and
its largest value over all laws that fit the table within its own uncertainty: two linear programmes over a grid of p
(Tebaldi & West 1998 for the idea; bounds, since with few comparisons the law is not identified).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

GRID = 201  # values of p, both ends included
_EM_STEPS = 2000
_MOMENTS = 4
_RULE_OF_THREE = 3.0  # a count that none of N features has may still have a probability of about 3/N


class Shares(NamedTuple):
    """Shares of features whose true p lies in given intervals.

    Attributes:
      value_I: of the most likely law of p.
      low_I, high_I: over all laws that fit the counts.
      misfit: largest deviation of the best fitting law from the counts, as a share of what their uncertainty allows; above 1 no law fits.
    """

    value_I: np.ndarray
    low_I: np.ndarray
    high_I: np.ndarray
    misfit: float


def count_shares(hits_SSF: np.ndarray, among_SF: np.ndarray) -> np.ndarray:
    """Share of features by number of seeds in which they are found, (S,) for 0 … S−1.

    Args:
      hits_SSF: whether a feature of the first seed is found in the second; the diagonal is not read.
      among_SF: features that count.

    Returns:
      NaN where no feature counts.
    """
    seeds = len(hits_SSF)
    hits_SSF = hits_SSF & ~np.eye(seeds, dtype=bool)[:, :, None]
    counts = np.bincount(hits_SSF.sum(axis=1)[among_SF], minlength=seeds)[:seeds]
    return counts / counts.sum() if counts.sum() else np.full(seeds, np.nan)


def shares(hits_SSF: np.ndarray, among_SF: np.ndarray, intervals: Sequence[tuple[float, float]], confidence: float) -> Shares | None:
    """Bounds of the shares of features with p in each interval, ends included; None of fewer than four seeds, or where nothing counts.

    A law fits if every count, every sum of counts from 0 on, and the first moments are as observed, each within its own jackknife interval over seeds, all at
    once (Bonferroni). Counts are those of n = S−2 comparisons, averaged over which seed is left out, which is what leaving out seeds gives an error for.
    """
    seeds = len(hits_SSF)
    if seeds < 4:
        return None
    places = np.arange(seeds)
    without = np.array([count_shares(hits_SSF[np.ix_(places != s, places != s)], among_SF[places != s]) for s in places])
    if np.isnan(without).any():
        return None
    share_H = without.mean(axis=0)
    read_RH = _read_off(len(share_H) - 1)
    error_R = np.sqrt((seeds - 1) / seeds * np.sum(((without - share_H) @ read_RH.T) ** 2, axis=0))
    quantile = scipy.stats.t.ppf(1 - (1 - confidence) / 2 / len(read_RH), seeds - 1)
    return bounds(share_H, read_RH, quantile * error_R + _RULE_OF_THREE / among_SF.sum(), intervals)


def _read_off(n: int) -> np.ndarray:
    """(R, n+1): what is held against the counts 0 … n: each, sums of them, and E p, E p², … as far as n comparisons know them (factorial moments)."""
    h_H = np.arange(n + 1.0)
    moments = [np.prod([(h_H - i) / (n - i) for i in range(k)], axis=0) for k in range(1, min(_MOMENTS, n) + 1)]
    return np.vstack([np.eye(n + 1), np.tril(np.ones((n + 1, n + 1)))[1:-1], moments])


def bounds(share_H: np.ndarray, read_RH: np.ndarray, tolerance_R: np.ndarray, intervals: Sequence[tuple[float, float]]) -> Shares:
    """Bounds from shares by count.

    Args:
      share_H: share of features by count, 0 … n.
      read_RH: rows of weights; a law fits if what they read off it is what they read off `share_H`, within
      tolerance_R: so much.
    """
    p_P = np.linspace(0.0, 1.0, GRID)
    law_RP = read_RH @ binomial(len(share_H) - 1, p_P)
    target_R = read_RH @ share_H
    misfit = _misfit(law_RP, target_R, tolerance_R)
    allowed_R = tolerance_R * max(1.0, misfit * (1 + 1e-6))
    inside_IP = np.array([(p_P >= low - 1e-9) & (p_P <= high + 1e-9) for low, high in intervals], float)
    low_I = np.array([_extreme(inside_P, law_RP, target_R, allowed_R, 1.0) for inside_P in inside_IP])
    high_I = np.array([_extreme(inside_P, law_RP, target_R, allowed_R, -1.0) for inside_P in inside_IP])
    value_I = inside_IP @ most_likely(share_H)
    return Shares(np.clip(value_I, low_I, high_I), low_I, high_I, misfit)


def binomial(n: int, p_P: np.ndarray) -> np.ndarray:
    """(n+1, P): probability of each count at each p."""
    return np.asarray(scipy.stats.binom.pmf(np.arange(n + 1)[:, None], n, p_P[None, :]))


def most_likely(share_H: np.ndarray) -> np.ndarray:
    """The law on the grid of p with the largest likelihood, by expectation maximisation from the uniform law (Laird 1978)."""
    law_HP = binomial(len(share_H) - 1, np.linspace(0.0, 1.0, GRID))
    weight_P = np.full(GRID, 1 / GRID)
    for _ in range(_EM_STEPS):
        weight_P = weight_P * (law_HP.T @ (share_H / np.maximum(law_HP @ weight_P, 1e-300)))
    return weight_P / weight_P.sum()


def _misfit(law_RP: np.ndarray, target_R: np.ndarray, tolerance_R: np.ndarray) -> float:
    """Smallest factor on the tolerances with which some law fits."""
    count = law_RP.shape[1]
    upper = np.hstack([law_RP, -tolerance_R[:, None]])
    lower = np.hstack([-law_RP, -tolerance_R[:, None]])
    found = scipy.optimize.linprog(
        np.append(np.zeros(count), 1.0),
        A_ub=np.vstack([upper, lower]),
        b_ub=np.concatenate([target_R, -target_R]),
        A_eq=np.append(np.ones(count), 0.0)[None, :],
        b_eq=[1.0],
        method="highs",
    )
    return float(found.fun)


def _extreme(inside_P: np.ndarray, law_RP: np.ndarray, target_R: np.ndarray, allowed_R: np.ndarray, sign: float) -> float:
    """The least (sign 1) or largest (−1) mass inside over the laws that are allowed."""
    found = scipy.optimize.linprog(
        sign * inside_P,
        A_ub=np.vstack([law_RP, -law_RP]),
        b_ub=np.concatenate([target_R + allowed_R, allowed_R - target_R]),
        A_eq=np.ones((1, len(inside_P))),
        b_eq=[1.0],
        method="highs",
    )
    if found.status != 0:
        raise ArithmeticError(f"the linear programme for bounds of a share ended with: {found.message}")
    return float(np.clip(sign * found.fun, 0.0, 1.0))


def reliability(hits_SSF: np.ndarray, among_SF: np.ndarray) -> Callable[[np.ndarray], float]:
    """Correlation over features of p̂ between two disjoint halves of the comparisons, as a statistic of the weights of seeds (0 or 1).

    It is 1 where features differ in p and comparisons agree on it, 0 where all have one p. The expectation over all splits into halves (of 7: 3 and 4), in
    closed form from the counts, so that no order of seeds enters. It is not stepped up to the full number of comparisons (Spearman & Brown). NaN of fewer
    than three seeds, or where every feature has the same count.
    """

    def statistic(weights_S: np.ndarray) -> float:
        used = np.flatnonzero(weights_S)
        n = len(used) - 1
        share_H = count_shares(hits_SSF[np.ix_(used, used)], among_SF[used])
        if n < 2 or np.isnan(share_H).any():
            return float("nan")
        c_H, half = np.arange(n + 1.0), n // 2
        spread_H = half * (n - half) * c_H * (n - c_H) / (n**2 * (n - 1))  # variance of the hits in a half
        mean = float(share_H @ c_H) / n
        square = lambda size: float(share_H @ (spread_H + (size * c_H / n) ** 2)) / size**2 - mean**2
        product = float(share_H @ (half * (n - half) * (c_H / n) ** 2 - spread_H)) / (half * (n - half)) - mean**2
        scale = np.sqrt(max(square(half), 0.0) * max(square(n - half), 0.0))
        return product / scale if scale > 1e-12 else float("nan")

    return statistic
