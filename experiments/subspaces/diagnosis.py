"""Stage: why each unstable feature is unstable, with the evidence.

features.parquet   a row per unstable feature of the SAEs in which subspaces were looked for: its reason, and what speaks for it
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import load

from experiments.data import costs, dictionary_list
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.dictionary_list import DictionaryList
from experiments.data.seeds import Seeds
from experiments.fields import config, field
from experiments.reappearance import null_models
from experiments.reappearance.labels import LabelRule
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from experiments.subspaces.atlas import Atlas
from runtime import progress
from stability import aggregates, diagnosis, nulls, reappearance, similarity
from stability.aggregates import seed_mean
from stability.atlas import energy_inside
from stability.combinations import best_combinations, chance_of_combination
from stability.diagnosis import Evidence
from stability.estimates import Count, unmeasured


@config("diagnosis")
class Diagnosis:
    """By what evidence an unstable feature gets its reason."""

    explained: float = field(
        default=0.9, doc="share of a feature's squared norm that up to 3 features of another seed must hold: split or absorbed", gt=0, lt=1
    )
    in_seeds: float = field(default=0.5, doc="in at least this share of the other seeds", gt=0, lt=1)
    chance: float = field(
        default=0.05, doc="inside a subspace in which that happens by chance more often, nothing is called split", gt=0, lt=1
    )
    settled: float = field(
        default=0.9,
        doc="cosine with its own direction at half of the tokens, below which a feature is under-trained",
        gt=0,
        le=1,
        says="a cosine in (0, 1]",
    )


STAGE = Stage(config=Diagnosis, reads=(Atlas, LabelRule), needs=("saes", "stability", "atlas"), uses=("rows",))

TERMS = 3  # features of another seed that a split feature is made of, at most
NULL_KEY = 2**23  # of the rotation that this stage's null comes from


class Combinations(NamedTuple):
    """Of every feature asked for, its best combination of another SAE's features.

    Attributes:
      split_SF: share of the other SAEs in which it reconstructs enough.
      share_SF: in the SAE in which it reconstructs most, how much.
      seed_SF: place of that SAE; −1 for features not asked for.
      index_SFM, weight_SFM: the features there and their weights.
    """

    split_SF: np.ndarray
    share_SF: np.ndarray
    seed_SF: np.ndarray
    index_SFM: np.ndarray
    weight_SFM: np.ndarray


def run(task: Task, out: Outputs) -> None:
    in_atlas = task.summary("atlas")
    if "not_measured" in in_atlas:
        _not_measured(out, in_atlas["not_measured"])
        return
    saes = dictionary_list.saes(task).first(task.section(Atlas).seeds)
    exists_SF = saes.exists_SF
    features = task.table("stability/features", ("label", "stratum"))
    label_SF, stratum_SF = (saes.by_seed(features[name], "") for name in ("label", "stratum"))
    unstable_SF = exists_SF & (label_SF == reappearance.UNSTABLE)
    alive_SF = exists_SF & (stratum_SF != reappearance.DEAD)

    rows_SFD = np.where(alive_SF[..., None], saes.w_dec_SFD, 0.0).astype(np.float32)  # a dead feature explains nothing
    asked_SF = unstable_SF & alive_SF
    combinations = out.part("combinations", lambda: _combinations(task, rows_SFD, rows_SFD, asked_SF, "diagnosis/combinations"))
    key = jax.random.fold_in(null_models.root_key(), NULL_KEY)
    turned_SFD = np.asarray(nulls.rotate_each(key, rows_SFD, saes.seeds))
    by_chance = out.part("chance", lambda: _combinations(task, rows_SFD, turned_SFD, asked_SF, "diagnosis/chance"))
    entry_SF, inside_SF, chance_SF = _in_atlas(task, saes)
    drift_SF = _drift(saes)

    of_unstable = lambda values: values[unstable_SF]
    evidence = Evidence(
        of_unstable(stratum_SF), of_unstable(combinations.split_SF), of_unstable(entry_SF), of_unstable(chance_SF), of_unstable(drift_SF)
    )
    c = task.section(Diagnosis)
    rules: dict[str, Any] = {"in_seeds": c.in_seeds, "chance": c.chance, "settled": c.settled}
    reason_N = diagnosis.reasons(evidence, **rules)
    reason_SF = np.full(exists_SF.shape, "", reason_N.dtype)
    reason_SF[unstable_SF] = reason_N
    turned_in_SF = _entries_of_turned(task, turned_SFD)
    turned_chance_SF = np.where(turned_in_SF >= 0, chance_SF.max(initial=0.0), 0.0)
    chance_evidence = Evidence(
        of_unstable(stratum_SF),
        of_unstable(by_chance.split_SF),
        of_unstable(turned_in_SF),
        of_unstable(turned_chance_SF),
        of_unstable(drift_SF),
    )
    null_N = diagnosis.reasons(chance_evidence, **rules)
    null = {reason: float((null_N == reason).mean()) if len(null_N) else None for reason in (diagnosis.SPLIT, diagnosis.AMBIGUOUS)}
    summary: dict[str, Any] = {
        reason: aggregates.jackknifed(
            functools.partial(seed_mean, _share(reason_SF == reason, unstable_SF)),
            len(saes.seeds),
            task.section(LabelRule).confidence,
            null=null.get(reason),
            unit="share of unstable features",
            bounds=(0.0, 1.0),
        ).as_dict()
        for reason in diagnosis.REASONS
    }
    summary |= {"features": int(unstable_SF.sum()), "drift_known": bool(np.isfinite(drift_SF).any())}
    out.summary(summary)
    table = _table(saes, unstable_SF, reason_N, evidence, of_unstable(inside_SF), combinations)
    out.table("features", table)


def _share(of_them_SF: np.ndarray, among_SF: np.ndarray) -> np.ndarray:
    """Per seed; NaN where there are none."""
    with np.errstate(invalid="ignore"):
        result: np.ndarray = (of_them_SF & among_SF).sum(axis=1) / among_SF.sum(axis=1)
        return result


def _combinations(task: Task, rows_SFD: np.ndarray, others_SFD: np.ndarray, asked_SF: np.ndarray, what: str) -> Combinations:
    """Of every feature asked for against the rows of every other SAE."""
    s, f = asked_SF.shape
    unit_SFD, other_SFD = (np.asarray(similarity.unit_rows(rows)) for rows in (rows_SFD, others_SFD))
    most = max(1, int(asked_SF.sum(axis=1).max()))
    terms = min(TERMS, f)
    hits_SF, share_SF = np.zeros((s, f)), np.zeros((s, f), np.float32)
    seed_SF, index_SFM, weight_SFM = np.full((s, f), -1), np.zeros((s, f, terms), np.int32), np.zeros((s, f, terms), np.float32)
    with progress.comparing(what, s * (s - 1)) as on_pair:
        for i in range(s):
            asked_M = np.flatnonzero(asked_SF[i])
            anchors_MD = np.pad(unit_SFD[i, asked_M], ((0, most - len(asked_M)), (0, 0)))  # one program for all pairs
            for j in range(s):
                if i == j or not len(asked_M):
                    continue
                best = best_combinations(anchors_MD, other_SFD[j], terms, block_size=task.section(LabelRule).block_size)
                share, index, weight = (np.asarray(x)[: len(asked_M)] for x in best)
                hits_SF[i, asked_M] += share[:, -1] >= task.section(Diagnosis).explained
                better = share[:, -1] > share_SF[i, asked_M]
                place = asked_M[better]
                share_SF[i, place], seed_SF[i, place] = share[better, -1], j
                index_SFM[i, place], weight_SFM[i, place] = index[better], weight[better]
                on_pair()
    return Combinations(hits_SF / (s - 1), share_SF, seed_SF, index_SFM, weight_SFM)


def _in_atlas(task: Task, saes: DictionaryList) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every feature the subspace in which it lies (−1), its share inside, and the chance of a combination in there."""
    shape = saes.exists_SF.shape
    table = task.table("atlas/features")
    entries = task.table("atlas/entries")
    place = {seed: s for s, seed in enumerate(saes.seeds)}
    where = np.array([place[seed] for seed in table["seed"].tolist()], int), table["feature"].astype(int)
    entry_SF, inside_SF, chance_SF = np.full(shape, -1), np.zeros(shape), np.zeros(shape)
    entry_SF[where], inside_SF[where] = table["entry"], table["energy_inside"]
    for e, rank in enumerate(entries["rank"]):
        crowd = max(1, round(float(entries["live_features_inside"][e])))
        chance_SF[entry_SF == e] = chance_of_combination(task.section(Diagnosis).explained, int(rank), crowd, TERMS)
    return entry_SF, inside_SF, chance_SF


