"""What claim C4 rests on under other labels: the figures of the stage `subspace` at its headline rank alone, without its tables.

The stage compiles for every number of features, which pays for one set of labels. Here labels are many and figures few: NumPy.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from experiments.reappearance.feature_sets import INTERMEDIATE, RANDOM, STABLE, UNSTABLE, Masks
from experiments.reappearance.labels import LabelRule
from experiments.subspaces import predictors
from experiments.subspaces.predictors import DECIDING, FIGURES, GAUSSIAN, OWN, PCA, Predictor, as_pairs
from experiments.subspaces.subspace import GAUSSIAN_SALT, MATCHED, MAX_MEAN_RATIO, SETS, Subspace, at_most
from stability import aggregates, subspaces
from stability.aggregates import pair_mean, seed_mean


class Rows(NamedTuple):
    """What does not change with labels.

    Attributes:
      unit_SFD: unit decoder rows.
      seeds: numbers of the seeds.
      column_SF: firing rate and energy, those that are known, by the name of the set that is matched by it.
      components_DD: principal components of held-out activations, as columns; None without activations.
      gaussian: unit decoder rows of the SAEs trained on Gaussian activations; None without them, or of one alone.
    """

    unit_SFD: np.ndarray
    seeds: tuple[int, ...]
    column_SF: dict[str, np.ndarray]
    components_DD: np.ndarray | None
    gaussian: list[np.ndarray] | None


class Draws(NamedTuple):
    """Of every seed S and draw T of n features: unit rows, their top directions as columns, and all singular values."""

    rows_STND: np.ndarray
    u_STDR: np.ndarray
    sigma_STR: np.ndarray


def measure(c: Subspace, rule: LabelRule, rows: Rows, masks: Masks) -> dict[str, Any]:
    """The summary of the stage `subspace`, as far as the rule of C4 reads it; {"not_measured": why} where a set is too small.

    Args:
      masks: unstable, stable, intermediate and all features (`RANDOM`), each (S, F).
    """
    members = {name: [np.flatnonzero(mask_F) for mask_F in masks[name]] for name in (UNSTABLE, STABLE, INTERMEDIATE, RANDOM)}
    sizes = {name: min(map(len, members[name])) for name in (UNSTABLE, STABLE, RANDOM)}
    small, large = at_most(min(sizes.values()), c.most_features), at_most(min(sizes[UNSTABLE], sizes[RANDOM]), c.most_against_nulls)
    d = rows.unit_SFD.shape[-1]
    if small < max(c.min_features, 2) or not c.headline_rank <= min(large, d - 1):
        return {"not_measured": f"{small} features in the smallest set of the poorest seed, at width {d}"}

    @functools.cache
    def drawn(name: str, n: int) -> Draws:
        return _drawn(c, rows.unit_SFD, members[name], n, rows.seeds, SETS.index(name))

    @functools.cache
    def own(n: int) -> Predictor:
        return _of_features(OWN, drawn(UNSTABLE, n), drawn(UNSTABLE, n), n, c.headline_rank)

    nulls: list[Predictor] = []
    if small >= c.headline_rank:
        nulls.append(_of_features(DECIDING[0], drawn(STABLE, small), drawn(UNSTABLE, small), small, c.headline_rank))
    for salt, name in enumerate(MATCHED, start=len(SETS)):
        if name in rows.column_SF:
            matched = _matched(c, rows, masks, rows.column_SF[name], large, salt)
            if matched is not None:
                n = matched.rows_STND.shape[2]
                nulls.append(_of_features(f"{name} features of another seed", matched, drawn(UNSTABLE, n), n, c.headline_rank))
    if rows.components_DD is not None:
        nulls.append(_of_plane(rows.components_DD, drawn(UNSTABLE, large), large, c.headline_rank))
    gaussian_G = None
    if rows.gaussian is not None:
        every = [np.arange(len(rows_FD)) for rows_FD in rows.gaussian]
        of_gaussian = lambda n: _drawn(c, rows.gaussian, every, n, tuple(range(len(every))), GAUSSIAN_SALT)
        if (n := min(large, *map(len, rows.gaussian))) >= max(c.min_features, c.headline_rank):
            nulls.append(_of_gaussian(of_gaussian(n), drawn(UNSTABLE, n), n, c.headline_rank))
        gaussian_G = _effective_rank(of_gaussian(small)) / d if min(map(len, rows.gaussian)) >= small else None
    summary = {"features_per_set": small, "headline_rank": c.headline_rank, "effective_rank_ceiling": min(small, d) / d}
    summary |= _overlaps(nulls, {n: own(n) for n in {large, *(p.n for p in nulls)}}, large, c.headline_rank, rule.confidence)
    return summary | _ranks({name: _effective_rank(drawn(name, small)) / d for name in (UNSTABLE, STABLE, RANDOM)}, gaussian_G, rule)


def _drawn(
    c: Subspace,
    unit_SFD: Any,
    members: list[np.ndarray],
    n: int,
    seeds: tuple[int, ...],
    salt: int,
    weights: list[np.ndarray] | None = None,
) -> Draws:
    """As `reproducibility.draw_bases` draws them."""
    of_seeds = zip(seeds, members, [None] * len(seeds) if weights is None else weights, strict=True)
    places = [subspaces.subsample(np.random.default_rng((salt, seed)), features, n, c.subsamples, w) for seed, features, w in of_seeds]
    rows_STND = np.stack([unit_FD[index_TN] for unit_FD, index_TN in zip(unit_SFD, places, strict=True)])
    return Draws(rows_STND, *_top_directions(rows_STND, c.headline_rank))


def _top_directions(rows_STND: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Top right singular directions as columns, up to `rank`, and all singular values, from the smaller of both Gram matrices, in float64."""
    x = rows_STND.astype(np.float64)
    n, d = x.shape[-2:]
    xt = np.swapaxes(x, -1, -2)
    squares, vectors = np.linalg.eigh(x @ xt if n < d else xt @ x)
    sigma, top = np.sqrt(np.maximum(squares[..., ::-1], 0.0)), vectors[..., ::-1][..., :rank]
    if n < d:
        top = xt @ top / np.maximum(sigma[..., None, :rank], 1e-12)
    return top, sigma


