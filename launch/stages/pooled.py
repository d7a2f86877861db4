"""Stage: what pools are worth: their reappearance in SAEs that were not pooled and in pools of others, and what they explain, beside what else could be had.

methods.parquet    a row per method and figure, with interval and null
curves.parquet     pools over the number of pooled SAEs, over θ and over the number of features
export/<name>      every pool in SAELens' format, with its card and `stability.parquet`
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from launch import dictionary_list, judging, pool_curves, pool_export, pools, progress, replay, sources
from launch.dictionary_list import DictionaryList
from launch.judging import Judged
from launch.methods import COMPARED, FIGURES, Judges, Method, Pair, Table
from launch.pool_curves import Point
from launch.pools import FREE, HELD, PHASES, SINGLE, Bank, Groups, Pooled, Recipe
from launch.replay import Masks
from launch.stages import finetune, pool
from launch.stages.pool import Which
from saes import calibration
from saes.dictionary import Dictionary
from stability import aggregates
from stability.estimates import Count, Estimate, unmeasured
from storage import files
from storage.tables import write_table

LONGER, WIDER, BAG = "trained longer", "wider", "bagging"

Trained = dict[Which, tuple[Dictionary, Judged]]  # what a phase of training on left


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
    methods += [made for kind in pools.KINDS if (made := _pool(config, judges, of, groups, kind, pools.recipe(config, kind), c.group))]
    trained_on = _trained_on(config, workdir, judges, of)
    methods += _tuned(config, trained_on, {m.name: m for m in methods}, {seed: s for s, seed in enumerate(listed.seeds)})
    table = Table(config, judges, groups)
    figures = {m.name: {name: table.estimate(m, name) for name in FIGURES} for m in methods}
    single = methods[0]
    differences = {m.name: {name: table.difference(m, single, name) for name in COMPARED} for m in methods[1:]}
    recovered = _predictions(config, workdir, methods)
    for name, values in recovered.items():
        figures[name] |= values
    curves = _curves(config, judges, of, groups, table, trained_on.get(FREE, {}), {m.name: m for m in methods})
    exported = _export(config, workdir, listed, groups, methods, figures, differences)
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
            without[s] = _with_side((one, other), g, [j for i, j in enumerate((one, other)[g]) if i != at])
    return Method(SINGLE, (one, other), without, (whole[0], whole[1]), True, True)


def _bag(judges: Judges, of: Bank, groups: Groups, rows_ND: np.ndarray) -> Method:
    """Not one dictionary: every SAE chooses among its own features."""
    own = [judges([of.dictionaries[s] for s in places]) for places in groups[:2]]
    explained = [judging.explained_by_means([of.dictionaries[s] for s in places], rows_ND) for places in groups[:2]]
    one, other = ([judging.bag(j, e[0])] for j, e in zip(own, explained, strict=True))
    without: dict[int, Pair] = {}
    for g, places in enumerate(groups[:2]):
        for at, s in enumerate(places):
            left = judging.bag([j for i, j in enumerate(own[g]) if i != at], explained[g][1][at])
            without[s] = _with_side((one, other), g, [left])
    return Method(BAG, (one, other), without, None, True, True)


def _with_side(pair: Pair, group: int, side: list[Judged]) -> Pair:
    """With what is given in the place of one group's."""
    return (side, pair[1]) if group == 0 else (pair[0], side)


def _others(config: Any, workdir: epath.Path, judges: Judges) -> list[Method]:
    """SAEs trained at the expense of a whole group."""
    found = []
    for name, stage in ((LONGER, "longer"), (WIDER, "wider")):
        if stage not in config.stages:
            continue
        there = dictionary_list.load(workdir / stage / "train" / dictionary_list.NAME, least=0, distinct=False)
        if len(there.dictionaries) < 2:
            print(f"pooled: {name}: an SAE was not finite in training, so it is left out: lower config.train.lr")
            continue
        one, other = there.dictionaries
        judged = judges([one, other])
        found.append(Method(name, (judged[:1], judged[1:]), {}, ([one], [other]), False, False))
    return found


