"""Stage: what pools are worth: their reappearance in SAEs that were not pooled and in pools of others, and what they explain, beside what else could be had.

methods.parquet    a row per method and figure, with interval and null
products.parquet   likewise, between independent products of each method
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
from experiments.pooling import curve_points, finetune, pool, pools, products, publish, scoring
from experiments.pooling.curve_points import Point
from experiments.pooling.methods import BAG, COMPARED, FIGURES, LONGER, WIDER, Judges, Method, Pair, Table
from experiments.pooling.pool import Which
from experiments.pooling.pools import FREE, HELD, PHASES, SINGLE, Groups, Material, Pooled, Pooling, Recipe, Way
from experiments.pooling.scoring import DictionaryScore, Scoring
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

Trained = dict[Which, tuple[Dictionary, DictionaryScore]]  # what a phase of training on left


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    rows, rare = task.section(Scoring).eval_rows, task.section(LabelRule).rare_firings
    check(rows >= rare, "pool.eval_rows", rows, f"at least stability.rare_firings={rare}, or no feature counts")


def run(task: Task, out: Outputs) -> None:
    c, features = task.section(Pooling), task.section(SAEConfig).n_features
    saes = dictionary_list.saes(task)
    groups = pools.groups(len(saes.seeds), c.group, c.groups)
    material = pool.read_material(task, saes)
    held_out_ND = sources.evaluation_rows(task)
    assert held_out_ND is not None
    rows_ND = held_out_ND[sources.evenly_spaced(len(held_out_ND), task.section(Scoring).eval_rows)]
    judges = Judges(task, material, groups, rows_ND)
    methods = [_single(judges, material, groups), _bag(judges, material, groups, rows_ND), *_others(task, judges)]
    for kind in pools.KINDS:
        make = functools.partial(_pool, task, judges, material, groups, kind, pools.recipe(c, features, kind), c.group)
        method = out.part(kind, make)
        methods += [method] if method else []
    trained_on = out.part("trained on", lambda: _trained_on(task, judges, material))
    methods += _tuned(task, trained_on, {m.name: m for m in methods}, {seed: s for s, seed in enumerate(saes.seeds)})
    of_products = out.part("products", lambda: _measure_products(task, judges, material, groups, methods, trained_on))
    table = Table(task, judges, groups)
    figures = {m.name: {name: table.estimate(m, name) for name in FIGURES} for m in methods}
    single = methods[0]
    differences = {m.name: {name: table.difference(m, single, name) for name in COMPARED} for m in methods[1:]}
    recovered = _predictions(task, out, methods)
    for name, values in recovered.items():
        figures[name] |= values
    curves = _curves(task, judges, material, groups, table, trained_on.get(FREE, {}), {m.name: m for m in methods})
    exported = _export(task, saes, groups, methods, figures, differences)
    independent = products.summary(of_products, c, products.tokens(task), task.section(LabelRule).confidence)
    out.summary(_summary(task, saes, groups, figures, differences) | {"independent products": independent})
    out.table("methods", _methods(figures))
    out.table("products", products.table(independent))
    out.table("curves", curves)
    out.add(*exported)


def _single(judges: Judges, material: Material, groups: Groups) -> Method:
    whole = tuple([*map(material.dictionaries.__getitem__, places)] for places in groups[:2])
    one, other = judges(whole[0]), judges(whole[1])
    leave_one_out = {}
    for g, places in enumerate(groups[:2]):
        for place, s in enumerate(places):
            leave_one_out[s] = _with_side((one, other), g, [j for i, j in enumerate((one, other)[g]) if i != place])
    return Method(SINGLE, (one, other), leave_one_out, (whole[0], whole[1]), True, True)


def _bag(judges: Judges, material: Material, groups: Groups, rows_ND: np.ndarray) -> Method:
    """Not one dictionary: every SAE chooses among its own features."""
    own = [judges([material.dictionaries[s] for s in places]) for places in groups[:2]]
    explained = [scoring.explained_by_means([material.dictionaries[s] for s in places], rows_ND) for places in groups[:2]]
    one, other = ([scoring.bag(j, e[0])] for j, e in zip(own, explained, strict=True))
    leave_one_out: dict[int, Pair] = {}
    for g, places in enumerate(groups[:2]):
        for place, s in enumerate(places):
            fewer = scoring.bag([j for i, j in enumerate(own[g]) if i != place], explained[g][1][place])
            leave_one_out[s] = _with_side((one, other), g, [fewer])
    return Method(BAG, (one, other), leave_one_out, None, True, True)


def _with_side(pair: Pair, group: int, side: list[DictionaryScore]) -> Pair:
    """With what is given in the place of one group's."""
    return (side, pair[1]) if group == 0 else (pair[0], side)


