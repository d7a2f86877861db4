"""Stage: pools of two disjoint groups of SAEs, of every kind, from their features alone; who is in them.

sae/<kind>-one, -other   SAELens' format
without/                 the kind of the headline made again without each SAE
pools.parquet            a row per feature of a pool: whose it was, p̂ among the pooled, how many say the same
"""

from typing import Any

from etils import epath

from launch import dictionary_list, pools, sources
from launch.pools import Bank, Recipe
from launch.stages.atlas import rules_of
from saes.formats import saelens
from storage import files
from storage.tables import write_table

NAMES = ("one", "other")  # of the two groups


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
            made = pools.make(of, places, recipe(config, kind), float(config.sae.k))
            if made is None:
                print(f"pool: no {kind} in the group of seeds {', '.join(str(listed.seeds[s]) for s in places)}")
                continue
            at = path(workdir, kind, name)
            saelens.save(at, made.dictionary, metadata(config, listed.hook, kind, [listed.seeds[s] for s in places]))
            outputs += [at / saelens.CONFIG, at / saelens.WEIGHTS, at / saelens.CHECKSUM]
            m = len(made.seed_M)
            seeds = [None if s < 0 else listed.seeds[s] for s in made.seed_M]
            values: dict[str, Any] = {"kind": [kind] * m, "group": [name] * m, "feature": range(m), "of_seed": seeds}
            values |= {"of_feature": made.feature_M.tolist(), "p": made.p_M.tolist(), "members": made.members_M.tolist()}
            for column, value in values.items():
                columns.setdefault(column, []).extend(value)
            summary["pools"][f"{kind}, {name}"] = {"features": m, "unique": made.unique, "ranks_of_subspaces": made.ranks}
            if kind in (pools.MEMBERS, pools.MEANS, pools.RANDOM) and m < config.sae.n_features:
                print(f"pool: {kind} of group {name} has {m} features: there are no more at cosine below {c.theta}")
    if c.repeat and (kind := c.headline.partition(", ")[0]) in pools.KINDS:
        for name, places in zip(NAMES, groups, strict=False):
            for s in places:
                made = pools.make(of, tuple(p for p in places if p != s), recipe(config, kind), float(config.sae.k), c.group)
                if made is not None:
                    at = path(workdir, kind, name, listed.seeds[s])
                    saelens.save(at, made.dictionary, metadata(config, listed.hook, kind, [listed.seeds[p] for p in places if p != s]))
                    outputs += [at / saelens.CONFIG, at / saelens.WEIGHTS, at / saelens.CHECKSUM]
    files.write_json(folder / "summary.json", summary)
    return [folder / "summary.json", *outputs, write_table(folder / "pools.parquet", columns)]


def recipe(config: Any, kind: str) -> Recipe:
    return Recipe(kind, config.pool.theta, config.sae.n_features, config.pool.span_rank)


def path(workdir: epath.Path, kind: str, name: str, without: int | None = None) -> epath.Path:
    """Of a pool of one of the groups, or of that without one of its seeds."""
    called = f"{kind.replace(' ', '-')}-{name}"
    return workdir / "pool" / "sae" / called if without is None else workdir / "pool" / "without" / f"{called}-{without}"


def bank(config: Any, workdir: epath.Path, listed: dictionary_list.DictionaryList) -> Bank:
    source = sources.source(config, workdir)
    rows = min(config.pool.rows, source.rows) if isinstance(source, sources.StoredSource) else config.pool.rows
    return pools.bank(listed, source.stream(max(config.data_seed, 0), None).rows(0, rows), config, rules_of(config, source.width))


def metadata(config: Any, hook: dict[str, Any], kind: str, seeds: list[int]) -> dict[str, Any]:
    """As SAELens keeps it."""
    text = {"dataset_path": config.source.text or "Python standard library"} if hasattr(config, "source") else {"dataset_path": "synthetic"}
    return {
        "model_name": hook.get("path", ""),
        "hook_name": dictionary_list.hook_name(hook),
        **text,
        "training_architecture": config.sae.variant,
        "pooled": kind,
        "pooled_seeds": seeds,
        "pooled_theta": config.pool.theta,
    }
