"""How often stable and unstable features fire: means, medians and ratios, with what the choice of seeds and that of text add to their intervals."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.data.dictionary_list import DictionaryList
from experiments.reappearance.labels import LabelRule
from runtime import progress
from saes.evaluation import Evaluation, evaluate_each
from stability import aggregates, reappearance
from stability.estimates import Estimate

PARTS = 10  # of the held-out rows


def evaluated(saes: DictionaryList, acts_ND: np.ndarray, top_rows: int) -> Evaluation:
    """All SAEs on the held-out rows, and how often features fire in parts of these. Parts are of consecutive rows; they share no more than one document."""
    part_rows = math.ceil(len(acts_ND) / PARTS)
    batch = math.ceil(part_rows / math.ceil(part_rows / progress.BATCH))  # as many for every part
    return evaluate_each(saes.dictionaries, lambda: progress.batches(acts_ND, "stability/evaluate", batch), top_rows, part_rows)


def without_parts(evaluation: Evaluation) -> np.ndarray:
    """(P, S, F) firing rates in all rows but those of each part; none of a single part."""
    firings_SFP, rows_P = evaluation.firings_SFP, evaluation.rows_P
    if len(rows_P) < 2:
        return np.empty((0, *firings_SFP.shape[:2]))
    return np.moveaxis((firings_SFP.sum(axis=-1, keepdims=True) - firings_SFP) / (rows_P.sum() - rows_P), -1, 0)


def figures(
    rule: LabelRule,
    hits_SSF: np.ndarray,
    live_SF: np.ndarray,
    firing_SF: np.ndarray,
    rate_SF: np.ndarray,
    without_PSF: Sequence[np.ndarray] | np.ndarray,
) -> dict[str, Estimate]:
    """By label, means and medians, and their ratios; these with rare features too, which are cut from the live ones, so that a ratio among the live
    alone would favour equality.

    Args:
      without_PSF: rates in all text but one of P parts, for what the choice of text adds to the intervals. Labels and who is alive are held fixed in it.
    """
    every, out = np.ones(len(live_SF)), {}

    def estimate(statistic: Callable[[np.ndarray], aggregates.Statistic], **options: Any) -> Estimate:
        documents = [statistic(rates)(every) for rates in without_PSF]
        return aggregates.jackknifed(statistic(rate_SF), len(live_SF), rule.confidence, **options, documents=documents)

    for prefix, median in (("", False), ("median_", True)):
        for suffix, among_SF in (("", live_SF), ("_with_rare", firing_SF)):
            ratio = lambda rates, mask_SF=among_SF, median=median: aggregates.label_ratio(rates, hits_SSF, mask_SF, rule.epsilon, median)
            out[f"{prefix}firing_rate_stable_over_unstable{suffix}"] = estimate(ratio, null=1.0, unit="ratio", log=True)
        for label in (reappearance.STABLE, reappearance.UNSTABLE):
            is_stable = label == reappearance.STABLE
            mean = lambda rates, is_stable=is_stable, median=median: aggregates.label_mean(
                rates, hits_SSF, live_SF, rule.epsilon, is_stable, median
            )
            out[f"{prefix}firing_rate_{label}"] = estimate(mean, null=None, unit="share of tokens")
    return out
