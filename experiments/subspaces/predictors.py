"""What may predict the unstable span of an SAE that took no part: sets of features of other SAEs, and planes; with how well each does."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from runtime import progress
from stability import reproducibility
from stability.aggregates import pair_mean

OWN = "unstable features of another seed"
FIGURES = ("overlap", "captured_energy")
PCA, GAUSSIAN, RANDOM_PLANE = "activation PCA", "features of SAEs trained on Gaussian activations", "random plane"
DECIDING = (
    "stable features of another seed", "matched frequency features of another seed", "matched energy features of another seed", PCA, GAUSSIAN
)  # fmt: skip


class Predictor(NamedTuple):
    """What may predict a held-out seed's unstable span, and how well it does at every rank.

    Attributes:
      name: the plane that predicts.
      n: features in each span compared.
      ranks: of the planes (K of them).
      overlap, captured_energy: (S, S, K), seed that predicts × seed predicted, diagonal NaN.
      overlap_variance, captured_energy_variance: (K,), of their mean, from another source than these seeds; None where there is none.
    """

    name: str
    n: int
    ranks: tuple[int, ...]
    overlap: np.ndarray
    captured_energy: np.ndarray
    overlap_variance: np.ndarray | None = None
    captured_energy_variance: np.ndarray | None = None

    def mean(self, figure: str, rank: int) -> Callable[[np.ndarray], float]:
        """A figure at a rank, as a statistic of the weights of seeds."""
        return functools.partial(pair_mean, self.table(figure, rank))

    def table(self, figure: str, rank: int) -> np.ndarray:
        """A figure at a rank, (S, S)."""
        result: np.ndarray = getattr(self, figure)[..., self.ranks.index(rank)]
        return result

    def variance(self, figure: str, rank: int) -> float:
        """Of the mean, from another source than seeds."""
        values_K = getattr(self, f"{figure}_variance")
        return 0.0 if values_K is None else float(values_K[self.ranks.index(rank)])


def from_features(name: str, bases: reproducibility.Bases, unstable: reproducibility.Bases, n: int, ranks: tuple[int, ...]) -> Predictor:
    with progress.comparing(f"subspace/{name}") as on_pair:
        overlap = reproducibility.overlap_between_seeds(bases, unstable, ranks, on_pair)
        energy = reproducibility.energy_between_seeds(bases, unstable, ranks, on_pair)
    return Predictor(f"{name} features of another seed", n, ranks, overlap, energy)


def from_plane(plane_DD: np.ndarray, unstable: reproducibility.Bases, n: int, ranks: tuple[int, ...]) -> Predictor:
    overlap = as_pairs(reproducibility.overlap_with_plane(unstable, plane_DD, ranks))
    return Predictor(PCA, n, ranks, overlap, as_pairs(reproducibility.energy_in_plane(unstable, plane_DD, ranks)))


def from_gaussian(gaussian: reproducibility.Bases, unstable: reproducibility.Bases, n: int, ranks: tuple[int, ...]) -> Predictor:
    """Planes of SAEs that were trained on Gaussian activations, each with every seed; they are few, so their own spread is kept."""
    tables = [read(gaussian, unstable, ranks) for read in (reproducibility.overlap_with_others, reproducibility.energy_with_others)]
    variances = [table_GSK.mean(1).var(axis=0, ddof=1) / len(table_GSK) for table_GSK in tables]
    return Predictor(GAUSSIAN, n, ranks, *(as_pairs(table_GSK.mean(0)) for table_GSK in tables), *variances)


def as_pairs(values_SK: np.ndarray) -> np.ndarray:
    """A figure of the second seed alone, as a table over ordered pairs."""
    s = len(values_SK)
    out = np.tile(values_SK[None], (s, 1, 1))
    out[np.arange(s), np.arange(s)] = np.nan
    return out


def own_table(predictors: list[Predictor], figure: str, rank: int) -> np.ndarray:
    """(S, S): what the unstable features of one seed make of those of another."""
    (own,) = (p for p in predictors if p.name == OWN)
    return own.table(figure, rank)


def against_nulls(
    predictors: list[Predictor], own: dict[int, Predictor], figure: str, rank: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By null that decides: (the unstable features' own table, the null's), both of as many features: overlaps grow with their number. Random live and
    intermediate features are no null, since many of them are unstable."""
    return {p.name: (own[p.n].table(figure, rank), p.table(figure, rank)) for p in predictors if p.name in DECIDING and rank in p.ranks}


def excess(tables: list[tuple[np.ndarray, np.ndarray]], weights_S: np.ndarray) -> float:
    """The figure less the strongest null's, both on the same sample of seeds (which null is strongest may differ by sample)."""
    return min(pair_mean(own, weights_S) - pair_mean(null, weights_S) for own, null in tables)
