"""Figures of a whole set of seeds, each a function of the weights with which seeds count, and their intervals.

A statistic takes `weights_S`, how often each seed is in the sample (all ones: the data as they are).  Means over pairs of
seeds get a percentile bootstrap.  Figures made of labels get a jackknife instead: a resample holds fewer *different*
seeds, "in all of them" is then easier, and the bootstrap would sit beside the estimate rather than around it.
"""

from collections.abc import Callable

import numpy as np
import scipy.stats

from stability import resampling
from stability.estimates import Count, Estimate, percentile_interval, unmeasured

Statistic = Callable[[np.ndarray], float]


def bootstrapped(statistic: Statistic, seeds: int, draws: int, confidence: float, *, null: float | None, unit: str) -> Estimate:
    """The statistic on all seeds with a percentile interval over resampled seeds."""
    value = statistic(np.ones(seeds))
    n = Count(seeds, "seeds")
    if np.isnan(value):
        return unmeasured(n, unit)
    sample = resampling.bootstrap(statistic, resampling.seed_weights(0, seeds, draws))
    return Estimate(value, *percentile_interval(sample, confidence), null, n, unit)


def jackknifed(
    statistic: Statistic,
    seeds: int,
    confidence: float,
    *,
    null: float | None,
    unit: str,
    log: bool = False,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """The statistic on all seeds with a t interval from leaving out one seed at a time (Efron & Tibshirani 1993, ch. 11).

    Args:
      log: the interval is made on the logarithm (ratios).
      bounds: where the statistic can lie; the interval is clipped to them.

    The interval is None with fewer than three seeds (leaving one out leaves no comparison), or where the statistic is
    undefined without some seed.
    """
    n = Count(seeds, "seeds")
    value = statistic(np.ones(seeds))
    if np.isnan(value):
        return unmeasured(n, unit)
    without = np.array([statistic(1.0 - np.eye(seeds)[i]) for i in range(seeds)]) if seeds >= 3 else np.array([np.nan])
    if np.isnan(without).any() or (log and (value <= 0 or (without <= 0).any())):
        return Estimate(value, None, None, null, n, unit)
    to, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    spread = to(without) - to(without).mean()
    error = np.sqrt((seeds - 1) / seeds * np.sum(spread**2))
    half = scipy.stats.t.ppf(0.5 + confidence / 2, seeds - 1) * error
    low, high = (float(np.clip(back(to(value) + sign * half), *bounds)) for sign in (-1, 1))
    return Estimate(value, low, high, null, n, unit)


def share_reappearing(reappears_SSF: np.ndarray, among_SF: np.ndarray) -> np.ndarray:
    """(anchor, other) → share of the anchor's features in `among` that reappear in the other; NaN on the diagonal and where there are none."""
    among = among_SF[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        share_SS = (reappears_SSF & among).sum(-1) / among.sum(-1)
    np.fill_diagonal(share_SS, np.nan)
    return share_SS


def label_masks(reappears_SSF: np.ndarray, epsilon: float, weights_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(stable, unstable), each bool (S, F), when seed k counts `weights_S[k]` times as a comparison."""
    counts_SF = np.einsum("k,akf->af", weights_S, reappears_SSF)
    comparisons_S1 = (weights_S.sum() - weights_S)[:, None]
    slack_S1 = np.floor(epsilon * comparisons_S1 + 1e-9)
    return counts_SF >= comparisons_S1 - slack_S1, counts_SF <= slack_S1


def label_share(reappears_SSF: np.ndarray, among_SF: np.ndarray, epsilon: float, stable: bool) -> Statistic:
    """Share of the features in `among` that are stable (or unstable)."""

    def statistic(weights_S: np.ndarray) -> float:
        mask_SF = label_masks(reappears_SSF, epsilon, weights_S)[0 if stable else 1]
        here = weights_S[:, None] * among_SF
        return float((here * mask_SF).sum() / here.sum()) if here.sum() > 0 else float("nan")

    return statistic


def label_ratio(values_SF: np.ndarray, reappears_SSF: np.ndarray, among_SF: np.ndarray, epsilon: float) -> Statistic:
    """Mean of `values` over stable features divided by their mean over unstable ones."""

    def statistic(weights_S: np.ndarray) -> float:
        means = []
        for mask_SF in label_masks(reappears_SSF, epsilon, weights_S):
            here = weights_S[:, None] * (among_SF & mask_SF)
            means.append(float((here * values_SF).sum() / here.sum()) if here.sum() > 0 else float("nan"))
        return means[0] / means[1] if means[1] != 0 else float("nan")

    return statistic


def split_half_difference(reappears_SSF: np.ndarray, among_SF: np.ndarray, epsilon: float) -> Statistic:
    """How much higher p̂ is for stable than for unstable features in comparisons that the labels have not seen.

    For every anchor the other seeds are split in two (by turns); features are labelled on one half, p̂ is taken on the
    other, and the halves change places.  Needs three seeds; NaN with fewer, or where a label is empty in all anchors.
    """

    def statistic(weights_S: np.ndarray) -> float:
        p: dict[bool, list[np.ndarray]] = {True: [], False: []}
        used = np.flatnonzero(weights_S)
        for anchor in used:
            others = used[used != anchor]
            halves = (others[::2], others[1::2])
            if min(len(h) for h in halves) < 1:
                return float("nan")
            for labelled_on, measured_on in (halves, halves[::-1]):
                counts_F = reappears_SSF[anchor, labelled_on].sum(axis=0)
                slack = np.floor(epsilon * len(labelled_on) + 1e-9)
                p_F = reappears_SSF[anchor, measured_on].mean(axis=0)
                p[True].append(p_F[among_SF[anchor] & (counts_F >= len(labelled_on) - slack)])
                p[False].append(p_F[among_SF[anchor] & (counts_F <= slack)])
        stable, unstable = np.concatenate(p[True]), np.concatenate(p[False])
        return float(stable.mean() - unstable.mean()) if len(stable) and len(unstable) else float("nan")

    return statistic
