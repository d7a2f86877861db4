"""What features do for the reconstruction: alone, together, and what is left when sets of them are removed or kept. In closed form.

Write r = x − x̂ and let z_i d_i be what feature i adds to a token. Removing a set M after the activation leaves r + Σ_M z_i d_i, so the error rises by

    Σ_M a_i + Σ_{i≠j ∈ M} p_ij,     a_i = Σ_t z_i²‖d_i‖² + 2 z_i⟨r, d_i⟩,     p_ij = Σ_t z_i z_j ⟨d_i, d_j⟩,

exactly, for every set. a is what a feature is worth alone (the marginal effect), Σ p what the set is worth beyond that: with weak marginal
effects and a large Σ p the features stand in for each other. Means over random subsets are exact too, since each pair of n features is in a
subset of m with probability m(m−1)/(n(n−1)). All errors are shares of Σ‖x − x̄‖²: their differences are differences of explained variance.

A feature is removed by putting zero in the place of its activation, or its mean over all tokens; then z − z̄ stands for z in the formulas.
"""

from typing import NamedTuple

import numpy as np
import scipy.stats

ZERO, MEAN = "zero", "mean"  # what is put in the place of a removed feature's activation
ABLATIONS = (ZERO, MEAN)


class Effects(NamedTuple):
    """Of one SAE's F features.

    Attributes:
      left: what the SAE leaves: 1 − explained variance.
      left_by_bias: what its decoder's bias alone leaves.
      marginal_F: a, by how much the error rises when a feature is removed alone; below 0 where that helps.
      pair_FF: p, with zeros on the diagonal; counted once for (i, j) and once for (j, i).
      marginal_by_mean_F: a where the mean takes the activation's place.
      mean_FD: z̄ d √(tokens / Σ‖x − x̄‖²): then p is less by the products of its rows.
    """

    left: float
    left_by_bias: float
    marginal_F: np.ndarray
    pair_FF: np.ndarray
    marginal_by_mean_F: np.ndarray
    mean_FD: np.ndarray

    @property
    def shapley_F(self) -> np.ndarray:
        """Every feature's part of what the SAE explains beyond its bias: the mean, over all orders in which features could come, of what it adds
        when it comes (Shapley 1953). For a quadratic error the mean of what it adds as the first and as the last; the parts add up to the whole."""
        return self.marginal_F + self.pair_FF.sum(axis=1)


def effects(
    zz_FF: np.ndarray,
    zr_FD: np.ndarray,
    w_dec_FD: np.ndarray,
    error: float,
    error_of_bias: float,
    variance: float,
    z_sum_F: np.ndarray,
    r_sum_D: np.ndarray,
    rows: int,
) -> Effects:
    """From sums over tokens.

    Args:
      zz_FF, zr_FD: Σ z zᵀ and Σ z rᵀ.
      w_dec_FD: decoder rows d.
      error, error_of_bias: Σ ‖r‖² and Σ ‖x − b_dec‖².
      variance: Σ ‖x − x̄‖²; where it is 0 nothing is a share of it, and all effects are NaN.
      z_sum_F, r_sum_D: Σ z and Σ r.
      rows: tokens.
    """
    variance = variance if variance > 0 else float("nan")
    w_FD = np.asarray(w_dec_FD, np.float64)
    pair_FF = zz_FF * (w_FD @ w_FD.T) / variance
    own_F = np.diagonal(pair_FF).copy()
    np.fill_diagonal(pair_FF, 0.0)
    marginal_F = own_F + 2.0 * np.einsum("fd,fd->f", zr_FD, w_FD) / variance
    mean_F = z_sum_F / rows
    mean_FD = mean_F[:, None] * w_FD * np.sqrt(rows / variance)
    by_mean_F = marginal_F - np.square(mean_FD).sum(1) - 2.0 * mean_F * (w_FD @ r_sum_D) / variance
    return Effects(error / variance, error_of_bias / variance, marginal_F, pair_FF, by_mean_F, mean_FD)


class Sums(NamedTuple):
    """Of M sets of features, each an array (M,), or a number.

    Attributes:
      features: how many.
      marginal: Σ a.
      pairs: Σ_{i≠j} p inside the set.
      first: Σ of what each feature adds when it is the only one: a_i + 2 Σ_j p_ij over all j.
    """

    features: np.ndarray
    marginal: np.ndarray
    pairs: np.ndarray
    first: np.ndarray

    def row(self, i: int) -> "Sums":
        """Of one set."""
        return Sums(*(np.asarray(column[i]) for column in self))


def sums(eff: Effects, member_MF: np.ndarray, ablation: str = ZERO) -> Sums:
    """Of sets given as masks (M, F), whose features are removed by one of `ABLATIONS`."""
    member = np.asarray(member_MF, np.float64)
    marginal_F = eff.marginal_F if ablation == ZERO else eff.marginal_by_mean_F
    pairs_M, others_F = ((member @ eff.pair_FF) * member).sum(1), eff.pair_FF.sum(1)
    if ablation == MEAN:
        own_F = np.square(eff.mean_FD).sum(1)
        pairs_M = pairs_M - (np.square(member @ eff.mean_FD).sum(1) - member @ own_F)
        others_F = others_F - (eff.mean_FD @ eff.mean_FD.sum(0) - own_F)
    return Sums(member.sum(1), member @ marginal_F, pairs_M, member @ (marginal_F + 2.0 * others_F))


