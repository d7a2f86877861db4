"""Stage: what pools are worth: their reappearance in SAEs that were not pooled and in pools of others, and what they explain, beside what else could be had.

methods.parquet    a row per method and figure, with interval and null
curves.parquet     pools over the number of pooled SAEs, over θ and over the number of features
export/<name>      every pool in SAELens' format, with its card and `stability.parquet`
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from experiments.ablation import patching
from experiments.ablation.patching import Masks
from experiments.data import costs, dictionary_list, sources
from experiments.data.corpora import Text
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.dictionary_list import DictionaryList
from experiments.data.harvesting import Harvesting
from experiments.data.own_arrays import OwnRows
from experiments.data.seeds import Seeds
from experiments.fields import check
from experiments.pooling import curve_points, finetune, pool, pools, publish, scoring
from experiments.pooling.curve_points import Point
from experiments.pooling.methods import COMPARED, FIGURES, Judges, Method, Pair, Table
from experiments.pooling.pool import Which
from experiments.pooling.pools import FREE, HELD, PHASES, SINGLE, Bank, Groups, Pooled, Pooling, Recipe, Way
from experiments.pooling.scoring import Judged, Scoring
from experiments.reappearance.labels import LabelRule
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from experiments.subspaces.atlas import Atlas
from runtime import progress
from saes import calibration
from saes.config import SAEConfig, TrainConfig
from saes.dictionary import Dictionary
from stability import aggregates
from stability.estimates import Count, Estimate, unmeasured
from synthetic.config import Recovery, WorldConfig

STAGE = Stage(
    config=Pooling,
    reads=(Scoring, LabelRule, Atlas, SAEConfig, TrainConfig, Seeds),
    optional=(Recovery, Text, OwnRows, Harvesting),
    needs=("train", "pool", "saes", "rows"),
    uses=("finetune", "longer", "wider", "model"),
)

LONGER, WIDER, BAG = "trained longer", "wider", "bagging"

Trained = dict[Which, tuple[Dictionary, Judged]]  # what a phase of training on left


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    rows, rare = task.of(Scoring).eval_rows, task.of(LabelRule).rare_firings
    check(rows >= rare, "pool.eval_rows", rows, f"at least stability.rare_firings={rare}, or no feature counts")


def run(task: Task, out: Outputs) -> None:
    c, features = task.of(Pooling), task.of(SAEConfig).n_features
    listed = dictionary_list.saes(task)
    groups = pools.groups(len(listed.seeds), c.group)
    material = pool.bank(task, listed)
    held_out_ND = sources.evaluation_rows(task)
    assert held_out_ND is not None
    rows_ND = held_out_ND[sources.evenly_spaced(len(held_out_ND), task.of(Scoring).eval_rows)]
    judges = Judges(task, material, groups, rows_ND)
    methods = [_single(judges, material, groups), _bag(judges, material, groups, rows_ND), *_others(task, judges)]
    for kind in pools.KINDS:
        make = functools.partial(_pool, task, judges, material, groups, kind, pools.recipe(c, features, kind), c.group)
        made = out.part(kind, make)
        methods += [made] if made else []
    trained_on = out.part("trained on", lambda: _trained_on(task, judges, material))
    methods += _tuned(task, trained_on, {m.name: m for m in methods}, {seed: s for s, seed in enumerate(listed.seeds)})
    table = Table(task, judges, groups)
    figures = {m.name: {name: table.estimate(m, name) for name in FIGURES} for m in methods}
    single = methods[0]
    differences = {m.name: {name: table.difference(m, single, name) for name in COMPARED} for m in methods[1:]}
    recovered = _predictions(task, out, methods)
    for name, values in recovered.items():
        figures[name] |= values
    curves = _curves(task, judges, material, groups, table, trained_on.get(FREE, {}), {m.name: m for m in methods})
    exported = _export(task, listed, groups, methods, figures, differences)
    out.summary(_summary(task, listed, groups, methods, figures, differences))
    out.table("methods", _methods(figures))
    out.table("curves", curves)
    out.add(*exported)


def _single(judges: Judges, material: Bank, groups: Groups) -> Method:
    whole = tuple([*map(material.dictionaries.__getitem__, places)] for places in groups[:2])
    one, other = judges(whole[0]), judges(whole[1])
    without = {}
    for g, places in enumerate(groups[:2]):
        for place, s in enumerate(places):
            without[s] = _with_side((one, other), g, [j for i, j in enumerate((one, other)[g]) if i != place])
    return Method(SINGLE, (one, other), without, (whole[0], whole[1]), True, True)


def _bag(judges: Judges, material: Bank, groups: Groups, rows_ND: np.ndarray) -> Method:
    """Not one dictionary: every SAE chooses among its own features."""
    own = [judges([material.dictionaries[s] for s in places]) for places in groups[:2]]
    explained = [scoring.explained_by_means([material.dictionaries[s] for s in places], rows_ND) for places in groups[:2]]
    one, other = ([scoring.bag(j, e[0])] for j, e in zip(own, explained, strict=True))
    without: dict[int, Pair] = {}
    for g, places in enumerate(groups[:2]):
        for place, s in enumerate(places):
            left = scoring.bag([j for i, j in enumerate(own[g]) if i != place], explained[g][1][place])
            without[s] = _with_side((one, other), g, [left])
    return Method(BAG, (one, other), without, None, True, True)


def _with_side(pair: Pair, group: int, side: list[Judged]) -> Pair:
    """With what is given in the place of one group's."""
    return (side, pair[1]) if group == 0 else (pair[0], side)


