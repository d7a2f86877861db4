"""What claim C7 rests on under other labels: the figures of the stage `transfer`, from fewer cuts of the seeds and draws."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from experiments.prediction.transfer import Transfer
from experiments.reappearance.labels import LabelRule
from stability import aggregates, transfer
from stability.estimates import Count, Estimate, unmeasured
from stability.transfer import BASELINES, OF_TEXT, PREVALENCE, ROWS, Score, Seeds

FIGURES = ("f1", "auroc", "auroc_best_baseline", "auroc_excess")
LEAST_SEEDS = 4  # two halves of at least 2 label themselves


def joined(one_SF: np.ndarray, other_SF: np.ndarray) -> np.ndarray:
    """(S, F): numbers of directions, where features are of one that are of one by either of two sets of numbers, and all that hang together so."""
    size = int(one_SF.max()) + 1
    edges = (one_SF.ravel(), size + other_SF.ravel())
    total = size + int(other_SF.max()) + 1
    graph = scipy.sparse.coo_array((np.ones(one_SF.size, bool), edges), shape=(total, total))
    direction_N = np.asarray(scipy.sparse.csgraph.connected_components(graph, directed=False)[1])
    return np.asarray(direction_N[one_SF])


def measure(
    c: Transfer, rule: LabelRule, seeds: Seeds, without_PSF: list[np.ndarray], look_for_signals: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The summary of the stage `transfer`, as far as the rule of C7 reads it.

    With one seed left out at a time the best baseline and decoder rows alone are fitted again, and with one part of the text the baseline, where it
    asks how often features fire.

    Args:
      c: `splits` and `draws` may be fewer than the stage's.
      without_PSF: logarithms of firing rates in all text but one of P parts; empty where they are not known.
      look_for_signals: called before every fit; may raise to stop.
    """
    s = len(seeds.hits_SSF)
    if s < LEAST_SEEDS:
        return {"not_measured": f"{s} seeds: two halves of at least 2 label themselves"}

    def fitted(seeds: Seeds = seeds, **options: Any) -> dict[str, Score]:
        look_for_signals()
        return transfer.between_halves(seeds, rule.epsilon, c.splits, c.folds, c.features, **options)

    sizes = np.unique(seeds.direction_SF[seeds.among_SF], return_counts=True)[1]
    directions = {"seeds": s, "directions": len(sizes), "features in the largest direction": int(sizes.max(initial=0))}
    every = fitted(draws=c.draws)
    if not every:
        return {name: unmeasured(Count(s, "seeds"), "share").as_dict() for name in FIGURES} | directions
    best = max((name for name in BASELINES if name in every), key=lambda name: every[name].auroc)
    leave_one_out = [fitted(excluded_seed=place, only=(ROWS, best)) for place in range(s)]
    of_parts = [every | fitted(seeds._replace(log_rate_SF=log_rate_SF), only=(best,)) for log_rate_SF in without_PSF if best in OF_TEXT]

    def estimate(
        figure: Callable[[dict[str, Score]], float], null: float, lowest: float = 0.0, over_directions: np.ndarray | None = None
    ) -> Estimate:
        statistic = lambda weights_S: figure(every if weights_S.all() else leave_one_out[int(np.argmin(weights_S))])
        return aggregates.jackknifed(
            statistic,
            s,
            rule.confidence,
            null=null,
            unit="share",
            bounds=(lowest, 1.0),
            documents=[figure(scores) for scores in of_parts],
            other_variance=0.0 if over_directions is None else float(np.nanvar(over_directions, ddof=1)),
        )

    auroc = lambda name, scores: scores[name].auroc if name in scores else float("nan")
    figures = {
        "f1": estimate(lambda scores: scores[ROWS].f1 if ROWS in scores else float("nan"), every[PREVALENCE].f1),
        "auroc": estimate(functools.partial(auroc, ROWS), 0.5, over_directions=every[ROWS].auroc_R),
        "auroc_best_baseline": estimate(functools.partial(auroc, best), 0.5, over_directions=every[best].auroc_R),
        "auroc_excess": estimate(
            lambda scores: auroc(ROWS, scores) - auroc(best, scores), 0.0, -1.0, every[ROWS].auroc_R - every[best].auroc_R
        ),
    }
    return {name: e.as_dict() for name, e in figures.items()} | directions
