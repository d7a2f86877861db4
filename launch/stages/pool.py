"""Stage: pools of two disjoint groups of SAEs, of every kind, from their features alone; who is in them.

sae/<kind>-one, -other   SAELens' format
without/                 the kind of the headline made again without each SAE
curves/                  and at the points of its curves that are trained on, of the first seeds of each group
pools.parquet            a row per feature of a pool: whose it was, p̂ among the pooled, how many say the same
"""

from typing import Any, NamedTuple

from etils import epath

from launch import dictionary_list, pool_curves, pools, sources
from launch.pools import Bank, Pooled
from launch.stages.atlas import rules_of
from saes.formats import saelens
from storage import files
from storage.tables import write_table

NAMES = ("one", "other")  # of the two groups


class Which(NamedTuple):
    """Of the dictionaries that are trained on.

    Attributes:
      kind, group: of a pool; or a single SAE, the first of the group.
      without: the seed that it was made without.
      point: of a curve, by name.
    """

    kind: str
    group: str
    without: int | None = None
    point: str | None = None


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c, folder = config.pool, workdir / "pool"
    listed = dictionary_list.load(dictionary_list.place(config, workdir))
    groups = pools.groups(len(listed.seeds), c.group)
    of = bank(config, workdir, listed)
    outputs: list[epath.Path] = []
    columns: dict[str, list[Any]] = {}
    summary: dict[str, Any] = {
        "seeds": {name: [listed.seeds[s] for s in places] for name, places in zip((*NAMES, "fresh"), groups, strict=True)},
        "pools": {},
    }
    for kind in pools.KINDS:
        for name, places in zip(NAMES, groups, strict=False):
            made = pools.make(of, places, pools.recipe(config, kind), float(config.sae.k))
            if made is None:
                print(f"pool: no {kind} in the group of seeds {', '.join(str(listed.seeds[s]) for s in places)}")
                continue
            outputs += _save(config, workdir, listed, Which(kind, name), made, places, c.theta)
            m = len(made.seed_M)
            seeds = [None if s < 0 else listed.seeds[s] for s in made.seed_M]
            values: dict[str, Any] = {"kind": [kind] * m, "group": [name] * m, "feature": range(m), "of_seed": seeds}
            values |= {"of_feature": made.feature_M.tolist(), "p": made.p_M.tolist(), "members": made.members_M.tolist()}
            for column, value in values.items():
                columns.setdefault(column, []).extend(value)
            summary["pools"][f"{kind}, {name}"] = {"features": m, "unique": made.unique, "ranks_of_subspaces": made.ranks}
            if kind in (pools.MEMBERS, pools.MEANS, pools.RANDOM) and m < config.sae.n_features:
                print(f"pool: {kind} of group {name} has {m} features: there are no more at cosine below {c.theta}")
    kind, _, phase = c.headline.partition(", ")
    if c.repeat and phase:
        for name, places in zip(NAMES, groups, strict=False):
            for s in places:
                left = tuple(p for p in places if p != s)
                made = pools.make(of, left, pools.recipe(config, kind), float(config.sae.k), c.group)
                outputs += _save(config, workdir, listed, Which(kind, name, listed.seeds[s]), made, left, c.theta)
    for point in pool_curves.trained_on(config):
        for name, places in zip(NAMES, groups, strict=False):
            first = places[: point.size]
            made = pools.make(of, first, point.recipe, float(config.sae.k))
            outputs += _save(config, workdir, listed, Which(point.recipe.kind, name, point=point.name), made, first, point.recipe.theta)
    files.write_json(folder / "summary.json", summary)
    return [folder / "summary.json", *outputs, write_table(folder / "pools.parquet", columns)]


def path(workdir: epath.Path, of: Which) -> epath.Path:
    called = f"{of.kind.replace(' ', '-')}-{of.group}"
    if of.point is not None:
        return workdir / "pool" / "curves" / f"{called}-{of.point}"
    return workdir / "pool" / "sae" / called if of.without is None else workdir / "pool" / "without" / f"{called}-{of.without}"


def _save(
    config: Any,
    workdir: epath.Path,
    listed: dictionary_list.DictionaryList,
    which: Which,
    made: Pooled | None,
    places: tuple[int, ...],
    theta: float,
) -> list[epath.Path]:
    """Returns the files; none of no pool."""
    if made is None:
        return []
    at = path(workdir, which)
    saelens.save(at, made.dictionary, metadata(config, listed.hook, which.kind, [listed.seeds[s] for s in places], theta))
    return [at / saelens.CONFIG, at / saelens.WEIGHTS, at / saelens.CHECKSUM]


def bank(config: Any, workdir: epath.Path, listed: dictionary_list.DictionaryList) -> Bank:
    source = sources.source(config, workdir)
    rows = min(config.pool.rows, source.rows) if isinstance(source, sources.StoredSource) else config.pool.rows
    return pools.bank(listed, source.stream(max(config.data_seed, 0), None).rows(0, rows), config, rules_of(config, source.width))


def metadata(config: Any, hook: dict[str, Any], kind: str, seeds: list[int], theta: float) -> dict[str, Any]:
    """As SAELens keeps it."""
    text = {"dataset_path": config.source.text or "Python standard library"} if hasattr(config, "source") else {"dataset_path": "synthetic"}
    return {
        "model_name": hook.get("path", ""),
        "hook_name": dictionary_list.hook_name(hook),
        **text,
        **dictionary_list.loading_of(hook),
        "training_architecture": config.sae.variant,
        "pooled": kind,
        "pooled_seeds": seeds,
        "pooled_theta": theta,
    }