def _effective_rank(draws: Draws) -> np.ndarray:
    """(S,): exp of the entropy of σ/Σσ, mean over draws (`subspaces.effective_rank`)."""
    p = draws.sigma_STR / draws.sigma_STR.sum(-1, keepdims=True)
    entropy_ST = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    return np.asarray(np.exp(entropy_ST).mean(axis=1))


def _overlap(u_TDR: np.ndarray, v_TDR: np.ndarray) -> float:
    """Of planes of one rank, mean over draws."""
    return float(np.square(np.swapaxes(u_TDR, -1, -2) @ v_TDR).sum((-2, -1)).mean() / v_TDR.shape[-1])


def _energy(u_TDR: np.ndarray, rows_TND: np.ndarray) -> float:
    """Share of the rows' energy in the planes, mean over draws; rows are of length 1, or zeros."""
    return float((np.square(rows_TND @ u_TDR).sum((-2, -1)) / np.square(rows_TND).sum((-2, -1))).mean())


def _of_features(name: str, draws: Draws, unstable: Draws, n: int, rank: int) -> Predictor:
    s = len(unstable.rows_STND)
    tables = np.full((2, s, s, 1), np.nan)
    for i, j in ((i, j) for i in range(s) for j in range(s) if i != j):
        tables[:, i, j, 0] = _overlap(draws.u_STDR[i], unstable.u_STDR[j]), _energy(draws.u_STDR[i], unstable.rows_STND[j])
    return Predictor(name, n, (rank,), *tables)


def _of_plane(plane_DD: np.ndarray, unstable: Draws, n: int, rank: int) -> Predictor:
    plane_TDR = plane_DD[None, :, :rank]
    overlap_S1 = np.array([[_overlap(plane_TDR, u_TDR)] for u_TDR in unstable.u_STDR])
    energy_S1 = np.array([[_energy(plane_TDR, rows_TND)] for rows_TND in unstable.rows_STND])
    return Predictor(PCA, n, (rank,), as_pairs(overlap_S1), as_pairs(energy_S1))


