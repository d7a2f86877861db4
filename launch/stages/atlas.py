"""Stage: local subspaces that the non-stable features of all seeds fill together, each tested against chance.

entries.parquet     a row per subspace: rank, who fills it, agreement of spans between seeds with chance, p̂ of its features with chance, what it does
seeds.parquet       a row per (subspace, seed): features, their own rank, overlap of their span with the subspace as the other seeds have it
agreement.parquet   a row per (subspace, seed, other seed): overlap of the spans
features.parquet    a row per live non-stable feature: its subspace (-1: none), share of its squared norm inside, place in the subspace's 2-D view
planes.safetensors  orthonormal rows (rank, width) of every subspace
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from etils import epath

from launch import dictionary_list, null_models, progress, sources
from launch.dictionary_list import DictionaryList
from launch.outcomes import not_measured
from saes import contributions
from saes.contributions import Contributions
from saes.evaluation import evaluate_each
from stability import aggregates, atlas, nulls, reappearance, reproducibility, similarity
from stability.aggregates import pair_mean, seed_mean
from stability.atlas import Entry, Rules
from stability.estimates import Count, Estimate
from stability.subspaces import span_overlap
from storage import files
from storage.tables import read_table, write_table

NULL_KEY = 2**22  # of the rotations that this stage's nulls come from


ENTRY_COLUMNS = (
    "entry", "rank", "features", "features_per_seed", "seeds", "agreement_of_halves", "gap", "apart", "span_agreement", "span_agreement_low",
    "span_agreement_high", "span_agreement_null", "span_agreement_null_max", "p_value", "span_agreement_whitened", "overlap_with_components", "p",
    "p_by_chance", "live_features_inside", "energy", "firing_rate", "contribution_agreement", "contribution_agreement_null", "top_rows", "top_values",
)  # fmt: skip  # of entries.parquet also where there are none


class Judged(NamedTuple):
    """A subspace with what is known of it.

    Attributes:
      entry: the plane.
      members: features of every seed that lie in it.
      span_SS: overlap of the members' spans, diagonal NaN.
      chance_T: mean overlap of draws in which nothing is shared.
      whitened: mean overlap where dictionaries are turned in the metric of the activations; None without activations.
      with_components: overlap of the plane with as many principal components of the activations; None likewise.
    """

    entry: Entry
    members: list[np.ndarray]
    span_SS: np.ndarray
    chance_T: np.ndarray
    whitened: float | None
    with_components: float | None

    @property
    def p_value(self) -> float:
        """Of the agreement between seeds among the draws."""
        return float((1 + (self.chance_T >= np.nanmean(self.span_SS)).sum()) / (1 + len(self.chance_T)))


def inputs(config: Any) -> dict[str, str]:
    return dictionary_list.digest(config.stability.dictionaries) | sources.evaluation_digest(config)


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c = config.atlas
    folder = workdir / "atlas"
    listed = dictionary_list.load(dictionary_list.place(config, workdir)).first(c.seeds)
    features = read_table(workdir / "stability" / "features.parquet", ("label", "stratum", "reappearances", "comparisons"))
    s = len(listed.seeds)
    if s < 4:
        return _not_measured(folder, f"{s} seeds: two halves of at least 2 are compared")
    exists_SF = listed.exists_SF
    of = lambda column: listed.by_seed(features[column], "" if column in ("label", "stratum") else 0)
    live_SF = of("stratum") == reappearance.LIVE
    among_SF = exists_SF & live_SF & (of("label") != reappearance.STABLE)
    unstable_SF = exists_SF & live_SF & (of("label") == reappearance.UNSTABLE)
    unit_SFD = np.asarray(similarity.unit_rows(listed.w_dec_SFD))
    rules = rules_of(config, unit_SFD.shape[-1])
    acts_ND = sources.evaluation_rows(config, workdir)

    with progress.comparing("atlas/search") as on_batch:
        entries = make(unit_SFD, among_SF, listed.seeds, rules, on_batch)
    turn = functools.partial(_turned, unit_SFD, listed.seeds)
    with progress.comparing("atlas/chance") as on_draw:
        judged = _judge(c, entries, unit_SFD, among_SF, turn, acts_ND, listed.seeds, on_draw)
    with progress.comparing("atlas/nulls") as on_batch:
        of_clouds = [
            len(make(_cloud(unit_SFD, among_SF, listed.seeds, draw), among_SF, listed.seeds, rules, on_batch))
            for draw in range(c.null_draws)
        ]
        of_nulls = [len(make(turn(draw), among_SF, listed.seeds, rules, on_batch)) for draw in range(c.null_draws)]
        gaussian = _of_gaussian(config, workdir, rules, on_batch)
    kept = _with_members([j for j in judged if j.p_value <= 1 - config.stability.confidence], unit_SFD, among_SF, rules)

    p_SF = np.where(exists_SF, of("reappearances") / np.maximum(of("comparisons"), 1), np.nan)
    does = _what_they_do(c, listed, kept, among_SF, acts_ND)
    entry_SF, energy_SF = atlas.members([j.entry for j in kept], unit_SFD, among_SF, rules.capture)
    summary = _summary(config, kept, judged, entry_SF, among_SF, unstable_SF, turn, p_SF, rules)
    summary |= {
        "entries_in_null_draws": of_nulls,
        "entries_in_clouds": of_clouds,
        "entries_in_gaussian_saes": gaussian,
        "seeds": list(listed.seeds),
    }
    files.write_json(folder / "summary.json", summary)
    planes = {f"entry_{e}": np.ascontiguousarray(j.entry.plane_DR.T, np.float32) for e, j in enumerate(kept)}
    files.write_bytes(folder / "planes.safetensors", safetensors.numpy.save(planes))
    tables = {
        "entries": _entries(config, kept, does, p_SF, unit_SFD, exists_SF & live_SF, rules),
        "seeds": _seeds(kept, listed, unit_SFD, rules),
        "agreement": _agreement(kept, listed),
        "features": _features(kept, listed, unit_SFD, among_SF, entry_SF, energy_SF),
    }
    paths = [write_table(folder / f"{name}.parquet", table) for name, table in tables.items()]
    return [folder / "summary.json", folder / "planes.safetensors", *paths]


def rules_of(config: Any, width: int) -> Rules:
    c = config.atlas
    same = {name: getattr(c, name) for name in Rules._fields if hasattr(c, name)}
    return Rules(**same | {"max_rank": c.max_rank or max(c.min_rank, width // 3), "copy": config.stability.theta})


def make(unit_SFD: np.ndarray, among_SF: np.ndarray, seeds: tuple[int, ...], rules: Rules, on_batch: Any) -> list[Entry]:
    """The atlas of the chosen features. Halves go by the seeds' numbers, whatever their order."""
    order = np.argsort(seeds)
    found = atlas.make([unit_SFD[s][among_SF[s]] for s in order], rules, on_batch)
    return [e._replace(without_SDR=e.without_SDR[np.argsort(order)]) for e in found]


