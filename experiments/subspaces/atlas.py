"""Stage: local subspaces that the non-stable features of all seeds fill together, each tested against chance.

entries.parquet     a row per subspace: rank, who fills it, agreement of spans between seeds with chance, p̂ of its features with chance, what it does
seeds.parquet       a row per (subspace, seed): features, their own rank, overlap of their span with the subspace as the other seeds have it
agreement.parquet   a row per (subspace, seed, other seed): overlap of the spans
features.parquet    a row per live non-stable feature: its subspace (-1: none), share of its squared norm inside, place in the subspace's 2-D view
planes.safetensors  orthonormal rows (rank, width) of every subspace
"""

import functools
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from experiments.data import costs, dictionary_list, sources
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.dictionary_list import DictionaryList
from experiments.data.seeds import Seeds
from experiments.fields import check, config, field
from experiments.reappearance import null_models
from experiments.reappearance.labels import LabelRule
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from experiments.subspaces import entry_tables
from experiments.subspaces.entry_tables import SubspaceEvidence
from runtime import progress
from saes import contributions
from saes.config import SAEConfig
from saes.contributions import Contributions
from saes.evaluation import evaluate_each
from stability import aggregates, atlas, nulls, reappearance, reproducibility, similarity
from stability.aggregates import pair_mean, seed_mean
from stability.atlas import Entry, Rules
from stability.estimates import Count, Estimate
from stability.subspaces import span_overlap

DECOMPOSING_SECONDS = 6e-10  # of a symmetric matrix, by the cube of its width; on two EPYC cores at width 128


@config("atlas")
class Atlas:
    """How local subspaces are found and tested."""

    seeds: int = field(
        default=16, doc="SAEs, the first so many, in which subspaces are looked for", ge=4, says="at least 4: two halves of 2 are compared"
    )
    min_rank: int = field(default=4, doc="dimensions of a subspace; what 3 features span counts as split or absorbed", ge=2)
    max_rank: int = field(default=0, doc="0: a third of the width", ge=0)
    capture: float = field(default=0.7, doc="share of a feature's squared norm inside from which it lies in a subspace", ge=0.5, lt=1)
    density: float = field(
        default=1.5,
        doc="different directions for each dimension, at least; features that each reappear fill a plane with 1",
        gt=1,
        says="above 1: features that each reappear fill a plane with 1",
    )
    min_separation: float = field(default=0.9, doc="features in a subspace for each that is at least half in it", ge=0.5, lt=1)
    gap: float = field(
        default=2.5, doc="its weakest direction must be so many times as strong as the strongest outside, among the features in it", ge=1
    )
    max_leverage: float = field(default=0.8, doc="of what holds a feature in a subspace this much may be its own direction", gt=0, lt=1)
    agreement: float = field(default=0.7, doc="overlap from which subspaces of the two halves of the seeds are one", ge=0.5, lt=1)
    n_starts: int = field(default=16, doc="features from which is searched, at a time", gt=0)
    patience: int = field(default=2, doc="as often without a find, and the search ends", gt=0)
    directions: int = field(default=512, doc="of wider rows so many leading directions are searched", gt=0)
    draws: int = field(
        default=59, doc="rotations of every dictionary against which agreement is tested: its p-value is at least 1/60", gt=0
    )
    null_draws: int = field(default=4, doc="rotations of every dictionary in which subspaces are looked for in the same way", gt=0)
    rows: int = field(default=16_384, doc="evaluation rows for what subspaces add to the reconstruction", gt=0)
    top_rows: int = field(default=8, doc="tokens kept per subspace, on which it adds most", gt=0)

    def check(self) -> None:
        check(self.directions > self.min_rank, "atlas.directions", self.directions, f"above min_rank={self.min_rank}")
        check(
            self.max_rank == 0 or self.max_rank >= self.min_rank, "atlas.max_rank", self.max_rank,
            f"0 (a third of the width) or at least min_rank={self.min_rank}",
        )  # fmt: skip


STAGE = Stage(config=Atlas, reads=(LabelRule,), needs=("saes", "stability"), uses=("rows", "gaussian"))


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    draws, confidence = task.section(Atlas).draws, task.section(LabelRule).confidence
    least = 1 / (1 + draws)
    check(
        least <= 1 - confidence, "atlas.draws", draws,
        f"no p-value is below {least:.3g}, so none could meet stability.confidence={confidence}",
    )  # fmt: skip


NULL_KEY = 2**22  # of the rotations that this stage's nulls come from