def _pool(config: Any, judges: Judges, of: Bank, groups: Groups, name: str, recipe: Recipe, size: int) -> Method | None:
    """Pools of `size` SAEs each, as many as a group holds; made again without each SAE."""
    l0 = float(config.sae.k)
    parts = [[places[i : i + size] for i in range(0, len(places), size)] for places in groups[:2]]
    made: dict[tuple[int, ...], Pooled] = {}
    wanted = [p for group in parts for p in group]
    wanted += [tuple(s for s in p if s != k) for group in parts for p in group for k in p if len(p) > 1]
    for places in wanted:
        progress.look_for_signals()
        pooled = pools.make(of, places, recipe, l0, size)
        if pooled is not None:
            made[places] = pooled
    if any(p not in made for group in parts for p in group):
        return None
    judged = dict(zip(made, judges([p.dictionary for p in made.values()]), strict=True))
    one, other = ([judged[p] for p in group] for group in parts)
    without: dict[int, Pair] = {}
    for g, group in enumerate(parts):
        for at, p in enumerate(group):
            for k in p:
                left = tuple(s for s in p if s != k)
                if left in judged:
                    changed = [judged[left] if i == at else judged[q] for i, q in enumerate(group)]
                    without[k] = _with_side((one, other), g, changed)
    whole = ([made[p] for p in parts[0]], [made[p] for p in parts[1]])
    own, others = ([p.dictionary for p in side] for side in whole)
    complete = len(without) == sum(len(p) for group in parts for p in group)
    return Method(name, (one, other), without if complete else {}, (own, others), complete, complete, whole)


def _trained_on(config: Any, workdir: epath.Path, judges: Judges, of: Bank) -> dict[str, Trained]:
    """Of each phase, pools, and single SAEs, that were trained on; thresholds are set anew, on training tokens."""
    found = {}
    for phase in PHASES if "finetune" in config.stages else ():
        dictionaries = {which: d for which, d in finetune.read(workdir, phase).items() if which.point is None or phase == FREE}
        if config.sae.variant != "topk":
            batches = lambda: progress.plain_batches(of.rows_ND)
            dictionaries = {at: calibration.calibrated(d, batches, float(config.sae.k)) for at, d in dictionaries.items()}
        judged = judges(list(dictionaries.values()))
        found[phase] = dict(zip(dictionaries, zip(dictionaries.values(), judged, strict=True), strict=True))
    return found


def _tuned(config: Any, trained_on: dict[str, Trained], made: dict[str, Method], places: dict[int, int]) -> list[Method]:
    """What was trained on. Where it was not made again without each SAE, with held rows the interval of what follows from rows is that of the pool as
    it was made."""
    found = []
    for phase, every in trained_on.items():
        called = PHASES[phase]
        for kind in dict.fromkeys(which.kind for which in every):
            if any(Which(kind, name) not in every for name in pool.NAMES):
                print(f"pooled: {kind}, {called}: there is one of one group alone, so it is left out")
                continue
            one, other = ([every[Which(kind, name)][1]] for name in pool.NAMES)
            own, others = ([every[Which(kind, name)][0]] for name in pool.NAMES)
            without: dict[int, Pair] = {}
            for which, (_, judged) in every.items():
                if which.kind == kind and which.without is not None:
                    without[places[which.without]] = _with_side((one, other), pool.NAMES.index(which.group), [judged])
            repeated = len(without) == 2 * config.pool.group
            if not repeated:
                if without:
                    print(
                        f"pooled: {kind}, {called}: made again without {len(without)} of {2 * config.pool.group} SAEs alone, so those are not used"
                    )
                without = made[kind].without if phase == HELD and kind != SINGLE else {}
            whole = made[kind].made if kind in made else None
            found.append(Method(f"{kind}, {called}", (one, other), without, (own, others), bool(without), repeated, whole))
    return found


def _predictions(config: Any, workdir: epath.Path, methods: list[Method]) -> dict[str, dict[str, Estimate]]:
    """Cross-entropy recovered by every method that is one dictionary; of single SAEs by the first of each group."""
    if not config.pool.predictions or not hasattr(config, "lm") or replay.cannot(config):
        return {}
    own = {m.name: [side[0] for side in m.dictionaries] for m in methods if m.dictionaries is not None}
    every = [d for both in own.values() for d in both]
    masks = [Masks({replay.PLAIN: np.ones(d.w_dec_FD.shape[0], bool)}, {}) for d in every]
    clean, found, _ = replay.measure(config, workdir, every, masks, config.pool.predictions)
    lost = clean.losses["zero"] - clean.losses["clean"]
    share = {name: [float((clean.losses["zero"] - found[2 * i + g].nll_Q[0]) / lost) for g in range(2)] for i, name in enumerate(own)}
    about: dict[str, Any] = {"null": 0.0, "unit": "share of cross-entropy"}
    return {name: {"ce recovered": aggregates.of_groups(values, config.stability.confidence, **about)} for name, values in share.items()}