def _with_members(judged: list[Judged], unit_SFD: np.ndarray, among_SF: np.ndarray, rules: Rules) -> list[Judged]:
    """With the features that lie in them, each in one subspace, now that some are out."""
    entry_SF, _ = atlas.members([j.entry for j in judged], unit_SFD, among_SF, rules.capture)
    out = []
    for e, j in enumerate(judged):
        members = [np.flatnonzero(of_seed == e) for of_seed in entry_SF]
        span_SS = atlas.span_agreement([unit_FD[m] for unit_FD, m in zip(unit_SFD, members, strict=True)], j.entry.rank)
        out.append(j._replace(members=members, span_SS=span_SS))
    return out


def _cloud(unit_SFD: np.ndarray, among_SF: np.ndarray, seeds: tuple[int, ...], draw: int) -> np.ndarray:
    """As many Gaussian directions with the second moment of the chosen rows: what anisotropy alone looks like."""
    rows_ND = unit_SFD[among_SF].astype(np.float64)
    size_D, axes_DD = np.linalg.eigh(rows_ND.T @ rows_ND / max(1, len(rows_ND)))
    root_DD = (axes_DD * np.sqrt(np.maximum(size_D, 0.0))) @ axes_DD.T
    drawn = [np.random.default_rng((seed, draw, 29)).normal(size=unit_SFD.shape[1:]) @ root_DD for seed in seeds]
    return np.asarray(similarity.unit_rows(np.stack(drawn).astype(np.float32)))