def run(task: Task, out: Outputs) -> None:
    c = task.section(Atlas)
    saes = dictionary_list.saes(task).first(c.seeds)
    features = task.table("stability/features", ("label", "stratum", "reappearances", "comparisons"))
    s = len(saes.seeds)
    if s < 4:
        _not_measured(out, f"{s} seeds: two halves of at least 2 are compared")
        return
    exists_SF = saes.exists_SF
    column_SF = lambda column: saes.by_seed(features[column], "" if column in ("label", "stratum") else 0)
    live_SF = column_SF("stratum") == reappearance.LIVE
    among_SF = exists_SF & live_SF & (column_SF("label") != reappearance.STABLE)
    unstable_SF = exists_SF & live_SF & (column_SF("label") == reappearance.UNSTABLE)
    unit_SFD = np.asarray(similarity.unit_rows(saes.w_dec_SFD))
    rules = rules_of(c, task.section(LabelRule), unit_SFD.shape[-1])
    acts_ND = sources.evaluation_rows(task)

    with progress.comparing("atlas/search") as on_batch:
        entries = out.part("search", lambda: make(unit_SFD, among_SF, saes.seeds, rules, on_batch))
    turn = functools.partial(_rotate, unit_SFD, saes.seeds)
    with progress.comparing("atlas/chance") as on_draw:
        candidates = out.part("chance", lambda: _judge(c, entries, unit_SFD, among_SF, turn, acts_ND, saes.seeds, on_draw))
    with progress.comparing("atlas/nulls") as on_batch:
        found_in = lambda rows_of, draw: len(make(rows_of(draw), among_SF, saes.seeds, rules, on_batch))
        cloud = functools.partial(_cloud, unit_SFD, among_SF, saes.seeds)
        of_clouds = [out.part(f"cloud {draw}", functools.partial(found_in, cloud, draw)) for draw in range(c.null_draws)]
        of_nulls = [out.part(f"null {draw}", functools.partial(found_in, turn, draw)) for draw in range(c.null_draws)]
        gaussian = out.part("gaussian", lambda: _of_gaussian(task, rules, on_batch))
    survivors = _with_members([j for j in candidates if j.p_value <= 1 - task.section(LabelRule).confidence], unit_SFD, among_SF, rules)

    p_SF = np.where(exists_SF, column_SF("reappearances") / np.maximum(column_SF("comparisons"), 1), np.nan)
    does = _what_they_do(c, saes, survivors, among_SF, acts_ND)
    entry_SF, energy_SF = atlas.members([j.entry for j in survivors], unit_SFD, among_SF, rules.capture)
    summary = _summary(task, survivors, candidates, entry_SF, among_SF, unstable_SF, turn, p_SF, rules)
    summary |= {
        "entries_in_null_draws": of_nulls,
        "entries_in_clouds": of_clouds,
        "entries_in_gaussian_saes": gaussian,
        "seeds": list(saes.seeds),
    }
    out.summary(summary)
    planes = {f"entry_{e}": np.ascontiguousarray(j.entry.plane_DR.T, np.float32) for e, j in enumerate(survivors)}
    out.bytes("planes.safetensors", safetensors.numpy.save(planes))
    tables = {
        "entries": entry_tables.entries_table(task.section(LabelRule), survivors, does, p_SF, unit_SFD, exists_SF & live_SF, rules),
        "seeds": entry_tables.seeds_table(survivors, saes, unit_SFD, rules),
        "agreement": entry_tables.agreement_table(survivors, saes),
        "features": entry_tables.features_table(survivors, saes, unit_SFD, among_SF, entry_SF, energy_SF),
    }
    for name, table in tables.items():
        out.table(name, table)


