"""Stage: spectra, effective rank and agreement between seeds of the spans of unstable, stable and random features.

Always at equal n, since effective rank and overlap grow with the number of rows; features live, random draws repeated.  Two
sizes: all sets are compared at the size of the smallest, which with few stable features is small; unstable features are held
against random ones, activation PCA and random planes at the larger size that those allow.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.data import dictionary_list, sources
from experiments.fields import check, config, field
from experiments.reappearance.labels import LabelRule
from experiments.stage import Outputs, Stage, Task
from runtime import progress
from stability import aggregates, nulls, reproducibility, similarity, subspaces
from stability.aggregates import pair_mean, seed_mean
from stability.estimates import Count, Estimate


@config("subspace")
class Subspace:
    """How subspaces of feature sets are compared."""

    ranks: tuple[int, ...] = field(
        default=(1, 2, 4, 8, 16, 24, 32, 48, 64, 96), doc="r of the subspaces compared; those ≥ width are left out", gt=0
    )
    headline_rank: int = field(default=16, doc="one of ranks, far below the width", gt=0)
    subsamples: int = field(default=20, doc="draws of equally many features from each set", gt=0)
    min_features: int = field(default=20, doc="a set with fewer live features in any seed is not measured", ge=2)

    def check(self) -> None:
        check(self.headline_rank in self.ranks, "subspace.headline_rank", self.headline_rank, f"must be one of ranks={self.ranks}")


STAGE = Stage(config=Subspace, reads=(LabelRule,), needs=("saes", "stability"), uses=("rows",))

SETS = ("unstable", "stable", "random", "intermediate")
NEEDED = ("unstable", "stable", "random")
MATCHED = {
    "matched frequency": "firing_rate",
    "matched energy": "energy",
}  # sets of other features whose column is spread as the unstable ones'
OWN = "unstable features of another seed"
FIGURES = ("overlap", "captured_energy")
MAX_MEAN_RATIO = 1.5  # a set of matched frequency or energy whose mean is further from the unstable ones' is no match


def run(task: Task, out: Outputs) -> None:
    c = task.section(Subspace)
    saes = dictionary_list.saes(task)
    features = task.table("stability/features")
    members = _sets(features, saes.seeds)
    sizes = {name: min(len(features) for features in members[name]) for name in NEEDED}
    small, large = min(sizes.values()), min(sizes["unstable"], sizes["random"])
    unit_SFD = np.asarray(similarity.unit_rows(saes.w_dec_SFD))
    d = unit_SFD.shape[-1]
    ranks = tuple(r for r in c.ranks if r < d and r <= large)
    if small < max(c.min_features, 2) or c.headline_rank not in ranks:
        _not_measured(out, sizes, c, d, len(saes.seeds))
        return

    draw = lambda name, n: reproducibility.draw_bases(unit_SFD, members[name], n, c.subsamples, saes.seeds, SETS.index(name))
    at_small = {name: draw(name, small) for name in SETS if min(map(len, members[name])) >= small}
    at_large = {name: draw(name, large) for name in ("unstable", "random")}
    predictors = [_from_features(name, bases, at_large["unstable"], large, ranks) for name, bases in at_large.items()]
    own = {large: predictors[0]}  # what each null is held against: the unstable features' own, of as many features
    small_ranks = tuple(r for r in ranks if r <= small)
    predictors.append(_from_features("stable", at_small["stable"], at_small["unstable"], small, small_ranks))
    if small not in own:
        own[small] = _from_features("unstable", at_small["unstable"], at_small["unstable"], small, small_ranks)
    spread: dict[str, float] = {}
    for salt, (name, column) in enumerate(MATCHED.items(), start=len(SETS)):
        if column in features:
            matched, n, spread[name] = _matched(c, unit_SFD, features, column, saes.seeds, large, salt)
            if n < c.min_features or not 1 / MAX_MEAN_RATIO <= spread[name] <= MAX_MEAN_RATIO:
                continue  # too few, or no match: said by the ratio in the summary
            unstable, of_ranks = at_large["unstable"] if n == large else draw("unstable", n), tuple(r for r in ranks if r <= n)
            predictors.append(_from_features(name, matched, unstable, n, of_ranks))
            if n not in own:
                own[n] = _from_features("unstable", unstable, unstable, n, of_ranks)
    acts_ND = sources.evaluation_rows(task)
    if acts_ND is not None:
        predictors.append(_from_plane(reproducibility.principal_components(acts_ND), at_large["unstable"], large, ranks))
    share_SK = np.tile(np.asarray(ranks) / d, (len(saes.seeds), 1))
    predictors.append(Predictor("random plane", large, ranks, _as_pairs(share_SK), _as_pairs(share_SK)))

    summary = _summary(task, at_small, predictors, own, d, small, large, max(saes.sizes)) | {"ratio_of_matched_to_unstable": spread}
    out.summary(summary)
    out.table("overlap", _overlap_table(predictors, task.section(LabelRule).confidence))
    out.table("sets", _sets_table(at_small, small_ranks, d, task.section(LabelRule).confidence))
    out.table("without", _without_table(predictors, own, c.headline_rank, saes.seeds))
    out.table("spectra", _spectra_table(at_small))
    out.table("angles", _angles_table(at_small, min(c.headline_rank, small), d))


class Predictor(NamedTuple):
    """What may predict a held-out seed's unstable span, and how well it does at every rank.

    Attributes:
      name: the plane that predicts.
      n: features in each span compared.
      ranks: of the planes (K of them).
      overlap, captured_energy: (S, S, K), seed that predicts × seed predicted, diagonal NaN.
    """

    name: str
    n: int
    ranks: tuple[int, ...]
    overlap: np.ndarray
    captured_energy: np.ndarray


def _from_features(name: str, bases: reproducibility.Bases, unstable: reproducibility.Bases, n: int, ranks: tuple[int, ...]) -> Predictor:
    with progress.comparing(f"subspace/{name}") as on_pair:
        overlap = reproducibility.overlap_between_seeds(bases, unstable, ranks, on_pair)
        energy = reproducibility.energy_between_seeds(bases, unstable, ranks, on_pair)
    return Predictor(f"{name} features of another seed", n, ranks, overlap, energy)


def _from_plane(plane_DD: np.ndarray, unstable: reproducibility.Bases, n: int, ranks: tuple[int, ...]) -> Predictor:
    overlap = _as_pairs(reproducibility.overlap_with_plane(unstable, plane_DD, ranks))
    return Predictor("activation PCA", n, ranks, overlap, _as_pairs(reproducibility.energy_in_plane(unstable, plane_DD, ranks)))


def _as_pairs(values_SK: np.ndarray) -> np.ndarray:
    """A figure of the second seed alone, as a table over ordered pairs."""
    s = len(values_SK)
    out = np.tile(values_SK[None], (s, 1, 1))
    out[np.arange(s), np.arange(s)] = np.nan
    return out


def _sets(features: dict[str, np.ndarray], seeds: tuple[int, ...]) -> dict[str, list[np.ndarray]]:
    """Live feature indices per set and seed."""
    live = features["stratum"] == "live"
    masks = {name: live & (features["label"] == name) for name in ("unstable", "stable", "intermediate")} | {"random": live}
    return {name: [features["feature"][mask & (features["seed"] == seed)] for seed in seeds] for name, mask in masks.items()}


def _matched(
    c: Subspace, unit_SFD: np.ndarray, features: dict[str, np.ndarray], column: str, seeds: tuple[int, ...], large: int, salt: int
) -> tuple[reproducibility.Bases, int, float]:
    """(draws of live features that are not unstable, whose column is spread as the unstable ones'; how many features; and how well that succeeds:
    geometric mean of the column among the drawn over that among the unstable, 1 where it does)."""
    live, unstable = features["stratum"] == "live", features["label"] == "unstable"
    of_seed = lambda mask: [np.flatnonzero(mask & (features["seed"] == seed)) for seed in seeds]
    others, targets = of_seed(live & ~unstable), of_seed(live & unstable)
    value = np.log(np.maximum(features[column], 1e-12))
    weights = [subspaces.matching_weights(value[o], value[t]) for o, t in zip(others, targets, strict=True)]
    n = min(large, *(len(o) // 2 for o in others))  # of all that there are nothing can be chosen
    bases = reproducibility.draw_bases(unit_SFD, [features["feature"][o] for o in others], n, c.subsamples, seeds, salt, weights)
    drawn = [
        value[subspaces.subsample(np.random.default_rng((salt, seed)), o, n, c.subsamples, w)].mean()
        for seed, o, w in zip(seeds, others, weights, strict=True)
    ]
    return bases, n, float(np.exp(np.mean(drawn) - np.mean([value[t].mean() for t in targets])))


def _sets_table(bases: dict[str, Any], ranks: tuple[int, ...], d: int, confidence: float) -> dict[str, list[Any]]:
    """One row per set and figure: overlap between seeds of its own top-r planes, and four effective ranks; all sets of equally many features."""
    columns: dict[str, list[Any]] = {name: [] for name in ("set", "figure", "rank", "value", "low", "high", "random_plane")}

    def add(name: str, figure: str, rank: int | None, statistic: Any, seeds: int, chance: float | None) -> None:
        e = aggregates.jackknifed(statistic, seeds, confidence, null=None, unit="share", bounds=(0.0, 1.0))
        for column, value in zip(columns.values(), (name, figure, rank, e.value, e.low, e.high, chance), strict=True):
            column.append(value)

    for name, b in bases.items():
        s = len(b.u_STDR)
        overlap = reproducibility.overlap_between_seeds(b, b, ranks, progress.look_for_signals)
        for k, rank in enumerate(ranks):
            add(name, "overlap between seeds", rank, functools.partial(pair_mean, overlap[..., k]), s, rank / d)
        for figure, values_ST in subspaces.effective_rank(b.sigma_STR)._asdict().items():
            add(name, f"effective rank / D, {figure}", None, functools.partial(seed_mean, np.asarray(values_ST.mean(1)) / d), s, None)
    return columns


def _without_table(predictors: list[Predictor], own: dict[int, Predictor], rank: int, seeds: tuple[int, ...]) -> dict[str, list[Any]]:
    """The headline with every seed left out in turn."""
    tables = list(against_nulls(predictors, own, "overlap", rank).values())
    columns: dict[str, list[Any]] = {name: [] for name in ("without", "overlap", "excess")}
    for i, seed in enumerate(seeds):
        weights_S = 1.0 - np.eye(len(seeds))[i]
        row = (seed, pair_mean(own_table(predictors, "overlap", rank), weights_S), _excess(tables, weights_S))
        for column, figure in zip(columns.values(), row, strict=True):
            column.append(figure)
    return columns


def _not_measured(out: Outputs, sizes: dict[str, int], c: Subspace, d: int, seeds: int) -> None:
    smallest = ", ".join(f"{n} {name}" for name, n in sizes.items())
    because = (
        f"the poorest seeds have {smallest} live features at width {d}; needed are subspace.min_features={c.min_features} of each "
        f"and subspace.headline_rank={c.headline_rank} below the width"
    )
    names = (
        "overlap_unstable",
        "overlap_excess",
        "effective_rank_unstable",
        "effective_rank_stable",
        "effective_rank_stable_minus_unstable",
    )
    empty = {name: Estimate(None, None, None, None, Count(seeds, "seeds"), "share").as_dict() for name in names}
    out.not_measured(because, empty)


def _summary(
    task: Task,
    at_small: dict[str, Any],
    predictors: list[Predictor],
    own: dict[int, Predictor],
    d: int,
    small: int,
    large: int,
    n_features: int,
) -> dict[str, Any]:
    rank = task.section(Subspace).headline_rank
    s = len(at_small["unstable"].u_STDR)
    knife = functools.partial(aggregates.jackknifed, seeds=s, confidence=task.section(LabelRule).confidence)
    summary: dict[str, Any] = {"features_per_set": small, "features_against_nulls": large, "width": d, "headline_rank": rank}
    for figure in FIGURES:
        value, tables = functools.partial(pair_mean, own_table(predictors, figure, rank)), against_nulls(predictors, own, figure, rank)
        null_values = {name: pair_mean(null, np.ones(s)) for name, (_, null) in tables.items()}
        strongest = min(tables, key=lambda name: pair_mean(tables[name][0], np.ones(s)) - null_values[name])
        excess = functools.partial(_excess, list(tables.values()))
        summary[f"{figure}_unstable"] = knife(value, null=null_values[strongest], unit="share", bounds=(0.0, 1.0)).as_dict()
        summary[f"{figure}_excess"] = knife(excess, null=0.0, unit="share").as_dict()
        summary[f"{figure}_nulls"] = null_values
        summary[f"{figure}_strongest_null"] = strongest

    ranks_S = {name: np.asarray(subspaces.effective_rank(b.sigma_STR).entropy.mean(1)) / d for name, b in at_small.items()}
    mean = lambda values: functools.partial(seed_mean, values)
    null = float(ranks_S["random"].mean())
    for name in ("unstable", "stable"):
        summary[f"effective_rank_{name}"] = knife(mean(ranks_S[name]), null=null, unit="share of the width").as_dict()
    difference = ranks_S["stable"] - ranks_S["unstable"]
    summary["effective_rank_stable_minus_unstable"] = knife(mean(difference), null=0.0, unit="share of the width").as_dict()
    # n rows cannot have an effective rank above min(n, D), whatever they are; and inside r dimensions features match by chance.
    summary["effective_rank_ceiling"] = min(small, d) / d
    own_rank = max(2, round(float(ranks_S["unstable"].mean()) * d))
    summary["chance_of_match_in_unstable_span"] = nulls.chance_of_match(task.section(LabelRule).theta, own_rank, n_features)
    return summary


def own_table(predictors: list[Predictor], figure: str, rank: int) -> np.ndarray:
    """(S, S): what the unstable features of one seed make of those of another."""
    (own,) = (p for p in predictors if p.name == OWN)
    result: np.ndarray = getattr(own, figure)[..., own.ranks.index(rank)]
    return result


def against_nulls(
    predictors: list[Predictor], own: dict[int, Predictor], figure: str, rank: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By null: (the unstable features' own table, the null's), both of as many features: overlaps grow with their number."""
    place = lambda p: getattr(p, figure)[..., p.ranks.index(rank)]
    return {p.name: (place(own[p.n]), place(p)) for p in predictors if p.name != OWN and rank in p.ranks}