def _others(task: Task, judges: Judges) -> list[Method]:
    """SAEs trained at the expense of a whole group."""
    methods = []
    for name, stage in ((LONGER, "longer"), (WIDER, "wider")):
        if not task.has(stage):
            continue
        there = dictionary_list.load(task.path(f"{stage}/train") / dictionary_list.NAME, least=0, distinct=False)
        n = len(there.dictionaries)
        if n < 2:
            print(f"pooled: {name}: an SAE was not finite in training, so it is left out: lower config.train.lr")
            continue
        own, scores = list(there.dictionaries), judges(there.dictionaries)
        methods.append(Method(name, (scores[: n // 2], scores[n // 2 :]), {}, (own[: n // 2], own[n // 2 :]), False, False))
    return methods


def _pool(task: Task, judges: Judges, material: Material, groups: Groups, name: str, recipe: Recipe, size: int) -> Method | None:
    """Pools of `size` SAEs each, as many as a group holds; made again without each SAE."""
    l0 = float(task.section(SAEConfig).k)
    parts = [[places[i : i + size] for i in range(0, len(places), size)] for places in groups[:2]]
    new_pools: dict[tuple[int, ...], Pooled] = {}
    subsets = [p for group in parts for p in group]
    subsets += [tuple(s for s in p if s != k) for group in parts for p in group for k in p if len(p) > 1]
    for places in subsets:
        progress.look_for_signals()
        pooled = pools.make(material, places, recipe, l0, size)
        if pooled is not None:
            new_pools[places] = pooled
    if any(p not in new_pools for group in parts for p in group):
        return None
    scores = dict(zip(new_pools, judges([p.dictionary for p in new_pools.values()]), strict=True))
    one, other = ([scores[p] for p in group] for group in parts)
    leave_one_out: dict[int, Pair] = {}
    for g, group in enumerate(parts):
        for place, p in enumerate(group):
            for k in p:
                fewer = tuple(s for s in p if s != k)
                if fewer in scores:
                    changed = [scores[fewer] if i == place else scores[q] for i, q in enumerate(group)]
                    leave_one_out[k] = _with_side((one, other), g, changed)
    whole = ([new_pools[p] for p in parts[0]], [new_pools[p] for p in parts[1]])
    own, others = ([p.dictionary for p in side] for side in whole)
    complete = len(leave_one_out) == sum(len(p) for group in parts for p in group)
    return Method(name, (one, other), leave_one_out if complete else {}, (own, others), complete, complete, whole)


def _trained_on(task: Task, judges: Judges, material: Material) -> dict[str, Trained]:
    """Of each phase, pools, and single SAEs, that were trained on; thresholds are set anew, on training tokens."""
    by_phase = {}
    for phase in PHASES if task.has("finetune") else ():
        dictionaries = {
            which: d for which, d in finetune.read(task.path("finetune"), phase).items() if which.point is None or phase == FREE
        }
        if task.section(SAEConfig).variant != "topk":
            batches = lambda: progress.plain_batches(material.rows_ND)
            dictionaries = {
                place: calibration.calibrated(d, batches, float(task.section(SAEConfig).k)) for place, d in dictionaries.items()
            }
        scores = judges(list(dictionaries.values()))
        by_phase[phase] = dict(zip(dictionaries, zip(dictionaries.values(), scores, strict=True), strict=True))
    return by_phase


def _tuned(task: Task, trained_on: dict[str, Trained], methods_by_name: dict[str, Method], places: dict[int, int]) -> list[Method]:
    """What was trained on. Where it was not made again without each SAE, with held rows the interval of what follows from rows is that of the pool as
    it was made."""
    methods = []
    for phase, every in trained_on.items():
        phase_name = PHASES[phase]
        for kind in dict.fromkeys(which.kind for which in every):
            if any(Which(kind, name) not in every for name in pools.NAMES):
                print(f"pooled: {kind}, {phase_name}: there is one of one group alone, so it is left out")
                continue
            one, other = ([every[Which(kind, name)][1]] for name in pools.NAMES)
            own, others = ([every[Which(kind, name)][0]] for name in pools.NAMES)
            leave_one_out: dict[int, Pair] = {}
            for which, (_, score) in every.items():
                if which.kind == kind and which.excluded_seed is not None:
                    leave_one_out[places[which.excluded_seed]] = _with_side((one, other), pools.NAMES.index(which.group), [score])
            repeated = len(leave_one_out) == 2 * task.section(Pooling).group
            if not repeated:
                if leave_one_out:
                    print(
                        f"pooled: {kind}, {phase_name}: made again without {len(leave_one_out)} of {2 * task.section(Pooling).group} SAEs alone, so those are not used"
                    )
                leave_one_out = methods_by_name[kind].leave_one_out if phase == HELD and kind != SINGLE else {}
            whole = methods_by_name[kind].pools if kind in methods_by_name else None
            methods.append(
                Method(f"{kind}, {phase_name}", (one, other), leave_one_out, (own, others), bool(leave_one_out), repeated, whole)
            )
    return methods


def _measure_products(
    task: Task, judges: Judges, material: Material, groups: Groups, methods: list[Method], trained_on: dict[str, Trained]
) -> dict[str, products.Figures]:
    every = products.collect(task, judges, material, groups, methods, trained_on)
    return products.measure(every, task.section(LabelRule).theta, task.section(SAEConfig).n_features, judges.rotate)


def _predictions(task: Task, out: Outputs, methods: list[Method]) -> dict[str, dict[str, Estimate]]:
    """Cross-entropy recovered by every method that is one dictionary; of single SAEs by the first of each group."""
    if not task.section(Scoring).predictions or patching.cannot(task):
        return {}
    own = {m.name: [side[0] for side in m.dictionaries] for m in methods if m.dictionaries is not None}
    every = [d for both in own.values() for d in both]
    masks = [Masks({patching.PLAIN: np.ones(d.w_dec_FD.shape[0], bool)}, {}) for d in every]
    length = task.section(Harvesting).context_length
    clean, sae_sums = patching.measure(task, out, every, masks, -(-task.section(Scoring).predictions // (length - 1)), length)
    range_of_losses = clean.losses["zero"] - clean.losses["clean"]
    share = {
        name: [float((clean.losses["zero"] - sae_sums[2 * i + g].nll_Q[0]) / range_of_losses) for g in range(2)]
        for i, name in enumerate(own)
    }
    options: dict[str, Any] = {"null": 0.0, "unit": "share of cross-entropy"}
    return {
        name: {"ce recovered": aggregates.of_groups(values, task.section(LabelRule).confidence, **options)}
        for name, values in share.items()
    }


def _curves(
    task: Task,
    judges: Judges,
    material: Material,
    groups: Groups,
    table: Table,
    trained_on: Trained,
    methods: dict[str, Method],
) -> dict[str, list[Any]]:
    """One thing varied at a time; intervals by leaving out one SAE at a time. The headline's trained on, too: those of the curve alone once a group."""
    c, features = task.section(Pooling), task.section(SAEConfig).n_features
    tuned = curve_points.tuned_kind(c)
    tuned_name = f"{tuned}, {PHASES[FREE]}"
    usual = lambda name, p: methods.get(name) if curve_points.usual(c, features, p) else None
    as_made = lambda p: usual(p.recipe.kind, p) or _pool(task, judges, material, groups, p.recipe.kind, p.recipe, p.size)
    as_tuned = lambda p: usual(tuned_name, p) or _at_point(p, tuned_name, trained_on)
    points: list[tuple[str, Point, Callable[[Point], Method | None]]] = []
    points += [(pools.MEMBERS, p, as_made) for p in curve_points.points(c, features, pools.MEMBERS)]
    points += [(pools.STABLE, p, as_made) for p in curve_points.points(c, features, pools.STABLE, curve_points.SIZES, curve_points.THETAS)]
    points += [(tuned_name, p, as_tuned) for p in (curve_points.points(c, features, tuned) if tuned else ())]
    rows = []
    with progress.tokens(len(points), "pooled/curves") as bar:
        for kind, p, method in points:
            m = method(p)
            for figure in ("p", "between", "explained", "features", "stable"):
                e = table.estimate(m, figure) if m is not None else unmeasured(Count(0, "seeds"), FIGURES[figure])
                rows.append((p.variable, kind, float(p.value), figure, e.value, e.low, e.high, e.null))
            judges.forget()
            bar.update()
    names = ("over", "kind", "at", "figure", "value", "low", "high", "null")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _at_point(p: Point, method_name: str, trained_on: Trained) -> Method | None:
    both = [trained_on[which] for name in pools.NAMES if (which := Which(p.recipe.kind, name, point=p.name)) in trained_on]
    if len(both) < 2:
        return None
    (own, one), (others, other) = both
    return Method(method_name, ([one], [other]), {}, ([own], [others]), False, False)


def _methods(figures: dict[str, dict[str, Estimate]]) -> dict[str, list[Any]]:
    rows = [
        (m, name, e.value, e.low, e.high, e.null, e.n.number, e.n.of) for m, by_figure in figures.items() for name, e in by_figure.items()
    ]
    names = ("method", "figure", "value", "low", "high", "null", "n", "of")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _summary(
    task: Task,
    saes: DictionaryList,
    groups: Groups,
    figures: dict[str, dict[str, Estimate]],
    differences: dict[str, dict[str, Estimate]],
) -> dict[str, Any]:
    as_dicts = lambda by_method: {m: {name: e.as_dict() for name, e in by_figure.items()} for m, by_figure in by_method.items()}
    hook = saes.hook
    world = task.maybe(WorldConfig)
    subject = f"{hook['path']} after layer {hook['layer']} ({hook['site']})" if world is None else world.subject
    return {
        "methods": as_dicts(figures),
        "less a single SAE": as_dicts(differences),
        "headline": task.section(Pooling).headline,
        "headline_measured": task.section(Pooling).headline in figures,
        "of": subject,
        "group": task.section(Pooling).group,
        "groups": task.section(Pooling).groups,
        "fresh": len(groups.fresh),
        "theta": task.section(LabelRule).theta,
        "pool_theta": task.section(Pooling).theta,
        "sae": {
            "variant": task.section(SAEConfig).variant,
            "n_features": task.section(SAEConfig).n_features,
            "k": task.section(SAEConfig).k,
            "tokens": task.section(TrainConfig).tokens,
        },
        "seeds": {name: [saes.seeds[s] for s in places] for name, places in {**groups.by_name, "fresh": groups.fresh}.items()},
    }


def _export(
    task: Task,
    saes: DictionaryList,
    groups: Groups,
    methods: list[Method],
    figures: dict[str, dict[str, Estimate]],
    differences: dict[str, dict[str, Estimate]],
) -> list[epath.Path]:
    """Every pool as it would be published."""
    outputs: list[epath.Path] = []
    for m in methods:
        kind, phase = Way.named(m.name)
        if m.pools is None or m.dictionaries is None:
            continue
        for g, group in enumerate(pools.NAMES):
            whole_pool = m.pools[g][0]
            metadata = pool.metadata(
                task, saes.hook, kind, [saes.seeds[s] for s in (groups.one, groups.other)[g]], task.section(Pooling).theta
            ) | {"after_pooling": PHASES.get(phase, "calibrated")}
            card = publish.Card(m.name, task, figures[m.name], differences[m.name])
            folder = task.path("pooled/export") / f"{m.name.replace(', ', '-').replace(' ', '-')}-{group}"
            of_seed = np.array([-1 if s < 0 else saes.seeds[s] for s in whole_pool.seed_M])
            outputs += publish.write(folder, m.dictionaries[g][0], metadata, m.whole[g][0], whole_pool._replace(seed_M=of_seed), card)
    return outputs


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """All pools made again without each SAE, the points of the curves, and everything judged."""
    c, features, n = settings[Pooling], settings[SAEConfig].n_features, len(settings[Seeds].list)
    tuned = c.groups * (len(c.tuned) + 1) + pool.pools_again(c) + 2 * len(curve_points.trained_on(c, features))
    remade = (2 * (c.group + 1) + c.groups - 2) * len(pools.KINDS)
    pairs = c.groups**2 * (len(pools.KINDS) + 2 * (len(c.tuned) + 1))  # of independent products
    curves = 2 * (c.group + 1) * 2 * (len(c.sizes) + len(c.thetas) + 2)
    compared = n * (n - 1) / 2 + (remade + curves) * (n - c.group) + pairs
    encoded = n * c.rows + (remade + curves + tuned) * settings[Scoring].eval_rows
    return costs.comparisons(settings, "pooled", compared, size.width, encoded, settings[LabelRule].block_size)
