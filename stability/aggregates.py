"""Figures of a whole set of seeds, each a function of the weights with which seeds count, and their intervals.

The seed is the unit of replication: comparisons of one anchor share it, and features share seeds.  A statistic takes
`weights_S`, how often each seed is in the sample (all ones: the data as they are; a zero leaves a seed out, as anchor and
as comparison).  Intervals come from leaving out one seed at a time.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

from stability.estimates import Count, Estimate, Replicates
from stability.reappearance import allowed_misses

Statistic = Callable[[np.ndarray], float]


def jackknifed(
    statistic: Statistic,
    seeds: int,
    confidence: float,
    *,
    null: float | None,
    unit: str,
    log: bool = False,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    documents: Sequence[float] = (),
    other_variance: float = 0.0,
) -> Estimate:
    """The statistic on all seeds with a t interval from leaving out one seed at a time (Efron & Tibshirani 1993, ch. 11).

    Args:
      null: the strongest null's value of the same figure; kept also where the figure itself is undefined.
      log: the interval is made on the logarithm (ratios).
      bounds: where the statistic can lie; the interval is clipped to them.
      documents: the statistic on all seeds without each part of the text; its variance counts beside that of seeds. Empty: text is held fixed.
      other_variance: of another source independent of seeds, as directions, with seeds held fixed; on the logarithm where `log`.

    Degrees of freedom are Satterthwaite's.

    The interval is None with fewer than three seeds (leaving one out leaves no comparison), or where the statistic is
    undefined without some seed or some part.
    """
    n = Count(seeds, "seeds")
    null = None if null is None or np.isnan(null) else null  # one that could not be measured
    value = statistic(np.ones(seeds))
    if np.isnan(value):
        return Estimate(None, None, None, null, n, unit)
    without = np.array([statistic(1.0 - np.eye(seeds)[i]) for i in range(seeds)]) if seeds >= 3 else np.array([np.nan])
    if np.isnan(without).any() or (log and (value <= 0 or (without <= 0).any())):
        return Estimate(value, None, None, null, n, unit)
    to, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    sources = [(_of_left_out(to(without)), seeds - 1.0)]
    parts = np.array(documents, np.float64)
    if len(parts) == 1 or not np.isfinite(parts).all() or (log and (parts <= 0).any()):
        return Estimate(value, None, None, null, n, unit)
    if len(parts):
        sources.append((_of_left_out(to(parts)), len(parts) - 1.0))
    half = half_width([*sources, (other_variance, np.inf)], confidence)
    low, high = (float(np.clip(back(to(value) + sign * half), *bounds)) for sign in (-1, 1))
    replicates = Replicates(confidence, tuple(without.tolist()), tuple(parts.tolist()), other_variance * (value**2 if log else 1.0))
    return Estimate(value, low, high, null, n, unit, replicates)


def _of_left_out(values_N: np.ndarray) -> float:
    """Variance of a figure, from what it is without each of N."""
    n = len(values_N)
    return float((n - 1) / n * np.sum((values_N - values_N.mean()) ** 2))


def half_width(sources: Sequence[tuple[float, float]], confidence: float) -> float:
    """Of a t interval whose variance has independent sources, each (variance, degrees of freedom; infinite: known)."""
    variance = sum(v for v, _ in sources)
    squares = sum(v**2 / df for v, df in sources)
    df = variance**2 / squares if squares > 0 else np.inf if variance else 1.0
    return float(scipy.stats.t.ppf(0.5 + confidence / 2, df) * np.sqrt(variance))


def change(before: Replicates, after: Replicates) -> float:
    """Half width of the interval of a figure's change between two measurements on the same seeds and the same text, in the same order.

    Seeds are left out of both at once; so are parts of the text, where both know as many. What is left of text adds up, and so do other sources, of which
    it is not known how far they are the same in both: then the interval is too wide.

    Raises:
      ValueError: of other seeds.
    """
    if len(before.without_seed) != len(after.without_seed):
        raise ValueError(f"figures of {len(before.without_seed)} and {len(after.without_seed)} seeds are no pair")
    difference = lambda a, b: np.subtract(b, a)
    sources = [(_of_left_out(difference(before.without_seed, after.without_seed)), len(after.without_seed) - 1.0)]
    texts = before.without_document, after.without_document
    if len(texts[0]) == len(texts[1]) > 1:
        sources.append((_of_left_out(difference(*texts)), len(texts[0]) - 1.0))
    else:
        sources += [(_of_left_out(np.array(text)), len(text) - 1.0) for text in texts if len(text) > 1]
    return half_width([*sources, (before.other_variance + after.other_variance, np.inf)], after.confidence)


def stratified_jackknifed(
    statistic: Callable[[int | None], float],
    strata: Sequence[Sequence[int]],
    confidence: float,
    *,
    null: float | None,
    unit: str,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """A figure of several independent sets of seeds, which enter it in different ways, with a t interval from leaving out one at a time.

    The variance is the sum of each set's own jackknife variance, around its own mean (what leaving one out shifts in common is no spread), with
    Satterthwaite's degrees of freedom.

    Args:
      statistic: of who is left out; None: nobody.
      strata: the sets, each of at least two.

    The interval is None where the statistic is undefined without some seed.
    """
    n = Count(sum(map(len, strata)), "seeds")
    null = None if null is None or np.isnan(null) else null
    value = statistic(None)
    if np.isnan(value):
        return Estimate(None, None, None, null, n, unit)
    without = [np.array([statistic(k) for k in places]) for places in strata]
    if any(np.isnan(values).any() for values in without):
        return Estimate(value, None, None, null, n, unit)
    variances = np.array([(len(v) - 1) / len(v) * np.sum((v - v.mean()) ** 2) for v in without])
    total = variances.sum()
    df = total**2 / np.sum(variances**2 / np.array([len(v) - 1 for v in without])) if total > 0 else 1.0
    half = scipy.stats.t.ppf(0.5 + confidence / 2, df) * np.sqrt(total)
    low, high = (float(np.clip(value + sign * half, *bounds)) for sign in (-1, 1))
    return Estimate(value, low, high, null, n, unit)


def of_groups(
    values: Sequence[float], confidence: float, *, null: float | None, unit: str, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """Mean of figures of independent groups of seeds, with a t interval over these: wide, where they are two. None of one group, or of NaN."""
    n, mean = Count(len(values), "groups"), float(np.mean(values))
    if np.isnan(mean):
        return Estimate(None, None, None, null, n, unit)
    if len(values) < 2:
        return Estimate(mean, None, None, null, n, unit)
    half = scipy.stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * float(np.std(values, ddof=1)) / np.sqrt(len(values))
    low, high = (float(np.clip(mean + sign * half, *bounds)) for sign in (-1, 1))
    return Estimate(mean, low, high, null, n, unit)


def pair_mean(values_SS: np.ndarray, weights_S: np.ndarray) -> float:
    """Mean over ordered pairs of different seeds, each pair weighted by the product of its seeds' weights.

    Pairs that are NaN (nothing to compare) are left out; NaN if none is left.
    """
    pair = np.outer(weights_S, weights_S).astype(np.float64)
    np.fill_diagonal(pair, 0.0)
    pair[np.isnan(values_SS)] = 0.0
    return float(np.sum(pair * np.nan_to_num(values_SS)) / pair.sum()) if pair.sum() > 0 else float("nan")


def seed_mean(values_S: np.ndarray, weights_S: np.ndarray) -> float:
    """Weighted mean over seeds; NaN seeds are left out."""
    weights = np.where(np.isnan(values_S), 0.0, weights_S)
    return float(np.sum(weights * np.nan_to_num(values_S)) / weights.sum()) if weights.sum() > 0 else float("nan")


def share_reappearing(reappears_SSF: np.ndarray, among_SF: np.ndarray) -> np.ndarray:
    """(anchor, other) → share of the anchor's features in `among` that reappear in the other; NaN where there are none, and on the diagonal."""
    among = among_SF[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        share_SS = (reappears_SSF & among).sum(-1) / among.sum(-1)
    np.fill_diagonal(share_SS, np.nan)
    return share_SS


def mean_among(values_SSF: np.ndarray, among_SF: np.ndarray, diagonal: bool = True) -> np.ndarray:
    """(anchor, other) → mean over the anchor's features in `among` of what is defined; NaN where nothing is, and on the `diagonal`."""
    there_SSF = among_SF[:, None, :] & ~np.isnan(values_SSF)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_SS = np.where(there_SSF, values_SSF, 0.0).sum(-1, dtype=np.float64) / there_SSF.sum(-1)
    if diagonal:
        np.fill_diagonal(mean_SS, np.nan)
    return mean_SS


def label_masks(
    reappears_SSF: np.ndarray, epsilon: float, weights_S: np.ndarray, counts_SF: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(stable, unstable), each bool (S, F), when seed k counts `weights_S[k]` times as a comparison.

    The number of comparisons that a label may miss is that of the full set of seeds: with one of 21 seeds left out it would
    fall from 1 to 0, and the interval would belong to another statistic.

    Args:
      counts_SF: comparisons in which features reappear when every seed counts once, if they are known already; what then remains is
        to take off or add the seeds that count otherwise.
    """
    misses = allowed_misses(len(weights_S) - 1, epsilon)
    counts_SF = reappears_SSF.sum(axis=1) if counts_SF is None else counts_SF
    for k in np.flatnonzero(weights_S != 1):
        counts_SF = counts_SF + (weights_S[k] - 1) * reappears_SSF[:, k]
    comparisons_S1 = (weights_S.sum() - weights_S)[:, None]
    return counts_SF >= comparisons_S1 - misses, counts_SF <= misses


def label_share(reappears_SSF: np.ndarray, among_SF: np.ndarray, epsilon: float, stable: bool) -> Statistic:
    """Share of the features in `among` that are stable (or unstable)."""
    counts_SF = reappears_SSF.sum(axis=1)

    def statistic(weights_S: np.ndarray) -> float:
        mask_SF = label_masks(reappears_SSF, epsilon, weights_S, counts_SF)[0 if stable else 1]
        here = weights_S[:, None] * among_SF
        return float((here * mask_SF).sum() / here.sum()) if here.sum() > 0 else float("nan")

    return statistic


def label_mean(
    values_SF: np.ndarray, reappears_SSF: np.ndarray, among_SF: np.ndarray, epsilon: float, stable: bool, median: bool = False
) -> Statistic:
    """Mean (or median) of `values` over stable (or unstable) features."""
    counts_SF = reappears_SSF.sum(axis=1)

    def statistic(weights_S: np.ndarray) -> float:
        mask_SF = among_SF & label_masks(reappears_SSF, epsilon, weights_S, counts_SF)[0 if stable else 1]
        weight_N = np.broadcast_to(weights_S[:, None], mask_SF.shape)[mask_SF]
        if not weight_N.sum():
            return float("nan")
        if median:
            return float(np.median(np.repeat(values_SF[mask_SF], weight_N.astype(int))))
        return float((weight_N * values_SF[mask_SF]).sum() / weight_N.sum())

    return statistic


def label_ratio(values_SF: np.ndarray, reappears_SSF: np.ndarray, among_SF: np.ndarray, epsilon: float, median: bool = False) -> Statistic:
    """Mean (or median) of `values` over stable features divided by that over unstable ones."""
    stable, unstable = (label_mean(values_SF, reappears_SSF, among_SF, epsilon, label, median) for label in (True, False))

    def statistic(weights_S: np.ndarray) -> float:
        below = unstable(weights_S)
        return stable(weights_S) / below if below != 0 else float("nan")

    return statistic


def held_out(values_SSF: np.ndarray, reappears_SSF: np.ndarray, among_SF: np.ndarray, epsilon: float, stable: bool) -> np.ndarray:
    """(anchor, other) → mean of the values over the anchor's features that are stable (or unstable) in all comparisons but this one.

    Labels chosen by a comparison say nothing of it: unstable features reappear in few others by definition. NaN where there are none, and
    everywhere with two seeds, of which no other comparison is left to label by.
    """
    s = len(reappears_SSF)
    if s < 3:
        return np.full((s, s), np.nan)
    misses, counts_SF = allowed_misses(s - 2, epsilon), reappears_SSF.sum(axis=1)
    table_SS = np.full((s, s), np.nan)
    for k in range(s):
        without_SF = counts_SF - reappears_SSF[:, k]
        chosen_SF = among_SF & (without_SF >= s - 2 - misses if stable else without_SF <= misses)
        table_SS[:, k] = mean_among(values_SSF[:, k : k + 1].astype(np.float64), chosen_SF, diagonal=False)[:, 0]
    np.fill_diagonal(table_SS, np.nan)
    return table_SS


def rise_per_doubling(before_SS: np.ndarray, after_SS: np.ndarray, doublings: float) -> Statistic:
    """By how much a table over pairs rose between two points along training, per doubling of training tokens."""
    return lambda weights_S: (pair_mean(after_SS, weights_S) - pair_mean(before_SS, weights_S)) / doublings
