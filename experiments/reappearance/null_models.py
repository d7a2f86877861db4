"""What stability figures come out as where nothing is shared: every null model that the SAEs and the activations at hand allow.

A model is a record of `NULL_MODELS`; they differ in what they keep, which stands at the function that measures each.
"""

import functools
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
from stability.similarity import AnyArray

HAAR, UNTRAINED, GAUSSIAN = "Haar rotation", "untrained", "trained on Gaussian activations"
WHITENED, FREQUENCY, CLOSED = "rotation in the whitened metric", "random features of matched frequency", "uniform directions (closed form)"
SPAN = "rotation inside the unstable span"
FIGURES = ("p", "stable", "unstable", "mmcs")


class Material(NamedTuple):
    """What null models are made of: the first `null_seeds` SAEs, since a null needs no more of them to be known well.

    Attributes:
      comparisons, largest: of the whole study: other SAEs of each, and features of the largest.
      The others: as `measure` takes them.
    """

    c: Reappearance
    rule: LabelRule
    saes: DictionaryList
    partner_SSF: np.ndarray
    gaussian: tuple[DictionaryList, np.ndarray] | None
    covariance_DD: np.ndarray | None
    firings_SF: np.ndarray | None
    live_SF: np.ndarray
    unstable_SF: np.ndarray
    on_pair: Callable[[], None]
    comparisons: int
    largest: int

    def compared(self, w_SFD: AnyArray, sizes: tuple[int, ...] | None) -> np.ndarray:
        """(S, S, F) best cosines of such rows."""
        return np.asarray(similarity.all_pairs(w_SFD, sizes=sizes, block_size=self.rule.block_size, on_pair=self.on_pair).cosine)


class Measured(NamedTuple):
    """Of one null model: some of `FIGURES`, mean p̂ at every θ of the grid (empty: not comparable), best cosines of its last draw."""

    figures: dict[str, float]
    p_of_theta: list[float]
    cosine_SSF: np.ndarray = np.empty(0)


class NullModel(NamedTuple):
    """One way to have nothing shared.

    Attributes:
      name: in tables, charts and headline rows.
      counts: whether it may be "the strongest null", which the figures are held against; else it is shown beside them.
      measure: None where the material does not allow it.
    """

    name: str
    counts: bool
    measure: Callable[[Material], Measured | None]


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
        values = [self.figures[m.name][figure] for m in NULL_MODELS if m.counts and figure in self.figures.get(m.name, {})]
        return min(values, default=None) if figure == "unstable" else max(values, default=None)

    def strongest_p_of_theta(self) -> list[float]:
        rows = [self.p_of_theta[m.name] for m in NULL_MODELS if m.counts and m.name in self.p_of_theta]
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
    """All the models that can be had.

    Args:
      c, rule: of the config.
      saes: that are compared.
      partner_SSF: best matches, as `similarity.all_pairs` gives them.
      gaussian: SAEs trained on Gaussian activations, and which of their features fire on such.
      covariance_DD, firings_SF: of the activations at hand, and how often features fire on them.
      live_SF, unstable_SF: live features, over which figures are taken, and the unstable ones among them.
      on_pair: called after every pair compared.
    """
    n = min(c.null_seeds, len(saes.seeds))
    first = saes.first(n)
    f = first.exists_SF.shape[1]
    firings_SF = None if firings_SF is None else firings_SF[:n, :f]
    of_activations = (gaussian, covariance_DD, firings_SF)
    of_features = (live_SF[:n, :f], unstable_SF[:n, :f])
    material = Material(
        c, rule, first, partner_SSF[:n, :n, :f], *of_activations, *of_features, on_pair, len(saes.seeds) - 1, max(saes.sizes)
    )
    measures = {m.name: of_model for m in NULL_MODELS if (of_model := m.measure(material)) is not None}
    curves = {name: of_model.p_of_theta for name, of_model in measures.items() if of_model.p_of_theta}
    return NullModels({name: of_model.figures for name, of_model in measures.items()}, curves, measures[HAAR].cosine_SSF)


def _haar(m: Material) -> Measured:
    """A Haar rotation of each dictionary keeps all that is inside it."""
    keys = (jax.random.fold_in(root_key(), draw) for draw in range(m.c.null_draws))
    rotations = (m.compared(nulls.rotate_each(key, m.saes.w_dec_SFD, m.saes.seeds), m.saes.sizes) for key in keys)
    return _of_draws(rotations, m.live_SF, m)


