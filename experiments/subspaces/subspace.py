"""Stage: spectra, effective rank and agreement between seeds of the spans of unstable, stable and random features.

Always at equal n, since effective rank and overlap grow with the number of rows; features live, random draws repeated.  Two
sizes: all sets are compared at the size of the smallest, which with few stable features is small; unstable features are held
against other predictors at the larger size that those allow.
"""

import functools
from typing import Any

import numpy as np

from experiments.data import dictionary_list, sources
from experiments.fields import check, config, field
from experiments.reappearance import null_models
from experiments.reappearance.labels import LabelRule
from experiments.stage import Outputs, Stage, Task
from experiments.subspaces import subspace_tables
from experiments.subspaces.predictors import (
    DECIDING,
    FIGURES,
    OWN,
    RANDOM_PLANE,
    Predictor,
    against_nulls,
    as_pairs,
    excess,
    from_features,
    from_gaussian,
    from_plane,
    own_table,
)  # fmt: skip
from stability import aggregates, nulls, reproducibility, similarity, subspaces
from stability.aggregates import pair_mean, seed_mean
from stability.estimates import Count, unmeasured


@config("subspace")
class Subspace:
    """How subspaces of feature sets are compared."""

    ranks: tuple[int, ...] = field(
        default=(1, 2, 4, 8, 16, 24, 32, 48, 64, 96), doc="r of the subspaces compared; those ≥ width are left out", gt=0
    )
    headline_rank: int = field(default=16, doc="one of ranks, far below the width", gt=0)
    subsamples: int = field(default=20, doc="draws of equally many features from each set", gt=0)
    min_features: int = field(default=20, doc="a set with fewer live features in any seed is not measured", ge=2)
    most_features: int = field(default=0, doc="in each set where all sets are compared, at most; 0: as many as the smallest set has", ge=0)
    most_against_nulls: int = field(
        default=0, doc="unstable features that are held against other predictors, at most; 0: as many as these allow", ge=0
    )

    def check(self) -> None:
        check(self.headline_rank in self.ranks, "subspace.headline_rank", self.headline_rank, f"must be one of ranks={self.ranks}")
        most = {"most_features": self.min_features, "most_against_nulls": self.headline_rank}
        for name, least in most.items():
            value = getattr(self, name)
            check(value == 0 or value >= least, f"subspace.{name}", value, f"0, or at least {least} (min_features and headline_rank)")


STAGE = Stage(config=Subspace, reads=(LabelRule,), needs=("saes", "stability"), uses=("rows", "gaussian"))

SETS = ("unstable", "stable", "random", "intermediate")
NEEDED = ("unstable", "stable", "random")
MATCHED = {
    "matched frequency": "firing_rate",
    "matched energy": "energy",
}  # sets of other features whose column is spread as the unstable ones'
GAUSSIAN_SALT = 100  # of the draws of features of SAEs trained on Gaussian activations
MAX_MEAN_RATIO = 1.5  # a set of matched frequency or energy whose mean is further from the unstable ones' is no match


def run(task: Task, out: Outputs) -> None:
    saes = dictionary_list.saes(task)
    gaussian = null_models.gaussian_saes(task, out)
    gaussian_rows = None
    if gaussian is not None and len(gaussian[0].seeds) >= 2:
        gaussian_rows = rows_that_fire(*gaussian)
    features, acts_ND = task.table("stability/features"), sources.evaluation_rows(task)
    unit_SFD = np.asarray(similarity.unit_rows(saes.w_dec_SFD))
    measured = measure(task.section(Subspace), task.section(LabelRule), unit_SFD, features, saes.seeds, acts_ND, gaussian_rows)
    if isinstance(measured, str):
        names = ("overlap_unstable", "overlap_excess", "effective_rank_unstable", "effective_rank_stable")
        out.not_measured(measured, {name: unmeasured(Count(len(saes.seeds), "seeds"), "share").as_dict() for name in names})
        return
    summary, tables = measured
    out.summary(summary)
    for name, table in tables.items():
        out.table(name, table)


def rows_that_fire(saes: dictionary_list.DictionaryList, fires_SF: np.ndarray) -> list[np.ndarray]:
    """Unit decoder rows of every SAE's features that fire."""
    fires = [fires_F[:size] for fires_F, size in zip(fires_SF, saes.sizes, strict=True)]
    return [np.asarray(similarity.unit_rows(d.w_dec_FD))[fires_F] for d, fires_F in zip(saes.dictionaries, fires, strict=True)]