def _of_gaussian(gaussian: Draws, unstable: Draws, n: int, rank: int) -> Predictor:
    overlap_GS1 = np.array([[[_overlap(u_TDR, v_TDR)] for v_TDR in unstable.u_STDR] for u_TDR in gaussian.u_STDR])
    energy_GS1 = np.array([[[_energy(u_TDR, rows_TND)] for rows_TND in unstable.rows_STND] for u_TDR in gaussian.u_STDR])
    variances = [table.mean(1).var(axis=0, ddof=1) / len(table) for table in (overlap_GS1, energy_GS1)]
    return Predictor(GAUSSIAN, n, (rank,), as_pairs(overlap_GS1.mean(0)), as_pairs(energy_GS1.mean(0)), *variances)


def _matched(c: Subspace, rows: Rows, masks: Masks, column_SF: np.ndarray, large: int, salt: int) -> Draws | None:
    """Draws of features that are not unstable, whose column is spread as the unstable ones'; None where they are too few, or no match."""
    others, targets = ([np.flatnonzero(m) for m in mask] for mask in (masks[RANDOM] & ~masks[UNSTABLE], masks[UNSTABLE]))
    n = min(large, *(len(o) // 2 for o in others))  # of all that there are nothing can be places
    if n < max(c.min_features, c.headline_rank):
        return None
    value_SF = np.log(np.maximum(column_SF, 1e-12))
    weights = [subspaces.matching_weights(value_F[o], value_F[t]) for value_F, o, t in zip(value_SF, others, targets, strict=True)]
    means = [
        value_F[subspaces.subsample(np.random.default_rng((salt, seed)), o, n, c.subsamples, w)].mean()
        for value_F, seed, o, w in zip(value_SF, rows.seeds, others, weights, strict=True)
    ]
    target = np.mean([value_F[t].mean() for value_F, t in zip(value_SF, targets, strict=True)])
    if not 1 / MAX_MEAN_RATIO <= np.exp(np.mean(means) - target) <= MAX_MEAN_RATIO:
        return None
    return _drawn(c, rows.unit_SFD, others, n, rows.seeds, salt, weights)


def _overlaps(nulls: list[Predictor], own: dict[int, Predictor], large: int, rank: int, confidence: float) -> dict[str, Any]:
    """Overlap and captured energy of unstable features, and over each null, both of as many features."""
    knife = functools.partial(aggregates.jackknifed, seeds=len(own[large].overlap), confidence=confidence, unit="share")
    summary: dict[str, Any] = {}
    for figure in FIGURES:
        tables = predictors.against_nulls(nulls, own, figure, rank)
        summary[f"{figure}_unstable"] = knife(
            functools.partial(pair_mean, own[large].table(figure, rank)), null=None, bounds=(0.0, 1.0)
        ).as_dict()
        summary[f"{figure}_over"] = {
            p.name: knife(
                functools.partial(predictors.excess, [tables[p.name]]), null=0.0, other_variance=p.variance(figure, rank)
            ).as_dict()
            for p in nulls
        }
    return summary


def _ranks(rank_S: dict[str, np.ndarray], gaussian_G: np.ndarray | None, rule: LabelRule) -> dict[str, Any]:
    """Effective ranks over the width, of equally many features of each set, and their differences."""
    mean = lambda values_S: functools.partial(seed_mean, values_S)
    knife = functools.partial(aggregates.jackknifed, seeds=len(rank_S[RANDOM]), confidence=rule.confidence, unit="share of the width")
    null = float((rank_S[RANDOM] if gaussian_G is None else gaussian_G).mean())
    figures = {f"effective_rank_{name}": knife(mean(rank_S[name]), null=null) for name in (UNSTABLE, STABLE)}
    figures["effective_rank_stable_minus_unstable"] = knife(mean(rank_S[STABLE] - rank_S[UNSTABLE]), null=0.0)
    if gaussian_G is not None:
        spread = float(gaussian_G.var(ddof=1)) / len(gaussian_G)
        figures["effective_rank_gaussian_minus_unstable"] = knife(
            mean(gaussian_G.mean() - rank_S[UNSTABLE]), null=0.0, other_variance=spread
        )
    return {name: e.as_dict() for name, e in figures.items()}
