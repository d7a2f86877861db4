"""What stability figures come out as where nothing is shared: every null model that the SAEs and the activations at hand allow.

Models differ in what they keep.  A Haar rotation of each dictionary keeps all that is inside it; untrained SAEs what initialisation gives;
SAEs trained on Gaussian activations what mean and covariance give; the whitened rotation the covariance (it saturates where one direction
dominates, so it is shown and never the strongest); pairs of matched frequency what firing rates give (one feature each, not the best of many: shown too).
The rotation inside the span of the unstable features speaks of these alone.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
import scipy.stats

from experiments.data import dictionary_list, sources
from experiments.data.dictionary_list import DictionaryList
from experiments.reappearance.labels import LabelRule, Reappearance
from experiments.stage import Outputs, Task
from runtime import progress
from saes.evaluation import evaluate_each
from stability import aggregates, nulls, reappearance, similarity
from stability.aggregates import pair_mean

HAAR, UNTRAINED, GAUSSIAN = "Haar rotation", "untrained", "trained on Gaussian activations"
WHITENED, FREQUENCY, CLOSED = "rotation in the whitened metric", "random features of matched frequency", "uniform directions (closed form)"
SPAN = "rotation inside the unstable span"
SHOWN_ONLY = (WHITENED, FREQUENCY)
FIGURES = ("p", "stable", "unstable", "mmcs")


class NullModels(NamedTuple):
    """All that were measured.

    Attributes:
      figures: {model: {figure of `FIGURES`: value}}; of `SPAN` the figures of the unstable features.
      p_of_theta: {model: mean p̂ at every θ of the grid}.
      rotated_SSF: best cosines of one Haar draw, of the SAEs that nulls were compared among.
    """

    figures: dict[str, dict[str, float]]
    p_of_theta: dict[str, list[float]]
    rotated_SSF: np.ndarray

    def strongest(self, figure: str) -> float | None:
        """Of the models' values the one nearest to "shared": the largest, but the smallest share of unstable features; None of none."""
        values = [of_model[figure] for model, of_model in self.figures.items() if figure in of_model and model not in (*SHOWN_ONLY, SPAN)]
        return min(values, default=None) if figure == "unstable" else max(values, default=None)

    def strongest_p_of_theta(self) -> list[float]:
        rows = [p for model, p in self.p_of_theta.items() if model not in SHOWN_ONLY]
        return [max(at_theta) for at_theta in zip(*rows, strict=True)]


def root_key() -> jax.Array:
    """Of all rotations: folded with a draw's number, then with a seed's."""
    return jax.random.key(0, impl="threefry2x32")


def gaussian_saes(task: Task, out: Outputs) -> tuple[DictionaryList, np.ndarray] | None:
    """The SAEs of the run `gaussian`, and which of their features fire on such rows; None where there is no such run."""
    if not task.has("gaussian"):
        return None
    saes = dictionary_list.load(task.path("gaussian/train") / dictionary_list.NAME)
    rows_ND = sources.gaussian_rows(task)
    batches = lambda: progress.batches(rows_ND, f"{task.stage.name}/gaussian")
    evaluation = out.part("gaussian", lambda: evaluate_each(saes.dictionaries, batches, 1))
    return saes, evaluation.firings_SF > 0


def covariance(acts_ND: np.ndarray) -> np.ndarray | None:
    """(D, D) of activations, float64; None of rows that do not vary, which have no metric."""
    if len(acts_ND) < 2 or not (acts_ND != acts_ND[0]).any():
        return None
    return np.atleast_2d(np.cov(acts_ND, rowvar=False))


