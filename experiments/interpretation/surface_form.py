"""Whether unstable features are more a matter of the token's text than stable ones: by the order of their scores, and what cut-offs would say."""

from typing import Any

import numpy as np

from experiments.reappearance.feature_sets import STABLE, UNSTABLE
from experiments.reappearance.seed_values import Key, Values
from stability.transfer import weighted_auroc

CUTOFFS = tuple(round(0.05 * k, 2) for k in range(1, 20))  # of the surface-form score
DIFFERENCE = "unstable less stable"
FIGURES = {"surface_auroc": ("auroc",), "surface_auroc_within_deciles": ("auroc within bins",)}  # of the summary, by key


def order(score_F: np.ndarray, rate_F: np.ndarray, stable_F: np.ndarray, unstable_F: np.ndarray, bins: int) -> dict[Key, float]:
    """Of one SAE: how far unstable features' scores lie above stable ones', and within bins of firing rate; features without a score are left out."""
    stable_F, unstable_F = (mask_F & np.isfinite(score_F) for mask_F in (stable_F, unstable_F))
    return {
        ("auroc",): auroc(score_F, stable_F, unstable_F),
        ("auroc within bins",): auroc_within_bins(score_F, rate_F, stable_F, unstable_F, bins),
    }


def auroc(score_F: np.ndarray, stable_F: np.ndarray, unstable_F: np.ndarray) -> float:
    """Probability that an unstable feature has the higher score than a stable one, ties half; NaN where one side is empty.

    Args:
      stable_F, unstable_F: disjoint masks, of features whose scores are finite.
    """
    if not stable_F.any() or not unstable_F.any():
        return float("nan")
    among_F = stable_F | unstable_F
    return float(weighted_auroc(unstable_F[among_F], score_F[among_F], np.ones((1, int(among_F.sum()))))[0])


def auroc_within_bins(score_F: np.ndarray, by_F: np.ndarray, stable_F: np.ndarray, unstable_F: np.ndarray, bins: int) -> float:
    """Mean of `auroc` over bins of equally many features by `by`, each bin counting as many features as its smaller side has; NaN where no bin has both."""
    among_F = stable_F | unstable_F
    if not among_F.any():
        return float("nan")
    bin_F = np.searchsorted(np.quantile(by_F[among_F], np.linspace(0, 1, bins + 1)[1:-1]), by_F, side="right")
    areas, weights = [], []
    for b in range(bins):
        one_F, other_F = stable_F & (bin_F == b), unstable_F & (bin_F == b)
        if one_F.any() and other_F.any():
            areas.append(auroc(score_F, one_F, other_F))
            weights.append(min(int(one_F.sum()), int(other_F.sum())))
    return float(np.average(areas, weights=weights)) if weights else float("nan")


def cutoffs_table(values: Values) -> dict[str, list[Any]]:
    """Shares of features whose score is at least a cut-off, by label, and their difference."""
    columns: dict[str, list[Any]] = {name: [] for name in ("cutoff", "features", "value", "low", "high")}
    for cut in CUTOFFS:
        one, other = (("above", cut, kind) for kind in (UNSTABLE, STABLE))
        for features, e in ((STABLE, values.mean(other)), (UNSTABLE, values.mean(one)), (DIFFERENCE, values.difference(one, other))):
            for column, value in zip(columns.values(), (cut, features, e.value, e.low, e.high), strict=True):
                column.append(value)
    return columns
