"""Stage: pools of disjoint groups of SAEs, of every kind, from their features alone; who is in them.

sae/<kind>-one, -other, -group-3, …   SAELens' format
without/                 the kind of the headline made again without each SAE
curves/                  and at the points of its curves that are trained on, of the first seeds of each group (both of the first two groups alone)
pools.parquet            a row per feature of a pool: whose it was, p̂ among the pooled, how many say the same
"""

from typing import Any, NamedTuple

from etils import epath

from experiments.data import costs, dictionary_list, sources
from experiments.data.corpora import Text
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.harvesting import Harvesting
from experiments.data.own_arrays import OwnRows
from experiments.data.seeds import Seeds
from experiments.fields import check
from experiments.pooling import curve_points, pools
from experiments.pooling.pools import NAMES, Material, Pooled, Pooling
from experiments.reappearance.labels import LabelRule
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from experiments.subspaces.atlas import Atlas, rules_of
from experiments.training import population
from saes.config import SAEConfig
from saes.formats import saelens

STAGE = Stage(
    config=Pooling, reads=(LabelRule, Atlas, SAEConfig, Seeds), optional=(Text, OwnRows, Harvesting), needs=("train", "saes", "rows")
)


class Which(NamedTuple):
    """Of the dictionaries that are trained on.

    Attributes:
      kind, group: of a pool; or a single SAE, the first of the group.
      excluded_seed: the seed that it was made without.
      point: of a curve, by name.
    """

    kind: str
    group: str
    excluded_seed: int | None = None
    point: str | None = None


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    c, seeds, size, rare = (
        task.section(Pooling),
        task.section(Seeds),
        task.section(SAEConfig).n_features,
        task.section(LabelRule).rare_firings,
    )
    needed = c.groups * c.group + 2
    check(
        len(seeds.list) >= needed, "seeds", seeds.seeds,
        f"at least {needed}: pool.groups={c.groups} of pool.group={c.group}, and 2 that judge",
    )  # fmt: skip
    check(2 * c.span_rank < size, "pool.span_rank", c.span_rank, f"below half of sae.n_features={size}: two features a dimension")
    check(not c.headline_way.phase or "finetune" in task.settings.stages, "pool.headline", c.headline, "wants the stage 'finetune'")
    check(c.rows >= rare, "pool.rows", c.rows, f"at least stability.rare_firings={rare}, or no feature counts")
    foreign = task.section(dictionary_list.External).dictionaries
    check(not foreign, "stability.dictionaries", foreign, "a study of pools trains its SAEs: leave it empty")
    harvested = task.maybe(Harvesting)
    most = c.rows if harvested is None else harvested.tokens
    check(c.rows <= most, "pool.rows", c.rows, f"at most source.tokens={most}")


