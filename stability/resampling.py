"""Bootstrap over seeds. The seed is the unit of replication: comparisons of one anchor share it, and features share seeds."""

from collections.abc import Callable

import numpy as np


def seed_weights(rng_seed: int, seeds: int, draws: int) -> np.ndarray:
    """How often each seed is drawn in each of `draws` resamples of all seeds: int (draws, S).

    Resamples of one single seed, which hold no comparison, are drawn again.
    """
    if seeds < 2:
        raise ValueError(f"{seeds} seed: a bootstrap over seeds needs at least 2")
    rng = np.random.default_rng(rng_seed)
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    while (single := (weights > 0).sum(axis=1) < 2).any():
        weights[single] = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=int(single.sum()))
    return weights


def pair_mean(values_SS: np.ndarray, weights_S: np.ndarray) -> float:
    """Mean over ordered pairs of different seeds, each pair weighted by the product of its seeds' weights.

    Self-pairs are dropped: a resampled seed meets itself at cosine 1, which would bias p̂ upward by about (1−p̂)/S.
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


def bootstrap(statistic: Callable[[np.ndarray], float], weights: np.ndarray) -> np.ndarray:
    """`statistic` of every resample's weights."""
    return np.array([statistic(w) for w in weights])