def measure(
    c: Subspace,
    rule: LabelRule,
    unit_SFD: np.ndarray,
    features: dict[str, np.ndarray],
    seeds: tuple[int, ...],
    acts_ND: np.ndarray | None,
    gaussian_rows: list[np.ndarray] | None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | str:
    """(figures, tables), or why nothing is measured.

    Args:
      unit_SFD: unit decoder rows.
      features: columns of stability/features.parquet.
      acts_ND: held-out activations.
      gaussian_rows: of each SAE trained on Gaussian activations, of at least two, the unit decoder rows of features that fire.
    """
    members = _sets(features, seeds)
    sizes = {name: min(len(features) for features in members[name]) for name in NEEDED}
    small, large = at_most(min(sizes.values()), c.most_features), at_most(min(sizes["unstable"], sizes["random"]), c.most_against_nulls)
    d = unit_SFD.shape[-1]
    ranks = tuple(r for r in c.ranks if r < d and r <= large)
    if small < max(c.min_features, 2) or c.headline_rank not in ranks:
        smallest = ", ".join(f"{n} {name}" for name, n in sizes.items())
        return (
            f"the poorest seeds have {smallest} live features at width {d}; needed are subspace.min_features={c.min_features} of each "
            f"and subspace.headline_rank={c.headline_rank} below the width"
        )
    draw = lambda name, n: reproducibility.draw_bases(unit_SFD, members[name], n, c.subsamples, seeds, SETS.index(name))
    at_small = {name: draw(name, small) for name in SETS if min(map(len, members[name])) >= small}
    at_large = {name: draw(name, large) for name in ("unstable", "random")}
    predictors = [from_features(name, bases, at_large["unstable"], large, ranks) for name, bases in at_large.items()]
    own = {large: predictors[0]}  # what each null is held against: the unstable features' own, of as many features
    small_ranks = tuple(r for r in ranks if r <= small)

    def unstable_of(n: int) -> tuple[reproducibility.Bases, tuple[int, ...]]:
        bases = {large: at_large["unstable"], small: at_small["unstable"]}.get(n) or draw("unstable", n)
        ranks_n = tuple(r for r in ranks if r <= n)
        if n not in own:
            own[n] = from_features("unstable", bases, bases, n, ranks_n)
        return bases, ranks_n

    predictors.append(from_features("stable", at_small["stable"], unstable_of(small)[0], small, small_ranks))
    spread: dict[str, float] = {}
    for salt, (name, column) in enumerate(MATCHED.items(), start=len(SETS)):
        if column in features:
            matched, n, spread[name] = _matched(c, unit_SFD, features, column, seeds, large, salt)
            if n < max(c.min_features, c.headline_rank) or not 1 / MAX_MEAN_RATIO <= spread[name] <= MAX_MEAN_RATIO:
                continue  # too few, or no match: said by the ratio in the summary
            bases, ranks_n = unstable_of(n)
            predictors.append(from_features(name, matched, bases, n, ranks_n))
    if acts_ND is not None:
        predictors.append(from_plane(reproducibility.principal_components(acts_ND), at_large["unstable"], large, ranks))
    effective_rank_G = None
    if gaussian_rows is not None:
        of_gaussian = lambda n: reproducibility.draw_bases(
            gaussian_rows,
            [np.arange(len(rows)) for rows in gaussian_rows],
            n,
            c.subsamples,
            tuple(range(len(gaussian_rows))),
            GAUSSIAN_SALT,
        )
        if (n := min(large, *map(len, gaussian_rows))) >= max(c.min_features, c.headline_rank):
            bases, ranks_n = unstable_of(n)
            predictors.append(from_gaussian(of_gaussian(n), bases, n, ranks_n))
        if min(map(len, gaussian_rows)) >= small:
            effective_rank_G = np.asarray(subspaces.effective_rank(of_gaussian(small).sigma_STR).entropy.mean(1)) / d
    share_SK = np.tile(np.asarray(ranks) / d, (len(seeds), 1))
    predictors.append(Predictor(RANDOM_PLANE, large, ranks, as_pairs(share_SK), as_pairs(share_SK)))

    summary = {"features_per_set": small, "features_against_nulls": large, "width": d, "headline_rank": c.headline_rank}
    summary |= _overlaps(predictors, own, c.headline_rank, rule.confidence)
    summary |= _ranks(at_small, effective_rank_G, d, small, rule, unit_SFD.shape[1])
    summary["ratio_of_matched_to_unstable"] = spread
    # Stable features are held against as many as there are of them, few, whatever the other nulls allow.
    other_nulls = [p.n for p in predictors if p.name in DECIDING[1:] and c.headline_rank in p.ranks]
    summary["fewest_against_a_null"] = min([large, *other_nulls])
    tables = {
        "overlap": subspace_tables.overlap_table(predictors, rule.confidence),
        "sets": subspace_tables.sets_table(at_small, small_ranks, d, rule.confidence),
        "without": subspace_tables.without_table(predictors, own, c.headline_rank, seeds),
        "spectra": subspace_tables.spectra_table(at_small),
        "angles": subspace_tables.angles_table(at_small, min(c.headline_rank, small), d),
    }
    return summary, tables


def at_most(n: int, most: int) -> int:
    """`n`, but no more than `most`; 0 is no bound."""
    return min(n, most) if most else n


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


def _overlaps(predictors: list[Predictor], own: dict[int, Predictor], rank: int, confidence: float) -> dict[str, Any]:
    """Overlap and captured energy of unstable features, over each null that decides, and over the strongest of them."""
    s = len(predictors[0].overlap)
    knife = functools.partial(aggregates.jackknifed, seeds=s, confidence=confidence)
    summary: dict[str, Any] = {}
    for figure in FIGURES:
        tables = against_nulls(predictors, own, figure, rank)
        values = {p.name: p.mean(figure, rank)(np.ones(s)) for p in predictors if rank in p.ranks and p.name != OWN}
        differences = {}
        for p in predictors:
            if p.name in tables:
                difference = functools.partial(excess, [tables[p.name]])
                differences[p.name] = knife(difference, null=0.0, unit="share", other_variance=p.variance(figure, rank)).as_dict()
        strongest = min(differences, key=lambda name: differences[name]["value"])
        value = functools.partial(pair_mean, own_table(predictors, figure, rank))
        summary[f"{figure}_unstable"] = knife(value, null=values[strongest], unit="share", bounds=(0.0, 1.0)).as_dict()
        summary[f"{figure}_excess"] = knife(functools.partial(excess, list(tables.values())), null=0.0, unit="share").as_dict()
        summary[f"{figure}_over"] = differences
        summary[f"{figure}_nulls"] = values
        summary[f"{figure}_strongest_null"] = strongest
    return summary


def _ranks(
    at_small: dict[str, reproducibility.Bases], gaussian_G: np.ndarray | None, d: int, small: int, rule: LabelRule, n_features: int
) -> dict[str, Any]:
    """Effective ranks of equally many features of each set; of SAEs trained on Gaussian activations, which are few, with their own spread."""
    knife = functools.partial(aggregates.jackknifed, seeds=len(at_small["unstable"].u_STDR), confidence=rule.confidence)
    ranks_S = {name: np.asarray(subspaces.effective_rank(b.sigma_STR).entropy.mean(1)) / d for name, b in at_small.items()}
    mean = lambda values: functools.partial(seed_mean, values)
    null = float((ranks_S["random"] if gaussian_G is None else gaussian_G).mean())
    summary: dict[str, Any] = {}
    for name in ("unstable", "stable"):
        summary[f"effective_rank_{name}"] = knife(mean(ranks_S[name]), null=null, unit="share of the width").as_dict()
    difference = ranks_S["stable"] - ranks_S["unstable"]
    summary["effective_rank_stable_minus_unstable"] = knife(mean(difference), null=0.0, unit="share of the width").as_dict()
    if gaussian_G is not None:
        spread = float(gaussian_G.var(ddof=1)) / len(gaussian_G)
        summary["effective_rank_gaussian_minus_unstable"] = knife(
            mean(gaussian_G.mean() - ranks_S["unstable"]), null=0.0, unit="share of the width", other_variance=spread
        ).as_dict()
    # n rows cannot have an effective rank above min(n, D), whatever they are; and inside r dimensions features match by chance.
    summary["effective_rank_ceiling"] = min(small, d) / d
    own_rank = max(2, round(float(ranks_S["unstable"].mean()) * d))
    summary["chance_of_match_in_unstable_span"] = nulls.chance_of_match(rule.theta, own_rank, n_features)
    return summary