def _turned(unit_SFD: np.ndarray, seeds: tuple[int, ...], draw: int) -> np.ndarray:
    """Every dictionary turned by a rotation of its own."""
    key = jax.random.fold_in(jax.random.fold_in(null_models.root_key(), NULL_KEY), draw)
    return np.asarray(nulls.rotate_each(key, unit_SFD, seeds))


def _judge(
    c: Any,
    entries: list[Entry],
    unit_SFD: np.ndarray,
    among_SF: np.ndarray,
    turn: Any,
    acts_ND: np.ndarray | None,
    seeds: tuple[int, ...],
    on_draw: Any,
) -> list[Judged]:
    chosen = lambda of_SFD: [of_FD[m] for of_FD, m in zip(of_SFD, among_SF, strict=True)]
    whitened, components_DD = [], None
    if acts_ND is not None and entries:
        components_DD = reproducibility.principal_components(acts_ND)
        key = jax.random.fold_in(null_models.root_key(), NULL_KEY + 1)
        covariance_DD = null_models.covariance(acts_ND)
        for draw in range(c.null_draws):
            if covariance_DD is None:
                break
            turned_SFD = nulls.rotate_each_whitened(jax.random.fold_in(key, draw), unit_SFD, seeds, covariance_DD)
            whitened.append(chosen(np.asarray(similarity.unit_rows(turned_SFD))))
    entry_SF, _ = atlas.members(entries, unit_SFD, among_SF, c.capture)
    members = [[np.flatnonzero(of_seed == e) for of_seed in entry_SF] for e in range(len(entries))]
    filled = [e for e, of_entry in enumerate(members) if sum(len(m) > 0 for m in of_entry) >= 2]
    order = np.argsort(seeds)  # draws go by the seeds' numbers
    by_chance = lambda rows, e, draw: atlas.agreement_by_chance(
        [rows[s] for s in order], [len(members[e][s]) for s in order], entries[e].rank, draw
    )
    chance_ET = np.zeros((len(entries), c.draws))
    for draw in range(c.draws if filled else 0):
        rows = chosen(turn(draw))
        for e in filled:
            chance_ET[e, draw] = by_chance(rows, e, draw)
            on_draw()
    out = []
    for e in filled:
        span_SS = atlas.span_agreement([unit_FD[m] for unit_FD, m in zip(unit_SFD, members[e], strict=True)], entries[e].rank)
        in_metric = [by_chance(rows, e, draw) for draw, rows in enumerate(whitened)]
        with_components = None if components_DD is None else span_overlap(entries[e].plane_DR, components_DD[:, : entries[e].rank])
        out.append(Judged(entries[e], members[e], span_SS, chance_ET[e], float(np.mean(in_metric)) if in_metric else None, with_components))
    return out


def _of_gaussian(config: Any, workdir: epath.Path, rules: Rules, on_batch: Any) -> int | None:
    """Subspaces that SAEs trained on Gaussian activations show; None where there are none, or fewer than four."""
    if "gaussian" not in config.stages or config.gaussian_seeds < 4:
        return None
    listed = dictionary_list.load(workdir / "gaussian" / "train" / dictionary_list.NAME)
    cosine_SSF = similarity.all_pairs(listed.w_dec_SFD, sizes=listed.sizes, block_size=config.stability.block_size).cosine
    counts_SF = reappearance.reappears(cosine_SSF, config.stability.theta).sum(axis=1)
    labels_SF = reappearance.labels(counts_SF, len(listed.seeds) - 1, config.stability.epsilon)
    rows_ND = sources.gaussian_rows(config, workdir)
    firings_SF = evaluate_each(listed.dictionaries, lambda: progress.batches(rows_ND, "atlas/gaussian"), 1).firings_SF
    live_SF = reappearance.strata(firings_SF, config.stability.rare_firings) == reappearance.LIVE
    among_SF = listed.exists_SF & live_SF & (labels_SF != reappearance.STABLE)
    return len(make(np.asarray(similarity.unit_rows(listed.w_dec_SFD)), among_SF, listed.seeds, rules, on_batch))


