"""Stage: what pools are worth: their reappearance in SAEs that were not pooled and in pools of others, and what they explain, beside what else could be had.

methods.parquet    a row per method and figure, with interval and null
curves.parquet     pools over the number of pooled SAEs, over θ and over the number of features
export/<name>      every pool in SAELens' format, with its card and `stability.parquet`
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from etils import epath

from launch import dictionary_list, judging, pool_export, pools, progress, replay, sources
from launch.dictionary_list import DictionaryList
from launch.judging import Judged
from launch.pools import Bank, Groups, Recipe
from launch.replay import Masks
from launch.stages import finetune, pool
from saes.dictionary import Dictionary
from saes.formats import saelens
from stability import aggregates, nulls, reappearance
from stability.estimates import Count, Estimate, unmeasured
from storage import files
from storage.tables import write_table
from synthetic.generator import make_truth

SINGLE, LONGER, WIDER, BAG = "single SAE", "trained longer", "wider", "bagging"
PHASES = {finetune.HELD: "decoder held", finetune.FREE: "tuned"}
FIGURES = {
    "p": "share of the SAEs that judge",
    "stable": "share of features",
    "between": "share of features",
    "explained": "explained variance",
    "l0": "features per token",
    "dead": "share of features",
    "features": "features",
    "found free": "share of atoms",
    "found block": "share of atoms",
}
OF_ROWS = ("p", "stable", "between", "found free", "found block")  # follow from the decoder rows, but for which of them live

Pair = tuple[list[Judged], list[Judged]]  # of the two groups


class Method(NamedTuple):
    """One way to get an SAE, once or more often from each group.

    Attributes:
      whole: what it gives.
      without: of every SAE of a group what it gives without that one; of others, and where the method cannot be repeated, nothing.
      dictionaries: of `whole`, where each is one dictionary.
      repeated: whether the interval may speak of other seeds to pool; else of other seeds that judge alone.
      explained_repeated: whether what is explained was measured without each SAE too.
    """

    name: str
    whole: Pair
    without: dict[int, Pair]
    dictionaries: tuple[list[Dictionary], list[Dictionary]] | None
    repeated: bool
    explained_repeated: bool


class Judges:
    """Measures dictionaries, each once."""

    def __init__(self, config: Any, of: Bank, groups: Groups, rows_ND: np.ndarray):
        self._units = [of.units[s] for s in groups.fresh]
        self._rows, self._c = rows_ND, config.stability
        self._theta = config.stability.theta
        self.atoms = make_truth(config.synthetic) if hasattr(config, "synthetic") else None
        self._found = config.recovery.found if hasattr(config, "synthetic") else 0.0
        self._between: dict[tuple[int, int], float] = {}

    def __call__(self, dictionaries: Sequence[Dictionary]) -> list[Judged]:
        return judging.judge(dictionaries, self._units, self._rows, self._theta, self._c.rare_firings)

    def between(self, one: Judged, other: Judged) -> float:
        at = (one.number, other.number)
        if at not in self._between:
            self._between[at] = judging.between(one, other, self._theta)
        return self._between[at]

    def atoms_found(self, of: Judged, in_block: bool) -> float:
        """Share of the world's atoms, of those in a block or of the others, that a feature is."""
        if self.atoms is None:
            return float("nan")
        atoms_AD = self.atoms.atoms_AD[(self.atoms.group_A > 0) == in_block]
        live_MD = of.unit_MD[of.live_M]
        if not len(atoms_AD) or not len(live_MD):
            return float("nan")
        return float(((atoms_AD @ live_MD.T).max(axis=1) > self._found).mean())


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c, folder = config.pool, workdir / "pooled"
    listed = dictionary_list.load(dictionary_list.place(config, workdir))
    groups = pools.groups(len(listed.seeds), c.group)
    of = pool.bank(config, workdir, listed)
    held_out_ND = sources.evaluation_rows(config, workdir)
    assert held_out_ND is not None
    rows_ND = held_out_ND[sources.evenly_spaced(len(held_out_ND), c.eval_rows)]
    judges = Judges(config, of, groups, rows_ND)
    methods = [_single(judges, of, groups), _bag(judges, of, groups, rows_ND), *_others(config, workdir, judges)]
    methods += [made for kind in pools.KINDS if (made := _pool(config, judges, of, groups, kind, pool.recipe(config, kind), c.group))]
    methods += _tuned(config, workdir, judges, {m.name: m for m in methods}, {seed: s for s, seed in enumerate(listed.seeds)})
    table = Table(config, judges, len(listed.seeds), groups)
    figures = {m.name: {name: table.estimate(m, name) for name in FIGURES} for m in methods}
    single = methods[0]
    differences = {m.name: {name: table.difference(m, single, name) for name in ("p", "between", "explained")} for m in methods[1:]}
    recovered = _predictions(config, workdir, methods)
    for name, values in recovered.items():
        figures[name] |= values
    curves = _curves(config, judges, of, groups, table)
    exported = _export(config, workdir, listed, methods, figures, differences)
    files.write_json(folder / "summary.json", _summary(config, listed, groups, methods, figures, differences))
    return [
        folder / "summary.json",
        write_table(folder / "methods.parquet", _methods(figures)),
        write_table(folder / "curves.parquet", curves),
        *exported,
    ]


