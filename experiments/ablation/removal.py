"""N stable features removed against several times as many unstable ones, over N and by what is put in the place of their activations: claim C2.

N is a share of the most that both sets allow: at all of it nearly the whole of one set is gone, and what a whole set is worth is not what its features are.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from experiments.reappearance.feature_sets import RANDOM, STABLE, UNSTABLE
from experiments.reappearance.seed_values import Key, Values
from stability.estimates import Estimate
from stability.function import ABLATIONS, Effects, removal_cost, sums

CURVE = (0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 0.7, 0.85, 1.0)  # shares at which the curve over N is taken


def costs(eff: Effects, kinds: list[np.ndarray], shares: Iterable[float], ratio: int, what: str) -> dict[Key, float]:
    """What N stable features are worth beside `ratio`·N unstable ones, and live ones whatever their label, by share and ablation.

    Args:
      kinds: masks (F,) of stable, unstable and live features.
      shares: N over the most that both sets allow.
    """
    out: dict[Key, float] = {}
    for ablation in ABLATIONS:
        of_kinds = sums(eff, np.stack(kinds), ablation)
        stable, unstable, live = (of_kinds.row(i) for i in range(3))
        for share in shares:
            n = number_removed(int(stable.features), int(unstable.features), ratio, share)
            if not n:
                continue
            out |= {
                (f"N{what}", share): float(n),
                (f"N{what}", share, ablation, STABLE): float(removal_cost(stable, n)),
                (f"N{what}", share, ablation, UNSTABLE): float(removal_cost(unstable, ratio * n)),
                (f"N{what}", share, ablation, RANDOM): float(removal_cost(live, n) - removal_cost(live, ratio * n)),
            }
    return out


def number_removed(stable: int, unstable: int, ratio: int, share: float) -> int:
    """N: so large a share of the most stable features that `ratio` times as many unstable ones can be held against; 0 where that is less than one."""
    return int(share * min(stable, unstable // ratio) + 1e-9)


def table(values: Values) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("ablation", "share", "value", "low", "high", "null")}
    for key in values.keys("N"):
        if len(key) == 4 and key[3] == STABLE and not np.isnan(values.of_seeds(key)).any():
            e = difference(values, key[1], key[2])
            for column, value in zip(columns.values(), (key[2], key[1], e.value, e.low, e.high, e.null), strict=True):
                column.append(value)
    return columns


def at_share(share: float, ablation: str) -> str:
    """Where a difference is taken, for people."""
    return f"q = {share:g}, {ablation}"


def bonferroni(shares: tuple[float, ...], confidence: float) -> float:
    """Of every interval of a difference, so that all hold together with `confidence`."""
    return 1.0 - (1.0 - confidence) / (len(shares) * len(ABLATIONS))


def difference(values: Values, share: float, ablation: str, what: str = "", **options: Any) -> Estimate:
    """N stable less `ratio`·N unstable features removed; null: live features, whatever their label."""
    key = (f"N{what}", share, ablation)
    return values.difference((*key, STABLE), (*key, UNSTABLE), null=values.value((*key, RANDOM)), **options)
