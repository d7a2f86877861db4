"""Independent products of each method: what two of them share, and what the headline's have beyond those of its competitors at equal compute.

A product is one SAE. Products of a method are independent: pools of disjoint groups, SAEs trained longer from seeds of their own, single SAEs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.data import dictionary_list
from experiments.pooling import pools, scoring
from experiments.pooling.methods import LONGER, WIDER, Judges, Method
from experiments.pooling.pool import Which, path
from experiments.pooling.pools import PHASES, SINGLE, Groups, Material, Pooling, Way
from experiments.pooling.scoring import DictionaryScore
from experiments.stage import Task
from saes.config import TrainConfig
from saes.dictionary import Dictionary
from saes.formats import saelens
from stability import aggregates
from stability.estimates import Count, Estimate

ALL, LIVE, LONG, EXPLAINED, N_LIVE = "all", "live", "against long", "explained", "live features"
FIGURES = {
    ALL: "share of features",
    LIVE: "share of live features",
    LONG: "share of live features",
    EXPLAINED: "explained variance",
    N_LIVE: "features",
}
COMPARED = (ALL, LIVE, LONG, EXPLAINED)  # with competitors

Trained = Mapping[str, Mapping[Which, tuple[Dictionary, DictionaryScore]]]  # by phase of training on


class Products(NamedTuple):
    """The G products of a method.

    Attributes:
      scores: of each.
      units: what each was made from. Products of two methods from the same unit hang together, and are left out together.
    """

    scores: list[DictionaryScore]
    units: tuple[str, ...]


class Figures(NamedTuple):
    """Figures of the G products of a method, beside L SAEs trained longer.

    Attributes:
      units: as of the products.
      long_units: of the SAEs trained longer.
      all_GG: share of all features of either that the other has too, one-to-one; dead ones, copies and missing ones count 0; NaN on the diagonal.
      live_GG: share of the live features of either that the other has too.
      long_GL: share of the live features that an SAE trained longer has too; NaN of itself.
      explained_G: explained variance.
      n_live_G: live features.
      nulls: of `all_GG` and `live_GG`, with rows of the first two products turned where activations have unit covariance.
    """

    units: tuple[str, ...]
    long_units: tuple[str, ...]
    all_GG: np.ndarray
    live_GG: np.ndarray
    long_GL: np.ndarray
    explained_G: np.ndarray
    n_live_G: np.ndarray
    nulls: dict[str, float]


def collect(
    task: Task, judges: Judges, material: Material, groups: Groups, methods: Sequence[Method], trained_on: Trained
) -> dict[str, Products]:
    """By method. Single SAEs are those that nobody pooled. Bagging gives no SAE and has none."""
    fresh = judges([material.dictionaries[s] for s in groups.fresh])
    products = {SINGLE: Products(fresh, tuple(f"SAE {s}" for s in groups.fresh))}
    further = [*groups.by_name][len(pools.NAMES) :]
    for m in methods:
        if m.name in (LONGER, WIDER):
            scores = [score for side in m.whole for score in side]
            products[m.name] = Products(scores, tuple(f"{m.name} {i}" for i in range(len(scores))))
        elif m.name in pools.KINDS:
            paths = {name: path(task, Which(m.name, name)) for name in further}
            there = {name: saelens.load(place)[0] for name, place in paths.items() if place.exists()}
            more = judges(list(there.values())) if there else []
            products[m.name] = Products([m.whole[0][0], m.whole[1][0], *more], (*pools.NAMES, *there))
    for phase, every in trained_on.items():
        whole = {w: score for w, (_, score) in every.items() if w.excluded_seed is None and w.point is None}
        for kind in dict.fromkeys(w.kind for w in whole):
            by_group = {w.group: score for w, score in whole.items() if w.kind == kind}
            products[Way(kind, phase).name] = Products(list(by_group.values()), tuple(by_group))
    return products


def measure(
    products: Mapping[str, Products], theta: float, n_features: int, rotate: Callable[[DictionaryScore], DictionaryScore]
) -> dict[str, Figures]:
    """Figures of every method.

    Args:
      theta: cosine from which two features are one.
      n_features: that an SAE is to have.
      rotate: an SAE that shares nothing but where tokens vary.
    """
    long = products.get(LONGER, Products([], ()))
    by_method = {}
    for name, (scores, units) in products.items():
        g = range(len(scores))
        all_GG, live_GG = np.full((len(g), len(g)), np.nan), np.full((len(g), len(g)), np.nan)
        for i, j in ((i, j) for i in g for j in g if i < j):
            all_GG[i, j] = all_GG[j, i] = scoring.shared(scores[i], scores[j], theta, n_features)
            live_GG[i, j] = live_GG[j, i] = scoring.overlap(scores[i], scores[j], theta)
        long_GL = np.array(
            [
                [scoring.share_in(a, b, theta) if unit != other else np.nan for b, other in zip(*long, strict=True)]
                for a, unit in zip(scores, units, strict=True)
            ]
        ).reshape(len(scores), len(long.scores))
        nulls = {}
        if len(scores) > 1:
            one, other = rotate(scores[0]), rotate(scores[1])
            nulls = {ALL: scoring.shared(one, other, theta, n_features), LIVE: scoring.overlap(one, other, theta)}
        explained_G, n_live_G = np.array([s.explained for s in scores]), np.array([float(s.live_M.sum()) for s in scores])
        by_method[name] = Figures(units, long.units, all_GG, live_GG, long_GL, explained_G, n_live_G, nulls)
    return by_method


def value(figures: Figures, name: str, excluded: str | None = None) -> float:
    """One figure of a method, without the products of a unit; NaN where nothing is left."""
    weight_G = np.array([unit != excluded for unit in figures.units], float)
    if name in (ALL, LIVE):
        return aggregates.pair_mean(figures.all_GG if name == ALL else figures.live_GG, weight_G)
    if name == LONG:
        weight_GL = weight_G[:, None] * np.array([unit != excluded for unit in figures.long_units], float)
        return aggregates.seed_mean(figures.long_GL.ravel(), weight_GL.ravel())
    return aggregates.seed_mean(figures.explained_G if name == EXPLAINED else figures.n_live_G, weight_G)


def estimate(figures: Figures, name: str, confidence: float) -> Estimate:
    """One figure of a method, with an interval from leaving out one product at a time. Of pairs it is None with fewer than three products."""
    bounds = (-np.inf, np.inf) if name in (EXPLAINED, N_LIVE) else (0.0, 1.0)
    return _jackknifed(lambda unit: value(figures, name, unit), [figures], name, confidence, figures.nulls.get(name), bounds)


def difference(figures: Figures, others: Figures, name: str, confidence: float) -> Estimate:
    """One figure of a method less that of another.

    Where both were made from the same units, as pools and SAEs from the same groups, a unit is left out of both at once. Else the two sets are
    independent, their variances add up, and degrees of freedom are Satterthwaite's.
    """
    common = set(figures.units) & set(others.units)
    if common:
        figures, others = _restricted(figures, common), _restricted(others, common)
    statistic = lambda unit: value(figures, name, unit) - value(others, name, unit)
    return _jackknifed(statistic, [figures, others], name, confidence, 0.0, (-np.inf, np.inf))


def _restricted(figures: Figures, units: set[str]) -> Figures:
    """Those of some units, in one order."""
    rows = np.array(sorted((g for g, unit in enumerate(figures.units) if unit in units), key=lambda g: figures.units[g]), int)
    return figures._replace(
        units=tuple(figures.units[g] for g in rows),
        all_GG=figures.all_GG[np.ix_(rows, rows)],
        live_GG=figures.live_GG[np.ix_(rows, rows)],
        long_GL=figures.long_GL[rows],
        explained_G=figures.explained_G[rows],
        n_live_G=figures.n_live_G[rows],
    )


def _jackknifed(
    statistic: Callable[[str | None], float],
    methods: Sequence[Figures],
    name: str,
    confidence: float,
    null: float | None,
    bounds: tuple[float, float],
) -> Estimate:
    own = [figures.units for figures in methods]
    of_long = [figures.long_units for figures in methods if name == LONG]
    by_stratum = [units for units in dict.fromkeys((*own, *of_long)) if units]
    units = [unit for stratum in by_stratum for unit in stratum]
    ends = np.cumsum([0, *map(len, by_stratum)])
    strata = [range(a, b) for a, b in zip(ends, ends[1:], strict=False)]
    e = aggregates.stratified_jackknifed(
        lambda k: statistic(None if k is None else units[k]), strata, confidence, null=null, unit=FIGURES[name], bounds=bounds
    )
    return e._replace(n=Count(len({unit for units in own for unit in units}), "independent products"))


def competitors(c: Pooling) -> tuple[str, ...]:
    """What the headline must beat: SAEs trained as long as a pool and its members together, and SAEs trained on alike."""
    phase = c.headline_way.phase
    return (LONGER, *((Way(SINGLE, phase).name,) if phase else ()))


def tokens(task: Task) -> dict[str, int]:
    """Training tokens of the headline pool with its members, and of an SAE trained longer, where there are such."""
    c, length = task.section(Pooling), task.section(TrainConfig)
    phases = [*PHASES][: [*PHASES].index(c.headline_way.phase) + 1] if c.headline_way.phase else []
    tuning = {pools.HELD: c.held_tokens, pools.FREE: c.free_tokens}
    spent = {c.headline: c.group * length.tokens + sum(tuning[phase] for phase in phases)}
    if task.has("longer"):
        listing = dictionary_list.read(task.path("longer/train") / dictionary_list.NAME)
        spent[LONGER] = int(listing["training"]["tokens"])
    return spent


def summary(by_method: Mapping[str, Figures], c: Pooling, spent: Mapping[str, int], confidence: float) -> dict[str, Any]:
    """What `pooled/summary.json` says of independent products, and by what the headline differs from the others."""
    headline = by_method.get(c.headline)
    others = [name for name in (*competitors(c), SINGLE) if name in by_method] if headline is not None else []
    return {
        "methods": {m: {name: estimate(f, name, confidence).as_dict() for name in FIGURES} for m, f in by_method.items()},
        "products": {m: len(f.units) for m, f in by_method.items()},
        "competitors": list(competitors(c)),
        "tokens": dict(spent),
        "less": {
            m: {name: difference(headline, by_method[m], name, confidence).as_dict() for name in COMPARED}
            for m in others
            if headline is not None
        },
    }


def table(of_products: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A row per method and figure, from the summary."""
    rows = [
        (m, name, e["value"], e["low"], e["high"], e["null"], of_products["products"][m])
        for m, figures in of_products["methods"].items()
        for name, e in figures.items()
    ]
    names = ("method", "figure", "value", "low", "high", "null", "n")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