def _single(judges: Judges, of: Bank, groups: Groups) -> Method:
    whole = tuple([*map(of.dictionaries.__getitem__, places)] for places in groups[:2])
    one, other = judges(whole[0]), judges(whole[1])
    without = {}
    for g, places in enumerate(groups[:2]):
        for at, s in enumerate(places):
            left = [j for i, j in enumerate((one, other)[g]) if i != at]
            without[s] = (left, other) if g == 0 else (one, left)
    return Method(SINGLE, (one, other), without, (whole[0], whole[1]), True, True)


def _bag(judges: Judges, of: Bank, groups: Groups, rows_ND: np.ndarray) -> Method:
    """Not one dictionary: every SAE chooses among its own features."""
    own = [judges([of.dictionaries[s] for s in places]) for places in groups[:2]]
    explained = [judging.explained_by_means([of.dictionaries[s] for s in places], rows_ND) for places in groups[:2]]
    one, other = ([judging.bag(j, e[0])] for j, e in zip(own, explained, strict=True))
    without: dict[int, Pair] = {}
    for g, places in enumerate(groups[:2]):
        for at, s in enumerate(places):
            left = [judging.bag([j for i, j in enumerate(own[g]) if i != at], explained[g][1][at])]
            without[s] = (left, other) if g == 0 else (one, left)
    return Method(BAG, (one, other), without, None, True, True)


def _others(config: Any, workdir: epath.Path, judges: Judges) -> list[Method]:
    """SAEs trained at the expense of a whole group."""
    found = []
    for name, stage in ((LONGER, "longer"), (WIDER, "wider")):
        if stage not in config.stages:
            continue
        one, other = dictionary_list.load(workdir / stage / "train" / dictionary_list.NAME).dictionaries
        judged = judges([one, other])
        found.append(Method(name, (judged[:1], judged[1:]), {}, ([one], [other]), False, False))
    return found