def _entries_of_turned(task: Task, turned_SFD: np.ndarray) -> np.ndarray:
    """(S, F): the subspace in which a feature lies once its dictionary is turned by chance, −1: none."""
    unit_SFD, entry_SF = np.asarray(similarity.unit_rows(turned_SFD)), np.full(turned_SFD.shape[:2], -1)
    for name, plane_RD in load((task.path("atlas/planes.safetensors")).read_bytes()).items():
        entry_SF[energy_inside(unit_SFD, plane_RD.T) >= task.section(Atlas).capture] = int(name.removeprefix("entry_"))
    return entry_SF


def _drift(saes: DictionaryList) -> np.ndarray:
    """Cosine of every feature with itself at half of the training tokens, or as late before that as is known; NaN without such a dictionary."""
    shape = saes.exists_SF.shape
    last = saes.snapshots[-1][0] if saes.snapshots else 0
    earlier = [paths for tokens, paths in saes.snapshots if 0 < tokens <= 0.55 * last]
    if not earlier:
        return np.full(shape, np.nan)
    early_SFD, final_SFD = (np.asarray(similarity.unit_rows(w)) for w in (saes.snapshot(earlier[-1]).w_dec_FD, saes.w_dec_SFD))
    result: np.ndarray = np.einsum("sfd,sfd->sf", early_SFD, final_SFD)
    return result


