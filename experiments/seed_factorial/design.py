"""The seed factorial: what differs between the SAEs of an arm, and which part of instability comes from which of it."""

import functools
from collections.abc import Callable

import numpy as np

from stability import aggregates
from stability.aggregates import pair_mean
from stability.estimates import Estimate

GROUP = "factorial"  # of the runs that are arms: factorial/<arm>
INITIALISATION, ORDER, BOTH, DATA, NOTHING = "initialisation", "order", "initialisation and order", "order and documents", "nothing"


def same_half(seeds: int) -> np.ndarray:
    """(S, S): pairs of SAEs of the arm `DATA` that saw the same documents; the others saw none in common."""
    place = np.arange(seeds) % 2
    result: np.ndarray = place[:, None] == place
    return result


def decomposed(p_of_arm: dict[str, np.ndarray], chance: float, confidence: float) -> dict[str, Estimate]:
    """Parts of instability 1 − p̂, from tables over pairs (S, S) of the same seeds in every arm.

    Initialisation and order are the factors of a 2 × 2 design (nothing differs: 0): what each adds, on average over the other being equal
    or not, sums to the instability of both (Shapley).  Documents: what it adds that two SAEs share none, in the arm of halves, where
    they share initialisation and never order.

    Intervals are over seeds, given the one initialisation, the one order and the one split that the arms share; `chance` is the null's p̂.
    """
    s = len(next(iter(p_of_arm.values()), ()))
    knife: Callable[..., Estimate] = functools.partial(aggregates.jackknifed, seeds=s, confidence=confidence, null=0.0, unit="probability")
    out: dict[str, Estimate] = {}
    if {INITIALISATION, ORDER, BOTH} <= p_of_arm.keys():
        instability = {arm: lambda w, t=p_of_arm[arm]: 1.0 - pair_mean(t, w) for arm in (INITIALISATION, ORDER, BOTH)}
        init, order, both = instability[INITIALISATION], instability[ORDER], instability[BOTH]
        out["instability, both"] = knife(both)._replace(null=1.0 - chance)
        out["of it initialisation"] = knife(lambda w: (init(w) + both(w) - order(w)) / 2)
        out["of it order"] = knife(lambda w: (order(w) + both(w) - init(w)) / 2)
        out["initialisation and order together less than apart by"] = knife(lambda w: init(w) + order(w) - both(w))
    if DATA in p_of_arm:
        within, between = split_by_half(p_of_arm[DATA])
        out["added by other documents"] = knife(lambda w: pair_mean(within, w) - pair_mean(between, w))
    return out


def split_by_half(p_SS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The table with pairs of one half alone, and with pairs of different halves alone; NaN elsewhere."""
    same_SS = same_half(len(p_SS))
    return np.where(same_SS, p_SS, np.nan), np.where(same_SS, np.nan, p_SS)