def _what_they_do(
    c: Any, listed: DictionaryList, kept: list[Judged], among_SF: np.ndarray, acts_ND: np.ndarray | None
) -> Contributions | None:
    """Contributions of the subspaces' features on held-out tokens, beside as many other non-stable ones of the other seed."""
    if acts_ND is None or not kept:
        return None
    others = []
    for e, j in enumerate(kept):
        of_entry = []
        for s, (seed, members) in enumerate(zip(listed.seeds, j.members, strict=True)):
            rest = np.setdiff1d(np.flatnonzero(among_SF[s]), members)
            rng = np.random.default_rng((seed, e, 23))
            of_entry.append(np.sort(rng.permutation(rest)[: len(members)]))
        others.append(of_entry)
    some_ND = acts_ND[: c.rows]
    batches = functools.partial(progress.batches, some_ND, "atlas/contributions")
    return contributions.measure(listed.dictionaries, [j.members for j in kept], others, batches, c.top_rows)


def _summary(
    config: Any,
    kept: list[Judged],
    judged: list[Judged],
    entry_SF: np.ndarray,
    among_SF: np.ndarray,
    unstable_SF: np.ndarray,
    turn: Any,
    p_SF: np.ndarray,
    rules: Rules,
) -> dict[str, Any]:
    s = len(among_SF)
    knife = functools.partial(aggregates.jackknifed, seeds=s, confidence=config.stability.confidence)
    share: dict[str, Any] = {"unit": "share", "bounds": (0.0, 1.0)}
    entries = [j.entry for j in kept]
    # Of features turned against each other by chance as many lie in these planes.
    turned = [atlas.members(entries, turn(draw), among_SF, rules.capture)[0] for draw in range(config.atlas.null_draws)]

    def inside(chosen_SF: np.ndarray) -> Estimate:
        if not chosen_SF.any():
            return Estimate(None, None, None, None, Count(s, "seeds"), "share")
        of_seed = lambda in_SF: (in_SF & chosen_SF).sum(1) / np.maximum(chosen_SF.sum(1), 1)
        null = float(np.mean([of_seed(t >= 0) for t in turned])) if turned else None
        return knife(functools.partial(seed_mean, of_seed(entry_SF >= 0)), null=null, **share)

    figures = {"unstable_inside": inside(unstable_SF), "non_stable_inside": inside(among_SF)}
    if kept:
        spans_SS = np.mean([j.span_SS for j in kept], axis=0)  # NaN on the diagonal alone
        chance = float(np.mean([j.chance_T.mean() for j in kept]))
        figures["span_agreement"] = knife(functools.partial(pair_mean, spans_SS), null=chance, **share)
        mean_p_S = np.array([np.mean(p_SF[i][entry_SF[i] >= 0]) if (entry_SF[i] >= 0).any() else np.nan for i in range(s)])
        figures["p_inside"] = knife(functools.partial(seed_mean, mean_p_S), null=None, unit="probability", bounds=(0.0, 1.0))
    return {name: e.as_dict() for name, e in figures.items()} | {
        "entries": len(kept),
        "ranks": [j.entry.rank for j in kept],
        "not_above_chance": len(judged) - len(kept),
    }