def measure(
    c: Reappearance,
    rule: LabelRule,
    saes: DictionaryList,
    partner_SSF: np.ndarray,
    gaussian: tuple[DictionaryList, np.ndarray] | None,
    covariance_DD: np.ndarray | None,
    firings_SF: np.ndarray | None,
    live_SF: np.ndarray,
    unstable_SF: np.ndarray,
    on_pair: Callable[[], None],
) -> NullModels:
    """All the models that can be had, among the first `null_seeds` SAEs: a null needs no more of them to be known well.

    Args:
      c, rule: of the config.
      partner_SSF: best matches, as `similarity.all_pairs` gives them.
      gaussian: SAEs trained on Gaussian activations, and which of their features fire on such.
      covariance_DD, firings_SF: of the activations at hand, and how often features fire on them.
      live_SF, unstable_SF: live features, over which figures are taken, and the unstable ones among them.
      on_pair: called after every pair compared.
    """
    n, comparisons, most = min(c.null_seeds, len(saes.seeds)), len(saes.seeds) - 1, max(saes.sizes)
    saes = saes.first(n)
    f = saes.exists_SF.shape[1]
    partner_SSF, live_SF, unstable_SF = partner_SSF[:n, :n, :f], live_SF[:n, :f], unstable_SF[:n, :f]
    firings_SF = None if firings_SF is None else firings_SF[:n, :f]
    root = root_key()
    rows_SFD, d = saes.w_dec_SFD, saes.w_dec_SFD.shape[-1]
    figures: dict[str, dict[str, float]] = {}
    curves: dict[str, list[float]] = {}
    compared = lambda w_SFD, sizes: similarity.all_pairs(w_SFD, sizes=sizes, block_size=rule.block_size, on_pair=on_pair).cosine

    def add(model: str, draws: Iterable[np.ndarray], among_SF: np.ndarray) -> np.ndarray:
        """Means over draws; returns the last."""
        of_draws, curve_of_draws, cosine_SSF = [], [], np.empty(0)
        for cosine_SSF in draws:
            of_draws.append(_figures(cosine_SSF, among_SF, rule, comparisons))
            curve_of_draws.append([_mean_p(cosine_SSF, theta, among_SF) for theta in c.thetas])
        means = {name: float(np.mean([of_draw[name] for of_draw in of_draws])) for name in FIGURES}
        figures[model] = {name: mean for name, mean in means.items() if not np.isnan(mean)}  # there may be no live features at all
        curves[model] = np.nan_to_num(np.mean(curve_of_draws, axis=0)).tolist()
        return cosine_SSF

    keys = (jax.random.fold_in(root, draw) for draw in range(c.null_draws))
    rotations = (compared(nulls.rotate_each(key, rows_SFD, saes.seeds), saes.sizes) for key in keys)
    rotated_SSF = add(HAAR, rotations, live_SF)
    untrained = saes.snapshot(saes.snapshots[0][1]) if saes.snapshots and saes.snapshots[0][0] == 0 else None
    # With one initialisation for all the untrained ones are equal by construction, which is no null.
    if untrained is not None and (untrained.w_dec_FD[0] != untrained.w_dec_FD[1]).any():
        add(UNTRAINED, [compared(untrained.w_dec_FD, None)], np.ones(untrained.w_dec_FD.shape[:2], bool))
    if gaussian is not None:
        add(GAUSSIAN, [compared(gaussian[0].w_dec_SFD, gaussian[0].sizes)], gaussian[1])
    if covariance_DD is not None:
        add(WHITENED, [compared(nulls.rotate_each_whitened(root, rows_SFD, saes.seeds, covariance_DD), saes.sizes)], live_SF)
    if firings_SF is not None:
        of_matched = _of_matched_frequency(rows_SFD, partner_SSF, firings_SF, saes.seeds, (*c.thetas, rule.theta)).tolist()
        curves[FREQUENCY], figures[FREQUENCY] = of_matched[:-1], {"p": of_matched[-1]}
    figures[CLOSED] = {"p": nulls.chance_of_match(rule.theta, d, most)}
    curves[CLOSED] = [nulls.chance_of_match(theta, d, most) for theta in c.thetas]
    rank = min(c.span_rank, d - 1)
    if (unstable_SF.sum(axis=1) > 0).all() and unstable_SF.sum() >= rank:
        turned_SFD = nulls.rotate_each_inside(
            jax.random.fold_in(root, 2**20), rows_SFD, saes.seeds, _top_directions(rows_SFD, unstable_SF, rank)
        )
        cosine_SSF = compared(turned_SFD, saes.sizes)
        figures[SPAN] = {"p": _mean_p(cosine_SSF, rule.theta, unstable_SF), "mmcs": _mmcs(cosine_SSF, unstable_SF)}
    return NullModels(figures, curves, rotated_SSF)