def _curves(
    config: Any,
    judges: Judges,
    of: Bank,
    groups: Groups,
    table: Table,
    trained_on: Trained,
    methods: dict[str, Method],
) -> dict[str, list[Any]]:
    """One thing varied at a time; intervals by leaving out one SAE at a time. The headline's trained on, too: those of the curve alone once a group."""
    tuned = pool_curves.tuned_kind(config)
    called = f"{tuned}, {PHASES[FREE]}"
    usual = lambda name, p: methods.get(name) if pool_curves.usual(config, p) else None
    as_made = lambda p: usual(p.recipe.kind, p) or _pool(config, judges, of, groups, p.recipe.kind, p.recipe, p.size)
    as_tuned = lambda p: usual(called, p) or _at_point(p, called, trained_on)
    points: list[tuple[str, Point, Callable[[Point], Method | None]]] = []
    points += [(pools.MEMBERS, p, as_made) for p in pool_curves.points(config, pools.MEMBERS)]
    points += [(pools.STABLE, p, as_made) for p in pool_curves.points(config, pools.STABLE, pool_curves.SIZES, pool_curves.THETAS)]
    points += [(called, p, as_tuned) for p in (pool_curves.points(config, tuned) if tuned else ())]
    rows = []
    with progress.tokens(len(points), "pooled/curves") as bar:
        for kind, p, method in points:
            m = method(p)
            for figure in ("p", "between", "explained", "features", "stable"):
                e = table.estimate(m, figure) if m is not None else unmeasured(Count(0, "seeds"), FIGURES[figure])
                rows.append((p.over, kind, float(p.at), figure, e.value, e.low, e.high, e.null))
            judges.forget()
            bar.update()
    names = ("over", "kind", "at", "figure", "value", "low", "high", "null")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _at_point(p: Point, called: str, trained_on: Trained) -> Method | None:
    both = [trained_on[which] for name in pool.NAMES if (which := Which(p.recipe.kind, name, point=p.name)) in trained_on]
    if len(both) < 2:
        return None
    (own, one), (others, other) = both
    return Method(called, ([one], [other]), {}, ([own], [others]), False, False)


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
        "theta": config.stability.theta,
        "pool_theta": config.pool.theta,
        "sae": {"variant": config.sae.variant, "n_features": config.sae.n_features, "k": config.sae.k, "tokens": config.train.tokens},
        "seeds": {name: [listed.seeds[s] for s in places] for name, places in zip(("one", "other", "fresh"), groups, strict=True)},
    }


def _export(
    config: Any,
    workdir: epath.Path,
    listed: DictionaryList,
    groups: Groups,
    methods: list[Method],
    figures: dict[str, dict[str, Estimate]],
    differences: dict[str, dict[str, Estimate]],
) -> list[epath.Path]:
    """Every pool as it would be published."""
    outputs: list[epath.Path] = []
    for m in methods:
        kind, _, phase = m.name.partition(", ")
        if m.made is None or m.dictionaries is None:
            continue
        for g, group in enumerate(pool.NAMES):
            made = m.made[g][0]
            metadata = pool.metadata(config, listed.hook, kind, [listed.seeds[s] for s in groups[g]], config.pool.theta) | {
                "after_pooling": phase or "calibrated"
            }
            card = pool_export.Card(m.name, config, figures[m.name], differences[m.name])
            folder = workdir / "pooled" / "export" / f"{m.name.replace(', ', '-').replace(' ', '-')}-{group}"
            of_seed = np.array([-1 if s < 0 else listed.seeds[s] for s in made.seed_M])
            outputs += pool_export.write(folder, m.dictionaries[g][0], metadata, m.whole[g][0], made._replace(seed_M=of_seed), card)
    return outputs