def _table(
    saes: DictionaryList,
    unstable_SF: np.ndarray,
    reason_N: np.ndarray,
    evidence: Evidence,
    inside_N: np.ndarray,
    combinations: Combinations,
) -> dict[str, Any]:
    s, f = np.nonzero(unstable_SF)
    seed_N = combinations.seed_SF[unstable_SF]
    return {
        "seed": np.asarray(saes.seeds)[s],
        "feature": f,
        "reason": reason_N,
        "stratum": evidence.stratum_N,
        "drift": evidence.drift_N,
        "split_seeds": evidence.split_N,
        "combination_share": combinations.share_SF[unstable_SF],
        "combination_seed": np.where(seed_N >= 0, np.asarray(saes.seeds)[seed_N], -1),
        "combination_features": combinations.index_SFM[unstable_SF],
        "combination_weights": combinations.weight_SFM[unstable_SF],
        "entry": evidence.entry_N,
        "energy_inside": inside_N,
        "split_by_chance": evidence.split_by_chance_N,
    }


def _not_measured(out: Outputs, because: str) -> None:
    empty = {reason: unmeasured(Count(0, "seeds"), "share of unstable features").as_dict() for reason in diagnosis.REASONS}
    out.not_measured(because, empty | {"features": 0})


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """Three products for every ordered pair, of the unstable features of one SAE with all of the other; as many of turned dictionaries."""
    n = min(len(settings[Seeds].list), settings[Atlas].seeds)
    return costs.comparisons(settings, "diagnosis", 2 * TERMS * n * (n - 1) * costs.UNSTABLE, size.width, 0, settings[LabelRule].block_size)