def _figures(cosine_SSF: np.ndarray, among_SF: np.ndarray, rule: LabelRule, comparisons: int) -> dict[str, float]:
    hits_SSF = reappearance.reappears(cosine_SSF, rule.theta)
    return {
        "p": _mean_p(cosine_SSF, rule.theta, among_SF),
        "stable": label_share(hits_SSF, among_SF, rule.epsilon, comparisons, stable=True),
        "unstable": label_share(hits_SSF, among_SF, rule.epsilon, comparisons, stable=False),
        "mmcs": _mmcs(cosine_SSF, among_SF),
    }


def label_share(hits_SSF: np.ndarray, among_SF: np.ndarray, epsilon: float, comparisons: int, stable: bool) -> float:
    """Share of features that would be stable (or unstable) in so many comparisons, each feature matching at the rate at which it does here.

    A null model may have fewer SAEs than the study, where "in all of them" is easier, so labels are not counted in it.
    """
    rate_SF = hits_SSF.sum(axis=1) / (len(hits_SSF) - 1)
    misses = reappearance.allowed_misses(comparisons, epsilon)
    law = scipy.stats.binom(comparisons, rate_SF)
    share_SF = law.sf(comparisons - misses - 1) if stable else law.cdf(misses)
    return float(share_SF[among_SF].mean()) if among_SF.any() else float("nan")


def _mean_p(cosine_SSF: np.ndarray, theta: float, among_SF: np.ndarray) -> float:
    share_SS = aggregates.share_reappearing(reappearance.reappears(cosine_SSF, theta), among_SF)
    return pair_mean(share_SS, np.ones(len(share_SS)))


def _mmcs(cosine_SSF: np.ndarray, among_SF: np.ndarray) -> float:
    return pair_mean(aggregates.mean_among(cosine_SSF, among_SF), np.ones(len(among_SF)))


def _of_matched_frequency(
    rows_SFD: np.ndarray, partner_SSF: np.ndarray, firings_SF: np.ndarray, seeds: tuple[int, ...], thetas: tuple[float, ...]
) -> np.ndarray:
    """Share of features whose cosine with a random feature of another seed that fires about as often is ≥ θ, for every θ.

    Drawn among the twentieth of the other's features that is nearest in firing rate; a feature's own best match is not drawn, which
    would be what the null is held against.
    """
    unit_SFD = np.asarray(similarity.unit_rows(rows_SFD))
    hits: list[np.ndarray] = []
    for i, firings_F in enumerate(firings_SF):
        a = np.flatnonzero(firings_F)
        for j, firings_G in enumerate(firings_SF):
            b = np.flatnonzero(firings_G)
            if i == j or not len(a) or len(b) < 2:
                continue
            b = b[np.argsort(firings_G[b], kind="stable")]
            rng = np.random.default_rng((seeds[i], seeds[j], 5))
            reach = max(2, len(b) // 40)
            drawn_F = rng.integers(-reach, reach + 1, len(firings_F))  # one for every feature there is: who else fires changes no draw
            place = np.searchsorted(firings_G[b], firings_F[a]) + drawn_F[a]
            place = np.clip(place, 0, len(b) - 1)
            own = b[place] == partner_SSF[i, j, a]
            place[own] += np.where(place[own] > 0, -1, 1)
            cosine = np.einsum("fd,fd->f", unit_SFD[i, a], unit_SFD[j, b[place]])
            hits.append(np.mean(cosine[:, None] >= np.array([similarity.least_cosine(theta) for theta in thetas]), axis=0))
    return np.mean(hits, axis=0) if hits else np.zeros(len(thetas))


def _top_directions(rows_SFD: np.ndarray, among_SF: np.ndarray, rank: int) -> np.ndarray:
    """(D, rank): leading right singular vectors of the features of all seeds together."""
    unit_ND = np.asarray(similarity.unit_rows(rows_SFD))[among_SF].astype(np.float64)
    return np.linalg.eigh(unit_ND.T @ unit_ND)[1][:, ::-1][:, :rank]