def run(task: Task, out: Outputs) -> None:
    c, sae = task.section(Pooling), task.section(SAEConfig)
    saes = dictionary_list.saes(task)
    groups = pools.groups(len(saes.seeds), c.group, c.groups)
    material = read_material(task, saes)
    columns: dict[str, list[Any]] = {}
    summary: dict[str, Any] = {
        "seeds": {name: [saes.seeds[s] for s in places] for name, places in {**groups.by_name, "fresh": groups.fresh}.items()},
        "pools": {},
    }
    for kind in pools.KINDS:
        for name, places in groups.by_name.items():
            new_pool = pools.make(material, places, pools.recipe(c, sae.n_features, kind), float(sae.k))
            if new_pool is None:
                print(f"pool: no {kind} in the group of seeds {', '.join(str(saes.seeds[s]) for s in places)}")
                continue
            out.add(*_save(task, saes, Which(kind, name), new_pool, places, c.theta))
            m = len(new_pool.seed_M)
            seeds = [None if s < 0 else saes.seeds[s] for s in new_pool.seed_M]
            values: dict[str, Any] = {"kind": [kind] * m, "group": [name] * m, "feature": range(m), "of_seed": seeds}
            values |= {"of_feature": new_pool.feature_M.tolist(), "p": new_pool.p_M.tolist(), "members": new_pool.members_M.tolist()}
            for column, value in values.items():
                columns.setdefault(column, []).extend(value)
            summary["pools"][f"{kind}, {name}"] = {"features": m, "unique": new_pool.unique, "ranks_of_subspaces": new_pool.ranks}
            if kind in (pools.MEMBERS, pools.MEANS, pools.RANDOM) and m < sae.n_features:
                print(f"pool: {kind} of group {name} has {m} features: there are no more at cosine below {c.theta}")
    kind, phase = c.headline_way
    if c.repeat and phase:
        for name, places in zip(NAMES, (groups.one, groups.other), strict=True):
            for s in places:
                others = tuple(p for p in places if p != s)
                new_pool = pools.make(material, others, pools.recipe(c, sae.n_features, kind), float(sae.k), c.group)
                out.add(*_save(task, saes, Which(kind, name, saes.seeds[s]), new_pool, others, c.theta))
    for point in curve_points.trained_on(c, sae.n_features):
        for name, places in zip(NAMES, (groups.one, groups.other), strict=True):
            first = places[: point.size]
            new_pool = pools.make(material, first, point.recipe, float(sae.k))
            out.add(*_save(task, saes, Which(point.recipe.kind, name, point=point.name), new_pool, first, point.recipe.theta))
    out.summary(summary)
    out.table("pools", columns)


def path(task: Task, which: Which) -> epath.Path:
    file_name = f"{which.kind.replace(' ', '-')}-{which.group}"
    if which.point is not None:
        return task.path("pool/curves") / f"{file_name}-{which.point}"
    return (
        task.path("pool/sae") / file_name
        if which.excluded_seed is None
        else task.path("pool/without") / f"{file_name}-{which.excluded_seed}"
    )


def _save(
    task: Task,
    saes: dictionary_list.DictionaryList,
    which: Which,
    new_pool: Pooled | None,
    places: tuple[int, ...],
    theta: float,
) -> list[epath.Path]:
    """Returns the files; none of no pool."""
    if new_pool is None:
        return []
    place = path(task, which)
    saelens.save(place, new_pool.dictionary, metadata(task, saes.hook, which.kind, [saes.seeds[s] for s in places], theta))
    return [place / saelens.CONFIG, place / saelens.WEIGHTS, place / saelens.CHECKSUM]


def read_material(task: Task, saes: dictionary_list.DictionaryList) -> Material:
    """What pools are made of, on the first training rows."""
    source, rule = sources.source(task), task.section(LabelRule)
    rows = min(task.section(Pooling).rows, source.rows) if isinstance(source, sources.StoredSource) else task.section(Pooling).rows
    rows_ND = source.stream(task.section(Seeds).order, None).rows(0, rows)
    return pools.make_material(saes, rows_ND, rule, rules_of(task.section(Atlas), rule, source.width))


def metadata(task: Task, hook: dict[str, Any], kind: str, seeds: list[int], theta: float) -> dict[str, Any]:
    """As SAELens keeps it."""
    return {
        "model_name": hook.get("path", ""),
        "hook_name": dictionary_list.hook_name(hook),
        "dataset_path": population.dataset(task)["dataset_path"],
        **dictionary_list.loading_of(hook),
        "training_architecture": task.section(SAEConfig).variant,
        "pooled": kind,
        "pooled_seeds": seeds,
        "pooled_theta": theta,
    }


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """Pools of all groups, and of the first two the headline's again without each SAE and at the points of its curves."""
    c, n = settings[Pooling], len(settings[Seeds].list)
    n_pools = c.groups * len(pools.KINDS) + pools_again(c) + 2 * len(curve_points.trained_on(c, settings[SAEConfig].n_features))
    return costs.comparisons(
        settings, "pool", n * (n - 1) / 2 + n_pools * c.group, size.width, n * c.rows + n_pools * c.rows / 8, settings[LabelRule].block_size
    )


def pools_again(c: Pooling) -> int:
    """Pools that are made again without one SAE."""
    return 2 * c.group * (c.repeat and bool(c.headline_way.phase))