def _excess(tables: list[tuple[np.ndarray, np.ndarray]], weights_S: np.ndarray) -> float:
    """The figure less the strongest null's, both on the same sample of seeds (which null is strongest may differ by sample)."""
    return min(pair_mean(own, weights_S) - pair_mean(null, weights_S) for own, null in tables)


def _overlap_table(predictors: list[Predictor], confidence: float) -> dict[str, Any]:
    """One row per predictor, figure and rank, with intervals over seeds."""
    columns: dict[str, list[Any]] = {name: [] for name in ("predictor", "n", "figure", "rank", "value", "low", "high")}
    for p in predictors:
        for figure in FIGURES:
            for k, rank in enumerate(p.ranks):
                mean = functools.partial(pair_mean, getattr(p, figure)[..., k])
                e = aggregates.jackknifed(mean, len(p.overlap), confidence, null=None, unit="share", bounds=(0.0, 1.0))
                row = (p.name, p.n, figure, rank, e.value, e.low, e.high)
                for column, value in zip(columns, row, strict=True):
                    columns[column].append(value)
    return columns


def _spectra_table(bases: dict[str, Any]) -> dict[str, Any]:
    """Normalised singular values by set and seed, mean over draws; energy is the cumulative share of σ²."""
    columns: dict[str, list[Any]] = {name: [] for name in ("set", "seed_index", "index", "sigma", "energy")}
    for name, b in bases.items():
        sigma_SR = np.asarray(b.sigma_STR.mean(1))
        square = np.asarray(np.square(b.sigma_STR))
        energy_SR = (np.cumsum(square, -1) / square.sum(-1, keepdims=True)).mean(1)
        s, r = sigma_SR.shape
        columns["set"] += [name] * (s * r)
        columns["seed_index"] += list(np.repeat(np.arange(s), r))
        columns["index"] += list(np.tile(np.arange(1, r + 1), s))
        columns["sigma"] += list(sigma_SR.reshape(-1))
        columns["energy"] += list(energy_SR.reshape(-1))
    return columns


def _angles_table(bases: dict[str, Any], rank: int, d: int) -> dict[str, Any]:
    """Mean principal angles between seeds by set, and of random planes by simulation."""
    columns: dict[str, list[Any]] = {name: [] for name in ("set", "index", "angle", "low", "high")}

    def add(name: str, angles_PR: np.ndarray) -> None:
        columns["set"] += [name] * rank
        columns["index"] += list(range(1, rank + 1))
        columns["angle"] += list(angles_PR.mean(0))
        columns["low"] += list(np.percentile(angles_PR, 2.5, axis=0))
        columns["high"] += list(np.percentile(angles_PR, 97.5, axis=0))

    for name, b in bases.items():
        angles = reproducibility.angles_between_seeds(b, rank, progress.look_for_signals)
        add(name, angles[~np.isnan(angles[..., 0])])
    planes = nulls.haar_rotations(jax.random.key(0, impl="threefry2x32"), 64, d)[..., :rank]
    by_chance = jax.vmap(subspaces.principal_angles)(planes[::2], planes[1::2])
    add("random planes (null)", np.degrees(np.asarray(by_chance)))
    return columns