def _untrained(m: Material) -> Measured | None:
    """The SAEs before their first step keep what initialisation gives. With one initialisation for all they are equal by construction,
    which is no null."""
    snapshots = m.saes.snapshots
    untrained = m.saes.snapshot(snapshots[0][1]) if snapshots and snapshots[0][0] == 0 else None
    if untrained is None or not (untrained.w_dec_FD[0] != untrained.w_dec_FD[1]).any():
        return None
    return _of_draws([m.compared(untrained.w_dec_FD, None)], np.ones(untrained.w_dec_FD.shape[:2], bool), m)


def _gaussian(m: Material) -> Measured | None:
    """SAEs trained on Gaussian activations keep what mean and covariance give."""
    if m.gaussian is None:
        return None
    saes, fire_SF = m.gaussian
    return _of_draws([m.compared(saes.w_dec_SFD, saes.sizes)], fire_SF, m)


def _whitened(m: Material) -> Measured | None:
    """A rotation where activations have unit covariance keeps the covariance; it saturates where one direction dominates, so it is shown alone."""
    if m.covariance_DD is None:
        return None
    turned_SFD = nulls.rotate_each_whitened(root_key(), m.saes.w_dec_SFD, m.saes.seeds, m.covariance_DD)
    return _of_draws([m.compared(turned_SFD, m.saes.sizes)], m.live_SF, m)


def _frequency(m: Material) -> Measured | None:
    """Pairs of matched frequency keep what firing rates give: one feature each, not the best of many, so they are shown alone."""
    if m.firings_SF is None:
        return None
    thetas = (*m.c.thetas, m.rule.theta)
    *curve, p = _of_matched_frequency(m.saes.w_dec_SFD, m.partner_SSF, m.firings_SF, m.saes.seeds, thetas).tolist()
    return Measured({"p": p}, curve)


def _closed(m: Material) -> Measured:
    """Directions spread uniformly keep width and count; the largest of all dictionaries, since it finds most by chance."""
    chance = lambda theta: nulls.chance_of_match(theta, m.saes.w_dec_SFD.shape[-1], m.largest)
    return Measured({"p": chance(m.rule.theta)}, [chance(theta) for theta in m.c.thetas])


def _span(m: Material) -> Measured | None:
    """A rotation inside the span of the unstable features keeps the span, and speaks of these features alone."""
    rows_SFD = m.saes.w_dec_SFD
    rank = min(m.c.span_rank, rows_SFD.shape[-1] - 1)
    if not (m.unstable_SF.sum(axis=1) > 0).all() or m.unstable_SF.sum() < rank:
        return None
    key, basis_DR = jax.random.fold_in(root_key(), 2**20), _top_directions(rows_SFD, m.unstable_SF, rank)
    cosine_SSF = m.compared(nulls.rotate_each_inside(key, rows_SFD, m.saes.seeds, basis_DR), m.saes.sizes)
    return Measured({"p": _mean_p(cosine_SSF, m.rule.theta, m.unstable_SF), "mmcs": _mmcs(cosine_SSF, m.unstable_SF)}, [])


NULL_MODELS = (
    NullModel(HAAR, True, _haar),
    NullModel(UNTRAINED, True, _untrained),
    NullModel(GAUSSIAN, True, _gaussian),
    NullModel(WHITENED, False, _whitened),
    NullModel(FREQUENCY, False, _frequency),
    NullModel(CLOSED, True, _closed),
    NullModel(SPAN, False, _span),
)


def _of_draws(draws: Iterable[np.ndarray], among_SF: np.ndarray, m: Material) -> Measured:
    """Means over draws of best cosines; labels as they would be in as many comparisons as the study has."""
    of_draws, curve_of_draws, cosine_SSF = [], [], np.empty(0)
    for cosine_SSF in draws:
        of_draws.append(_figures(cosine_SSF, among_SF, m))
        curve_of_draws.append([_mean_p(cosine_SSF, theta, among_SF) for theta in m.c.thetas])
    means = {name: float(np.mean([of_draw[name] for of_draw in of_draws])) for name in FIGURES}
    figures = {name: mean for name, mean in means.items() if not np.isnan(mean)}  # there may be no live features at all
    return Measured(figures, np.nan_to_num(np.mean(curve_of_draws, axis=0)).tolist(), cosine_SSF)


def _figures(cosine_SSF: np.ndarray, among_SF: np.ndarray, m: Material) -> dict[str, float]:
    hits_SSF = reappearance.reappears(cosine_SSF, m.rule.theta)
    share = functools.partial(label_share, hits_SSF, among_SF, m.rule.epsilon, m.comparisons)
    return {
        "p": _mean_p(cosine_SSF, m.rule.theta, among_SF),
        "stable": share(stable=True),
        "unstable": share(stable=False),
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