def removal_cost(s: Sums, m: np.ndarray | float | int | None = None) -> np.ndarray:
    """By how much the explained variance falls when m features of a set are removed after the activation: mean over all choices of m, exactly.

    NaN where the set has fewer. m None: all of it, the joint effect.
    """
    return _of_subsets(s, m, s.marginal, 1.0)


def explained_alone(s: Sums, m: np.ndarray | float | int | None = None) -> np.ndarray:
    """Explained variance beyond the bias's when m features of a set are all that is left, likewise."""
    return _of_subsets(s, m, s.first, -1.0)


def redundancy(s: Sums) -> np.ndarray:
    """Joint effect less the sum of marginal ones: what a set is worth because its features stand in for each other; below 0 where they fight."""
    return s.pairs


def _of_subsets(s: Sums, m: np.ndarray | float | int | None, alone: np.ndarray, sign: float) -> np.ndarray:
    n = s.features
    m = n if m is None else m
    with np.errstate(invalid="ignore", divide="ignore"):
        share, share_of_pairs = m / n, np.where(n > 1, m * (m - 1.0) / (n * (n - 1.0)), 0.0)
        value = np.where(n > 0, share * alone + sign * share_of_pairs * s.pairs, 0.0)
    return np.where(m <= n, value, np.nan)


def grid(most: int) -> list[int]:
    """1, 2, 4, … up to `most`: numbers of features at which curves are taken."""
    return [2**k for k in range(most.bit_length()) if 2**k <= most]


def partial_correlation(x_N: np.ndarray, y_N: np.ndarray, given_NC: np.ndarray) -> float:
    """Rank correlation of x and y with what ranks of the columns `given` explain of both taken out (partial Spearman); NaN where nothing is left."""
    if len(x_N) < given_NC.shape[1] + 3:
        return float("nan")
    ranked = lambda v: (r := scipy.stats.rankdata(v)) - r.mean()
    given = [ranked(c) for c in given_NC.T]
    basis = _basis(np.stack(given, axis=1)) if given else np.zeros((len(x_N), 0))
    left = [(v := ranked(w)) - basis @ (basis.T @ v) for w in (x_N, y_N)]
    size = np.linalg.norm(left[0]) * np.linalg.norm(left[1])
    scale = np.linalg.norm(ranked(x_N)) * np.linalg.norm(ranked(y_N))
    return float(left[0] @ left[1] / size) if size > 1e-9 * scale and scale > 0 else float("nan")


def _basis(columns_NC: np.ndarray) -> np.ndarray:
    """Orthonormal, of what the columns span: of two that say the same one counts, and a constant none."""
    left_NC, size_C, _ = np.linalg.svd(columns_NC, full_matrices=False)
    return left_NC[:, size_C > 1e-9 * max(size_C[0], 1.0)]


def within_bins(
    value_F: np.ndarray, by_F: np.ndarray, one_F: np.ndarray, other_F: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means of `value` over two sets of features within bins of equally many features by `by`: (bins,) of the one, of the other; their numbers.

    Args:
      one_F, other_F: disjoint masks; bins are of the features in either, and NaN stands for a mean of none.
    """
    among = one_F | other_F
    edges = np.quantile(by_F[among], np.linspace(0, 1, bins + 1)[1:-1]) if among.any() else np.zeros(bins - 1)
    bin_F = np.searchsorted(edges, by_F, side="right")
    counts = [np.bincount(bin_F[mask], minlength=bins) for mask in (one_F, other_F)]
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bin_F[m], value_F[m], minlength=bins) / n for m, n in zip((one_F, other_F), counts, strict=True)]
    return means[0], means[1], counts[0], counts[1]


def difference_within_bins(means_one: np.ndarray, means_other: np.ndarray, n_one: np.ndarray, n_other: np.ndarray) -> float:
    """Mean over bins of the one less the other, each bin counting as many features as its smaller side has; NaN where no bin has both."""
    weight = np.minimum(n_one, n_other)
    return float(np.nansum(weight * (means_one - means_other)) / weight.sum()) if weight.sum() else float("nan")


def sign_flips(difference_S: np.ndarray, draws: int = 2**16) -> float:
    """Two-sided p-value of a mean of differences of S seeds under random signs: exact up to 16 seeds (at least 2/2^S), above by draws.

    NaN values are left out; NaN where none is left.
    """
    d = difference_S[~np.isnan(difference_S)]
    if not len(d):
        return float("nan")
    if 2 ** len(d) <= draws:
        signs = 1.0 - 2.0 * ((np.arange(2 ** len(d))[:, None] >> np.arange(len(d))) & 1)
    else:
        signs = np.random.default_rng(len(d)).choice([-1.0, 1.0], (draws, len(d)))
        signs[0] = 1.0
    return float(np.mean(np.abs(signs @ d) >= abs(d.sum()) * (1 - 1e-12)))