def _pool(
    config: Any, judges: Judges, of: Bank, groups: Groups, name: str, recipe: Recipe, size: int, repeat: bool = True
) -> Method | None:
    """Pools of `size` SAEs each, as many as a group holds; made again without each SAE."""
    l0 = float(config.sae.k)
    parts = [[places[i : i + size] for i in range(0, len(places), size)] for places in groups[:2]]
    made: dict[tuple[int, ...], Dictionary] = {}
    wanted = [p for group in parts for p in group]
    if repeat:
        wanted += [tuple(s for s in p if s != k) for group in parts for p in group for k in p if len(p) > 1]
    for places in wanted:
        progress.look_for_signals()
        pooled = pools.make(of, places, recipe, l0)
        if pooled is not None:
            made[places] = pooled.dictionary
    if any(p not in made for group in parts for p in group):
        return None
    judged = dict(zip(made, judges(list(made.values())), strict=True))
    one, other = ([judged[p] for p in group] for group in parts)
    without: dict[int, Pair] = {}
    for g, group in enumerate(parts):
        for at, p in enumerate(group):
            for k in p:
                left = tuple(s for s in p if s != k)
                if left in judged:
                    changed = [judged[left] if i == at else judged[q] for i, q in enumerate(group)]
                    without[k] = (changed, other) if g == 0 else (one, changed)
    whole = ([made[p] for p in parts[0]], [made[p] for p in parts[1]])
    complete = len(without) == sum(len(p) for group in parts for p in group)
    return Method(name, (one, other), without if complete else {}, whole, complete, complete)


def _tuned(config: Any, workdir: epath.Path, judges: Judges, made: dict[str, Method], places: dict[int, int]) -> list[Method]:
    """Pools that were trained on; where they were not made again without each SAE, with held rows the interval of what follows from rows is that of
    the pool as it was made."""
    if "finetune" not in config.stages:
        return []
    found = []
    for phase, called in PHASES.items():
        dictionaries = finetune.read(workdir, phase)
        judged = dict(zip(dictionaries, judges(list(dictionaries.values())), strict=True))
        for kind in dict.fromkeys(kind for kind, _, _ in dictionaries):
            one, other = ([judged[kind, name, None]] for name in pool.NAMES)
            own, others = ([dictionaries[kind, name, None]] for name in pool.NAMES)
            without: dict[int, Pair] = {}
            for of_kind, name, seed in dictionaries:
                if of_kind == kind and seed is not None:
                    left = [judged[kind, name, seed]]
                    without[places[seed]] = (left, other) if name == pool.NAMES[0] else (one, left)
            repeated = len(without) == 2 * config.pool.group
            if not repeated:
                without = made[kind].without if phase == finetune.HELD else {}
            found.append(Method(f"{kind}, {called}", (one, other), without, (own, others), bool(without), repeated))
    return found