def rules_of(c: Atlas, labels: LabelRule, width: int) -> Rules:
    same = {name: getattr(c, name) for name in Rules._fields if hasattr(c, name)}
    return Rules(**same | {"max_rank": c.max_rank or max(c.min_rank, width // 3), "duplicate_cosine": labels.theta})


def make(unit_SFD: np.ndarray, among_SF: np.ndarray, seeds: tuple[int, ...], rules: Rules, on_batch: Any) -> list[Entry]:
    """The atlas of the chosen features. Halves go by the seeds' numbers, whatever their order."""
    order = np.argsort(seeds)
    entries = atlas.make([unit_SFD[s][among_SF[s]] for s in order], rules, on_batch)
    return [e._replace(without_SDR=e.without_SDR[np.argsort(order)]) for e in entries]


def _with_members(survivors: list[SubspaceEvidence], unit_SFD: np.ndarray, among_SF: np.ndarray, rules: Rules) -> list[SubspaceEvidence]:
    """With the features that lie in them, each in one subspace, now that some are out."""
    entry_SF, _ = atlas.members([j.entry for j in survivors], unit_SFD, among_SF, rules.capture)
    out = []
    for e, j in enumerate(survivors):
        members = [np.flatnonzero(of_seed == e) for of_seed in entry_SF]
        span_SS = atlas.span_agreement([unit_FD[m] for unit_FD, m in zip(unit_SFD, members, strict=True)], j.entry.rank)
        out.append(j._replace(members=members, span_SS=span_SS))
    return out


def _cloud(unit_SFD: np.ndarray, among_SF: np.ndarray, seeds: tuple[int, ...], draw: int) -> np.ndarray:
    """As many Gaussian directions with the second moment of the chosen rows: what anisotropy alone looks like."""
    rows_ND = unit_SFD[among_SF].astype(np.float64)
    size_D, axes_DD = np.linalg.eigh(rows_ND.T @ rows_ND / max(1, len(rows_ND)))
    root_DD = (axes_DD * np.sqrt(np.maximum(size_D, 0.0))) @ axes_DD.T
    clouds = [np.random.default_rng((seed, draw, 29)).normal(size=unit_SFD.shape[1:]) @ root_DD for seed in seeds]
    return np.asarray(similarity.unit_rows(np.stack(clouds).astype(np.float32)))


def _rotate(unit_SFD: np.ndarray, seeds: tuple[int, ...], draw: int) -> np.ndarray:
    """Every dictionary turned by a rotation of its own."""
    key = jax.random.fold_in(jax.random.fold_in(null_models.root_key(), NULL_KEY), draw)
    return np.asarray(nulls.rotate_each(key, unit_SFD, seeds))


def _judge(
    c: Atlas,
    entries: list[Entry],
    unit_SFD: np.ndarray,
    among_SF: np.ndarray,
    turn: Any,
    acts_ND: np.ndarray | None,
    seeds: tuple[int, ...],
    on_draw: Any,
) -> list[SubspaceEvidence]:
    select_members = lambda of_SFD: [of_FD[m] for of_FD, m in zip(of_SFD, among_SF, strict=True)]
    whitened, components_DD = [], None
    if acts_ND is not None and entries:
        components_DD = reproducibility.principal_components(acts_ND)
        key = jax.random.fold_in(null_models.root_key(), NULL_KEY + 1)
        covariance_DD = null_models.covariance(acts_ND)
        for draw in range(c.null_draws):
            if covariance_DD is None:
                break
            turned_SFD = nulls.rotate_each_whitened(jax.random.fold_in(key, draw), unit_SFD, seeds, covariance_DD)
            whitened.append(select_members(np.asarray(similarity.unit_rows(turned_SFD))))
    entry_SF, _ = atlas.members(entries, unit_SFD, among_SF, c.capture)
    members = [[np.flatnonzero(of_seed == e) for of_seed in entry_SF] for e in range(len(entries))]
    filled = [e for e, of_entry in enumerate(members) if sum(len(m) > 0 for m in of_entry) >= 2]
    order = np.argsort(seeds)  # draws go by the seeds' numbers
    by_chance = lambda rows, e, draw: atlas.agreement_by_chance(
        [rows[s] for s in order], [len(members[e][s]) for s in order], entries[e].rank, draw
    )
    chance_ET = np.zeros((len(entries), c.draws))
    for draw in range(c.draws if filled else 0):
        rows = select_members(turn(draw))
        for e in filled:
            chance_ET[e, draw] = by_chance(rows, e, draw)
            on_draw()
    out = []
    for e in filled:
        span_SS = atlas.span_agreement([unit_FD[m] for unit_FD, m in zip(unit_SFD, members[e], strict=True)], entries[e].rank)
        in_metric = [by_chance(rows, e, draw) for draw, rows in enumerate(whitened)]
        with_components = None if components_DD is None else span_overlap(entries[e].plane_DR, components_DD[:, : entries[e].rank])
        out.append(
            SubspaceEvidence(
                entries[e], members[e], span_SS, chance_ET[e], float(np.mean(in_metric)) if in_metric else None, with_components
            )
        )
    return out


def _of_gaussian(task: Task, rules: Rules, on_batch: Any) -> int | None:
    """Subspaces that SAEs trained on Gaussian activations show; None where there are none, or fewer than four."""
    if not task.has("gaussian"):
        return None
    saes = dictionary_list.load(task.path("gaussian/train") / dictionary_list.NAME)
    cosine_SSF = similarity.all_pairs(saes.w_dec_SFD, sizes=saes.sizes, block_size=task.section(LabelRule).block_size).cosine
    counts_SF = reappearance.reappears(cosine_SSF, task.section(LabelRule).theta).sum(axis=1)
    labels_SF = reappearance.labels(counts_SF, len(saes.seeds) - 1, task.section(LabelRule).epsilon)
    rows_ND = sources.gaussian_rows(task)
    firings_SF = evaluate_each(saes.dictionaries, lambda: progress.batches(rows_ND, "atlas/gaussian"), 1).firings_SF
    live_SF = reappearance.strata(firings_SF, task.section(LabelRule).rare_firings) == reappearance.LIVE
    among_SF = saes.exists_SF & live_SF & (labels_SF != reappearance.STABLE)
    return len(make(np.asarray(similarity.unit_rows(saes.w_dec_SFD)), among_SF, saes.seeds, rules, on_batch))


def _what_they_do(
    c: Atlas, saes: DictionaryList, survivors: list[SubspaceEvidence], among_SF: np.ndarray, acts_ND: np.ndarray | None
) -> Contributions | None:
    """Contributions of the subspaces' features on held-out tokens, beside as many other non-stable ones of the other seed."""
    if acts_ND is None or not survivors:
        return None
    others = []
    for e, j in enumerate(survivors):
        of_entry = []
        for s, (seed, members) in enumerate(zip(saes.seeds, j.members, strict=True)):
            rest = np.setdiff1d(np.flatnonzero(among_SF[s]), members)
            rng = np.random.default_rng((seed, e, 23))
            of_entry.append(np.sort(rng.permutation(rest)[: len(members)]))
        others.append(of_entry)
    some_ND = acts_ND[: c.rows]
    batches = functools.partial(progress.batches, some_ND, "atlas/contributions")
    return contributions.measure(saes.dictionaries, [j.members for j in survivors], others, batches, c.top_rows)


def _summary(
    task: Task,
    survivors: list[SubspaceEvidence],
    candidates: list[SubspaceEvidence],
    entry_SF: np.ndarray,
    among_SF: np.ndarray,
    unstable_SF: np.ndarray,
    turn: Any,
    p_SF: np.ndarray,
    rules: Rules,
) -> dict[str, Any]:
    s = len(among_SF)
    knife = functools.partial(aggregates.jackknifed, seeds=s, confidence=task.section(LabelRule).confidence)
    share: dict[str, Any] = {"unit": "share", "bounds": (0.0, 1.0)}
    entries = [j.entry for j in survivors]
    # Of features turned against each other by chance as many lie in these planes.
    rotated_entries = [atlas.members(entries, turn(draw), among_SF, rules.capture)[0] for draw in range(task.section(Atlas).null_draws)]

    def share_inside(chosen_SF: np.ndarray) -> Estimate:
        if not chosen_SF.any():
            return Estimate(None, None, None, None, Count(s, "seeds"), "share")
        of_seed = lambda in_SF: (in_SF & chosen_SF).sum(1) / np.maximum(chosen_SF.sum(1), 1)
        null = float(np.mean([of_seed(t >= 0) for t in rotated_entries])) if rotated_entries else None
        return knife(functools.partial(seed_mean, of_seed(entry_SF >= 0)), null=null, **share)

    figures = {"unstable_inside": share_inside(unstable_SF), "non_stable_inside": share_inside(among_SF)}
    if survivors:
        spans_SS = np.mean([j.span_SS for j in survivors], axis=0)  # NaN on the diagonal alone
        chance = float(np.mean([j.chance_T.mean() for j in survivors]))
        figures["span_agreement"] = knife(functools.partial(pair_mean, spans_SS), null=chance, **share)
        mean_p_S = np.array([np.mean(p_SF[i][entry_SF[i] >= 0]) if (entry_SF[i] >= 0).any() else np.nan for i in range(s)])
        figures["p_inside"] = knife(functools.partial(seed_mean, mean_p_S), null=None, unit="probability", bounds=(0.0, 1.0))
    return {name: e.as_dict() for name, e in figures.items()} | {
        "entries": len(survivors),
        "ranks": [j.entry.rank for j in survivors],
        "not_above_chance": len(candidates) - len(survivors),
    }


def _not_measured(out: Outputs, because: str) -> None:
    empty = {
        name: Estimate(None, None, None, None, Count(0, "seeds"), "share").as_dict() for name in ("unstable_inside", "non_stable_inside")
    }
    out.not_measured(because, empty | {"entries": 0, "ranks": []})


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """Searches from `starts` features until `patience` batches find nothing, in two halves of the seeds, for the features and for the null draws."""
    c, f = settings[Atlas], settings[SAEConfig].n_features
    n = min(len(settings[Seeds].list), c.seeds)
    rows = costs.NON_STABLE * f * n / 2
    searches = 2 * (1 + c.null_draws) * c.n_starts * (c.patience + 1)
    width = min(size.width, c.directions)
    flops = searches * atlas.STEPS * 4.0 * rows * width**2
    moved = searches * atlas.STEPS * 4.0 * 4 * rows * width
    decomposing = searches * atlas.STEPS * DECOMPOSING_SECONDS * float(width) ** 3
    return Cost("atlas", n * c.rows, flops, moved, n * f * 40.0, 4.0 * rows * width * 4, "match", f"{searches:,} searches", decomposing)