def _others(task: Task, judges: Judges) -> list[Method]:
    """SAEs trained at the expense of a whole group."""
    found = []
    for name, stage in ((LONGER, "longer"), (WIDER, "wider")):
        if not task.has(stage):
            continue
        there = dictionary_list.load(task.path(f"{stage}/train") / dictionary_list.NAME, least=0, distinct=False)
        if len(there.dictionaries) < 2:
            print(f"pooled: {name}: an SAE was not finite in training, so it is left out: lower config.train.lr")
            continue
        one, other = there.dictionaries
        judged = judges([one, other])
        found.append(Method(name, (judged[:1], judged[1:]), {}, ([one], [other]), False, False))
    return found


def _pool(task: Task, judges: Judges, material: Bank, groups: Groups, name: str, recipe: Recipe, size: int) -> Method | None:
    """Pools of `size` SAEs each, as many as a group holds; made again without each SAE."""
    l0 = float(task.of(SAEConfig).k)
    parts = [[places[i : i + size] for i in range(0, len(places), size)] for places in groups[:2]]
    made: dict[tuple[int, ...], Pooled] = {}
    wanted = [p for group in parts for p in group]
    wanted += [tuple(s for s in p if s != k) for group in parts for p in group for k in p if len(p) > 1]
    for places in wanted:
        progress.look_for_signals()
        pooled = pools.make(material, places, recipe, l0, size)
        if pooled is not None:
            made[places] = pooled
    if any(p not in made for group in parts for p in group):
        return None
    judged = dict(zip(made, judges([p.dictionary for p in made.values()]), strict=True))
    one, other = ([judged[p] for p in group] for group in parts)
    without: dict[int, Pair] = {}
    for g, group in enumerate(parts):
        for place, p in enumerate(group):
            for k in p:
                left = tuple(s for s in p if s != k)
                if left in judged:
                    changed = [judged[left] if i == place else judged[q] for i, q in enumerate(group)]
                    without[k] = _with_side((one, other), g, changed)
    whole = ([made[p] for p in parts[0]], [made[p] for p in parts[1]])
    own, others = ([p.dictionary for p in side] for side in whole)
    complete = len(without) == sum(len(p) for group in parts for p in group)
    return Method(name, (one, other), without if complete else {}, (own, others), complete, complete, whole)


def _trained_on(task: Task, judges: Judges, material: Bank) -> dict[str, Trained]:
    """Of each phase, pools, and single SAEs, that were trained on; thresholds are set anew, on training tokens."""
    found = {}
    for phase in PHASES if task.has("finetune") else ():
        dictionaries = {
            which: d for which, d in finetune.read(task.path("finetune"), phase).items() if which.point is None or phase == FREE
        }
        if task.of(SAEConfig).variant != "topk":
            batches = lambda: progress.plain_batches(material.rows_ND)
            dictionaries = {place: calibration.calibrated(d, batches, float(task.of(SAEConfig).k)) for place, d in dictionaries.items()}
        judged = judges(list(dictionaries.values()))
        found[phase] = dict(zip(dictionaries, zip(dictionaries.values(), judged, strict=True), strict=True))
    return found


def _tuned(task: Task, trained_on: dict[str, Trained], made: dict[str, Method], places: dict[int, int]) -> list[Method]:
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
            repeated = len(without) == 2 * task.of(Pooling).group
            if not repeated:
                if without:
                    print(
                        f"pooled: {kind}, {called}: made again without {len(without)} of {2 * task.of(Pooling).group} SAEs alone, so those are not used"
                    )
                without = made[kind].without if phase == HELD and kind != SINGLE else {}
            whole = made[kind].made if kind in made else None
            found.append(Method(f"{kind}, {called}", (one, other), without, (own, others), bool(without), repeated, whole))
    return found


def _predictions(task: Task, out: Outputs, methods: list[Method]) -> dict[str, dict[str, Estimate]]:
    """Cross-entropy recovered by every method that is one dictionary; of single SAEs by the first of each group."""
    if not task.of(Scoring).predictions or patching.cannot(task):
        return {}
    own = {m.name: [side[0] for side in m.dictionaries] for m in methods if m.dictionaries is not None}
    every = [d for both in own.values() for d in both]
    masks = [Masks({patching.PLAIN: np.ones(d.w_dec_FD.shape[0], bool)}, {}) for d in every]
    clean, found, _ = patching.measure(task, out, every, masks, task.of(Scoring).predictions)
    lost = clean.losses["zero"] - clean.losses["clean"]
    share = {name: [float((clean.losses["zero"] - found[2 * i + g].nll_Q[0]) / lost) for g in range(2)] for i, name in enumerate(own)}
    about: dict[str, Any] = {"null": 0.0, "unit": "share of cross-entropy"}
    return {name: {"ce recovered": aggregates.of_groups(values, task.of(LabelRule).confidence, **about)} for name, values in share.items()}