def _entries(
    config: Any, kept: list[Judged], does: Contributions | None, p_SF: np.ndarray, unit_SFD: np.ndarray, live_SF: np.ndarray, rules: Rules
) -> dict[str, list[Any]]:
    c = config.stability
    rows = []
    for e, j in enumerate(kept):
        counts = np.array([len(m) for m in j.members])
        agreement = aggregates.jackknifed(
            functools.partial(pair_mean, j.span_SS), len(counts), c.confidence, null=None, unit="share", bounds=(0.0, 1.0)
        )
        # Everything alive that lies in the plane can be a match, stable features too.
        crowd_S = [
            int((atlas.energy_inside(u, p)[m] >= rules.capture).sum())
            for u, p, m in zip(unit_SFD, j.entry.without_SDR, live_SF, strict=True)
        ]
        row: dict[str, Any] = {
            "entry": e,
            "rank": j.entry.rank,
            "features": int(counts.sum()),
            "features_per_seed": float(counts.mean()),
            "seeds": int((counts > 0).sum()),
            "agreement_of_halves": j.entry.agreement,
            "gap": j.entry.gap,
            "apart": j.entry.apart,
            "span_agreement": agreement.value,
            "span_agreement_low": agreement.low,
            "span_agreement_high": agreement.high,
            "span_agreement_null": float(j.chance_T.mean()),
            "span_agreement_null_max": float(j.chance_T.max()),
            "p_value": j.p_value,
            "span_agreement_whitened": j.whitened,
            "overlap_with_components": j.with_components,
            "p": float(np.mean(np.concatenate([p_SF[s][m] for s, m in enumerate(j.members)]))),
            "p_by_chance": nulls.chance_of_match(c.theta, j.entry.rank, max(1, round(float(np.mean(crowd_S))))),
            "live_features_inside": float(np.mean(crowd_S)),
        }
        if does is not None:
            row |= {
                "energy": float(does.energy_CS[e].mean()),
                "firing_rate": float(does.firing_CS[e].mean()),
                "contribution_agreement": float(np.nanmean(does.cosine_CSS[e])),
                "contribution_agreement_null": float(np.nanmean(does.other_CSS[e])) if np.isfinite(does.other_CSS[e]).any() else None,
                "top_rows": does.top_rows_CN[e].tolist(),
                "top_values": does.top_values_CN[e].tolist(),
            }
        rows.append(row)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ENTRY_COLUMNS)}


def _seeds(kept: list[Judged], listed: DictionaryList, unit_SFD: np.ndarray, rules: Rules) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("entry", "seed", "features", "own_rank", "overlap_with_others")}
    for e, j in enumerate(kept):
        for s, seed in enumerate(listed.seeds):
            rows = unit_SFD[s][j.members[s]]
            plane_DR = atlas.top_plane(rows, j.entry.rank) if len(rows) else np.zeros((rows.shape[1], 0))
            # Of fewer features than twice the dimensions nobody can tell the rank.
            rank = atlas.own_rank(rows, rules) if len(rows) >= 2 * j.entry.rank else None
            row = (e, seed, len(rows), rank, float(np.square(plane_DR.T @ j.entry.without_SDR[s]).sum() / j.entry.rank))
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return columns


def _agreement(kept: list[Judged], listed: DictionaryList) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("entry", "seed", "other", "overlap")}
    for e, j in enumerate(kept):
        for a, b in zip(*np.nonzero(~np.isnan(j.span_SS)), strict=True):
            for column, value in zip(columns.values(), (e, listed.seeds[a], listed.seeds[b], float(j.span_SS[a, b])), strict=True):
                column.append(value)
    return columns


def _features(
    kept: list[Judged], listed: DictionaryList, unit_SFD: np.ndarray, among_SF: np.ndarray, entry_SF: np.ndarray, energy_SF: np.ndarray
) -> dict[str, Any]:
    """One row per live non-stable feature; x and y: its coordinates along the two leading directions of its subspace, NaN in none."""
    s, f = np.nonzero(among_SF)
    view_SF2 = np.full((*among_SF.shape, 2), np.nan)
    for e, j in enumerate(kept):
        inside_SF = entry_SF == e
        axes_DR = j.entry.plane_DR @ np.linalg.svd(unit_SFD[inside_SF] @ j.entry.plane_DR, full_matrices=False)[2][:2].T
        view_SF2[inside_SF] = unit_SFD[inside_SF] @ axes_DR
    return {
        "seed": np.asarray(listed.seeds)[s],
        "feature": f,
        "entry": entry_SF[s, f],
        "energy_inside": energy_SF[s, f],
        "x": view_SF2[s, f, 0],
        "y": view_SF2[s, f, 1],
    }


def _not_measured(folder: epath.Path, because: str) -> list[epath.Path]:
    empty = {
        name: Estimate(None, None, None, None, Count(0, "seeds"), "share").as_dict() for name in ("unstable_inside", "non_stable_inside")
    }
    return not_measured(folder, because, empty | {"entries": 0, "ranks": []})