class Table:
    """Figures of methods, with intervals from leaving out one SAE at a time, of a group or of those that judge.

    Where a method could not be repeated without each pooled SAE, the interval of reappearance is over the SAEs that judge alone, and that of what
    is explained is from the two groups alone (t with one degree of freedom).
    """

    def __init__(self, config: Any, judges: Judges, seeds: int, groups: Groups):
        self._judges, self._seeds, self._groups = judges, seeds, groups
        self._confidence, self._epsilon = config.stability.confidence, config.stability.epsilon
        width = judges._units[0].shape[1]
        features = max(len(u) for u in judges._units)
        self._chance = nulls.chance_of_match(config.stability.theta, width, features)

    def estimate(self, m: Method, figure: str) -> Estimate:
        null = self._chance if figure in ("p", "between") else 0.0 if figure == "explained" else None
        return self._of(m, figure, lambda k: self._value(m, figure, k), null)

    def difference(self, m: Method, single: Method, figure: str) -> Estimate:
        return self._of(m, figure, lambda k: self._value(m, figure, k) - self._value(single, figure, k), 0.0, single)

    def _of(self, m: Method, figure: str, at: Callable[[int | None], float], null: float | None, single: Method | None = None) -> Estimate:
        unit = FIGURES[figure]
        repeated = m.repeated if figure in OF_ROWS else m.explained_repeated
        if repeated:
            places: Sequence[int] = range(self._seeds)
        elif figure in ("p", "stable"):
            places = self._groups.fresh
        else:
            return self._of_groups(m, figure, null, unit, single)

        def statistic(weights: np.ndarray) -> float:
            return at(None if weights.all() else places[int(np.argmin(weights))])

        value = at(None)
        if np.isnan(value):
            return unmeasured(Count(len(places), "seeds"), unit)
        # At full weight the method as it is; where it was only made again without each SAE, the spread is of those.
        return aggregates.jackknifed(statistic, len(places), self._confidence, null=null, unit=unit)

    def _of_groups(self, m: Method, figure: str, null: float | None, unit: str, single: Method | None) -> Estimate:
        values = [self._mean(m.whole[g], figure, None) for g in range(2)] if figure != "between" else [self._value(m, figure, None)]
        if single is not None:
            own = (
                [self._mean(single.whole[g], figure, None) for g in range(2)]
                if figure != "between"
                else [self._value(single, figure, None)]
            )
            values = [a - b for a, b in zip(values, own, strict=True)]
        mean, n = float(np.mean(values)), Count(len(values), "groups")
        if np.isnan(mean):
            return unmeasured(n, unit)
        if len(values) < 2:
            return Estimate(mean, None, None, null, n, unit)
        half = scipy.stats.t.ppf(0.5 + self._confidence / 2, 1) * float(np.std(values, ddof=1)) / np.sqrt(2)
        return Estimate(mean, mean - half, mean + half, null, n, unit)

    def _value(self, m: Method, figure: str, without: int | None) -> float:
        pair = m.whole if without is None else m.without.get(without, m.whole)
        if figure == "between":
            shared = np.array([self._judges.between(a, b) for a in pair[0] for b in pair[1]])
            return aggregates.seed_mean(shared, np.ones(len(shared)))
        return float(np.mean([self._mean(side, figure, without) for side in pair]))

    def _mean(self, side: list[Judged], figure: str, without: int | None) -> float:
        keep_G = np.array([s != without for s in self._groups.fresh])
        return float(np.mean([self._one(j, figure, keep_G) for j in side]))

    def _one(self, j: Judged, figure: str, keep_G: np.ndarray) -> float:
        if figure in ("p", "stable"):
            hits_GL = j.hits_GM[keep_G][:, j.live_M]
            if not hits_GL.size:
                return float("nan")
            if figure == "p":
                return float(hits_GL.mean())
            misses = reappearance.allowed_misses(len(keep_G), self._epsilon)
            return float((hits_GL.sum(0) >= keep_G.sum() - misses).mean())
        if figure.startswith("found"):
            return self._judges.atoms_found(j, figure == "found block")
        return float(getattr(j, figure))


def _predictions(config: Any, workdir: epath.Path, methods: list[Method]) -> dict[str, dict[str, Estimate]]:
    """Cross-entropy recovered by every method that is one dictionary; of single SAEs by the first of each group."""
    if not config.pool.predictions or not hasattr(config, "lm") or replay.cannot(config):
        return {}
    own = {m.name: [side[0] for side in m.dictionaries] for m in methods if m.dictionaries is not None}
    every = [d for both in own.values() for d in both]
    masks = [Masks({replay.PLAIN: np.ones(d.w_dec_FD.shape[0], bool)}, {}) for d in every]
    clean, found, tokens = replay.measure(config, workdir, every, masks, config.pool.predictions)
    lost = clean.losses["zero"] - clean.losses["clean"]
    share = {name: [float((clean.losses["zero"] - found[2 * i + g].nll_Q[0]) / lost) for g in range(2)] for i, name in enumerate(own)}
    n = Count(2, "groups")
    t = scipy.stats.t.ppf(0.5 + config.stability.confidence / 2, 1)
    out = {}
    for name, values in share.items():
        mean, half = float(np.mean(values)), t * float(np.std(values, ddof=1)) / np.sqrt(2)
        out[name] = {"ce recovered": Estimate(mean, mean - half, mean + half, 0.0, n, "share of cross-entropy")}
    return out