def _curves(
    task: Task,
    judges: Judges,
    material: Bank,
    groups: Groups,
    table: Table,
    trained_on: Trained,
    methods: dict[str, Method],
) -> dict[str, list[Any]]:
    """One thing varied at a time; intervals by leaving out one SAE at a time. The headline's trained on, too: those of the curve alone once a group."""
    c, features = task.of(Pooling), task.of(SAEConfig).n_features
    tuned = curve_points.tuned_kind(c)
    called = f"{tuned}, {PHASES[FREE]}"
    usual = lambda name, p: methods.get(name) if curve_points.usual(c, features, p) else None
    as_made = lambda p: usual(p.recipe.kind, p) or _pool(task, judges, material, groups, p.recipe.kind, p.recipe, p.size)
    as_tuned = lambda p: usual(called, p) or _at_point(p, called, trained_on)
    points: list[tuple[str, Point, Callable[[Point], Method | None]]] = []
    points += [(pools.MEMBERS, p, as_made) for p in curve_points.points(c, features, pools.MEMBERS)]
    points += [(pools.STABLE, p, as_made) for p in curve_points.points(c, features, pools.STABLE, curve_points.SIZES, curve_points.THETAS)]
    points += [(called, p, as_tuned) for p in (curve_points.points(c, features, tuned) if tuned else ())]
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
    rows = [(m, name, e.value, e.low, e.high, e.null, e.n.number, e.n.of) for m, found in figures.items() for name, e in found.items()]
    names = ("method", "figure", "value", "low", "high", "null", "n", "of")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _summary(
    task: Task,
    listed: DictionaryList,
    groups: Groups,
    methods: list[Method],
    figures: dict[str, dict[str, Estimate]],
    differences: dict[str, dict[str, Estimate]],
) -> dict[str, Any]:
    as_dicts = lambda chosen: {m: {name: e.as_dict() for name, e in found.items()} for m, found in chosen.items()}
    hook = listed.hook
    world = task.maybe(WorldConfig)
    subject = f"{hook['path']} after layer {hook['layer']} ({hook['site']})" if world is None else world.subject
    return {
        "methods": as_dicts(figures),
        "less a single SAE": as_dicts(differences),
        "headline": task.of(Pooling).headline,
        "headline_measured": task.of(Pooling).headline in figures,
        "of": subject,
        "group": task.of(Pooling).group,
        "fresh": len(groups.fresh),
        "theta": task.of(LabelRule).theta,
        "pool_theta": task.of(Pooling).theta,
        "sae": {
            "variant": task.of(SAEConfig).variant,
            "n_features": task.of(SAEConfig).n_features,
            "k": task.of(SAEConfig).k,
            "tokens": task.of(TrainConfig).tokens,
        },
        "seeds": {name: [listed.seeds[s] for s in places] for name, places in zip(("one", "other", "fresh"), groups, strict=True)},
    }


def _export(
    task: Task,
    listed: DictionaryList,
    groups: Groups,
    methods: list[Method],
    figures: dict[str, dict[str, Estimate]],
    differences: dict[str, dict[str, Estimate]],
) -> list[epath.Path]:
    """Every pool as it would be published."""
    outputs: list[epath.Path] = []
    for m in methods:
        kind, phase = Way.named(m.name)
        if m.made is None or m.dictionaries is None:
            continue
        for g, group in enumerate(pool.NAMES):
            made = m.made[g][0]
            metadata = pool.metadata(task, listed.hook, kind, [listed.seeds[s] for s in groups[g]], task.of(Pooling).theta) | {
                "after_pooling": PHASES.get(phase, "calibrated")
            }
            card = publish.Card(m.name, task, figures[m.name], differences[m.name])
            folder = task.path("pooled/export") / f"{m.name.replace(', ', '-').replace(' ', '-')}-{group}"
            of_seed = np.array([-1 if s < 0 else listed.seeds[s] for s in made.seed_M])
            outputs += publish.write(folder, m.dictionaries[g][0], metadata, m.whole[g][0], made._replace(seed_M=of_seed), card)
    return outputs


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """All pools made again without each SAE, the points of the curves, and everything judged."""
    c, features, n = settings[Pooling], settings[SAEConfig].n_features, len(settings[Seeds].list)
    tuned = 2 * (len(c.tuned) + 1) + pool.pools_again(c) + 2 * len(curve_points.trained_on(c, features))
    remade = 2 * len(pools.KINDS) * (c.group + 1)
    curves = 2 * (c.group + 1) * 2 * (len(c.sizes) + len(c.thetas) + 2)
    products = n * (n - 1) / 2 + (remade + curves) * (n - c.group)
    encoded = n * c.rows + (remade + curves + tuned) * settings[Scoring].eval_rows
    return costs.comparisons(settings, "pooled", products, size.width, encoded, settings[LabelRule].block_size)