def _curves(config: Any, judges: Judges, of: Bank, groups: Groups, table: Table) -> dict[str, list[Any]]:
    """One thing varied at a time; intervals by leaving out one SAE at a time."""
    c, f = config.pool, config.sae.n_features
    features = c.features or (f // 4, f // 2, f, 2 * f)
    rows = []
    points: list[tuple[str, str, float, Recipe, int]] = []
    for kind in (pools.MEMBERS, pools.STABLE):
        base = pool.recipe(config, kind)
        points += [("pooled SAEs", kind, size, base, size) for size in c.sizes]
        points += [("θ of the pool", kind, theta, base._replace(theta=theta), c.group) for theta in c.thetas]
    points += [("features", pools.MEMBERS, n, pool.recipe(config, pools.MEMBERS)._replace(features=n), c.group) for n in features]
    with progress.tokens(len(points), "pooled/curves") as bar:
        for over, kind, at, recipe, size in points:
            m = _pool(config, judges, of, groups, kind, recipe, size)
            for figure in ("p", "between", "explained", "features", "stable"):
                e = table.estimate(m, figure) if m is not None else unmeasured(Count(0, "seeds"), FIGURES[figure])
                rows.append((over, kind, float(at), figure, e.value, e.low, e.high, e.null))
            bar.update()
    names = ("over", "kind", "at", "figure", "value", "low", "high", "null")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _methods(figures: dict[str, dict[str, Estimate]]) -> dict[str, list[Any]]:
    rows = [(m, name, e.value, e.low, e.high, e.null, e.n.number, e.n.of) for m, of in figures.items() for name, e in of.items()]
    names = ("method", "figure", "value", "low", "high", "null", "n", "of")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _summary(
    config: Any,
    listed: DictionaryList,
    groups: Groups,
    methods: list[Method],
    figures: dict[str, dict[str, Estimate]],
    differences: dict[str, dict[str, Estimate]],
) -> dict[str, Any]:
    as_dicts = lambda of: {m: {name: e.as_dict() for name, e in found.items()} for m, found in of.items()}
    hook = listed.hook
    subject = config.subject if hasattr(config, "subject") else f"{hook['path']} after layer {hook['layer']} ({hook['site']})"
    return {
        "methods": as_dicts(figures),
        "less a single SAE": as_dicts(differences),
        "headline": config.pool.headline,
        "headline_measured": config.pool.headline in figures,
        "of": subject,
        "group": config.pool.group,
        "fresh": len(groups.fresh),
        "theta": config.pool.theta,
        "sae": {"variant": config.sae.variant, "n_features": config.sae.n_features, "k": config.sae.k, "tokens": config.train.tokens},
        "seeds": {name: [listed.seeds[s] for s in places] for name, places in zip(("one", "other", "fresh"), groups, strict=True)},
    }


def _export(
    config: Any,
    workdir: epath.Path,
    listed: DictionaryList,
    methods: list[Method],
    figures: dict[str, dict[str, Estimate]],
    differences: dict[str, dict[str, Estimate]],
) -> list[epath.Path]:
    """Every pool as it would be published."""
    outputs: list[epath.Path] = []
    origin = pool_export.origins(workdir / "pool" / "pools.parquet")
    for m in methods:
        kind, _, phase = m.name.partition(", ")
        if kind not in pools.KINDS or m.dictionaries is None:
            continue
        for g, group in enumerate(pool.NAMES):
            metadata = saelens.load(pool.path(workdir, kind, group))[1] | {"after_pooling": phase or "calibrated"}
            outputs += pool_export.write(
                workdir / "pooled" / "export" / f"{m.name.replace(', ', '-').replace(' ', '-')}-{group}",
                m.dictionaries[g][0],
                metadata,
                m.whole[g][0],
                origin[kind, group],
                pool_export.Card(m.name, config, listed, figures[m.name], differences[m.name]),
            )
    return outputs
