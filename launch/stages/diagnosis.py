"""Stage: why each unstable feature is unstable, with the evidence.

features.parquet   a row per unstable feature of the SAEs in which subspaces were looked for: its reason, and what speaks for it
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from safetensors.numpy import load

from launch import dictionary_list, null_models, progress, sources
from launch.dictionary_list import DictionaryList
from launch.outcomes import not_measured
from stability import aggregates, diagnosis, nulls, reappearance, similarity
from stability.aggregates import seed_mean
from stability.atlas import energy_inside
from stability.combinations import best_combinations, chance_of_combination
from stability.diagnosis import Evidence
from stability.estimates import Count, unmeasured
from storage import files
from storage.tables import read_table, write_table

TERMS = 3  # features of another seed that a split feature is made of, at most
NULL_KEY = 2**23  # of the rotation that this stage's null comes from


class Found(NamedTuple):
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


def inputs(config: Any) -> dict[str, str]:
    return dictionary_list.digest(config.stability.dictionaries) | sources.evaluation_digest(config)


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    folder = workdir / "diagnosis"
    in_atlas = files.read_json(workdir / "atlas" / "summary.json")
    if "not_measured" in in_atlas:
        return _not_measured(folder, in_atlas["not_measured"])
    listed = dictionary_list.load(dictionary_list.place(config, workdir)).first(config.atlas.seeds)
    exists_SF = listed.exists_SF
    features = read_table(workdir / "stability" / "features.parquet", ("label", "stratum"))
    label_SF, stratum_SF = (listed.by_seed(features[name], "") for name in ("label", "stratum"))
    unstable_SF = exists_SF & (label_SF == reappearance.UNSTABLE)
    alive_SF = exists_SF & (stratum_SF != reappearance.DEAD)

    rows_SFD = np.where(alive_SF[..., None], listed.w_dec_SFD, 0.0).astype(np.float32)  # a dead feature explains nothing
    asked_SF = unstable_SF & alive_SF
    found = _combinations(config, rows_SFD, rows_SFD, asked_SF, "diagnosis/combinations")
    key = jax.random.fold_in(null_models.root_key(), NULL_KEY)
    turned_SFD = np.asarray(nulls.rotate_each(key, rows_SFD, listed.seeds))
    by_chance = _combinations(config, rows_SFD, turned_SFD, asked_SF, "diagnosis/chance")
    entry_SF, inside_SF, chance_SF = _in_atlas(config, workdir, listed)
    drift_SF = _drift(listed)

    of = lambda values: values[unstable_SF]
    evidence = Evidence(of(stratum_SF), of(found.split_SF), of(entry_SF), of(chance_SF), of(drift_SF))
    c = config.diagnosis
    rules: dict[str, Any] = {"in_seeds": c.in_seeds, "chance": c.chance, "settled": c.settled}
    reason_N = diagnosis.reasons(evidence, **rules)
    reason_SF = np.full(exists_SF.shape, "", reason_N.dtype)
    reason_SF[unstable_SF] = reason_N
    turned_in_SF = _entries_of_turned(config, workdir, turned_SFD)
    turned_chance_SF = np.where(turned_in_SF >= 0, chance_SF.max(initial=0.0), 0.0)
    without = Evidence(of(stratum_SF), of(by_chance.split_SF), of(turned_in_SF), of(turned_chance_SF), of(drift_SF))
    null_N = diagnosis.reasons(without, **rules)
    null = {reason: float((null_N == reason).mean()) if len(null_N) else None for reason in (diagnosis.SPLIT, diagnosis.AMBIGUOUS)}
    summary: dict[str, Any] = {
        reason: aggregates.jackknifed(
            functools.partial(seed_mean, _share(reason_SF == reason, unstable_SF)),
            len(listed.seeds),
            config.stability.confidence,
            null=null.get(reason),
            unit="share of unstable features",
            bounds=(0.0, 1.0),
        ).as_dict()
        for reason in diagnosis.REASONS
    }
    summary |= {"features": int(unstable_SF.sum()), "drift_known": bool(np.isfinite(drift_SF).any())}
    files.write_json(folder / "summary.json", summary)
    table = _table(listed, unstable_SF, reason_N, evidence, of(inside_SF), found)
    return [folder / "summary.json", write_table(folder / "features.parquet", table)]


def _share(of_them_SF: np.ndarray, among_SF: np.ndarray) -> np.ndarray:
    """Per seed; NaN where there are none."""
    with np.errstate(invalid="ignore"):
        return (of_them_SF & among_SF).sum(axis=1) / among_SF.sum(axis=1)


def _combinations(config: Any, rows_SFD: np.ndarray, others_SFD: np.ndarray, asked_SF: np.ndarray, what: str) -> Found:
    """Of every feature asked for against the rows of every other SAE."""
    s, f = asked_SF.shape
    unit_SFD, other_SFD = (np.asarray(similarity.unit_rows(rows)) for rows in (rows_SFD, others_SFD))
    most = max(1, int(asked_SF.sum(axis=1).max()))
    terms = min(TERMS, f)
    hits_SF, share_SF = np.zeros((s, f)), np.zeros((s, f), np.float32)
    seed_SF, index_SFM, weight_SFM = np.full((s, f), -1), np.zeros((s, f, terms), np.int32), np.zeros((s, f, terms), np.float32)
    with progress.comparing(what, s * (s - 1)) as on_pair:
        for i in range(s):
            chosen = np.flatnonzero(asked_SF[i])
            anchors_MD = np.pad(unit_SFD[i, chosen], ((0, most - len(chosen)), (0, 0)))  # one program for all pairs
            for j in range(s):
                if i == j or not len(chosen):
                    continue
                best = best_combinations(anchors_MD, other_SFD[j], terms, block_size=config.stability.block_size)
                share, index, weight = (np.asarray(x)[: len(chosen)] for x in best)
                hits_SF[i, chosen] += share[:, -1] >= config.diagnosis.explained
                better = share[:, -1] > share_SF[i, chosen]
                at = chosen[better]
                share_SF[i, at], seed_SF[i, at] = share[better, -1], j
                index_SFM[i, at], weight_SFM[i, at] = index[better], weight[better]
                on_pair()
    return Found(hits_SF / (s - 1), share_SF, seed_SF, index_SFM, weight_SFM)


def _in_atlas(config: Any, workdir: epath.Path, listed: DictionaryList) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every feature the subspace in which it lies (−1), its share inside, and the chance of a combination in there."""
    shape = listed.exists_SF.shape
    table = read_table(workdir / "atlas" / "features.parquet")
    entries = read_table(workdir / "atlas" / "entries.parquet")
    place = {seed: s for s, seed in enumerate(listed.seeds)}
    at = np.array([place[seed] for seed in table["seed"].tolist()], int), table["feature"].astype(int)
    entry_SF, inside_SF, chance_SF = np.full(shape, -1), np.zeros(shape), np.zeros(shape)
    entry_SF[at], inside_SF[at] = table["entry"], table["energy_inside"]
    for e, rank in enumerate(entries["rank"]):
        crowd = max(1, round(float(entries["live_features_inside"][e])))
        chance_SF[entry_SF == e] = chance_of_combination(config.diagnosis.explained, int(rank), crowd, TERMS)
    return entry_SF, inside_SF, chance_SF


def _entries_of_turned(config: Any, workdir: epath.Path, turned_SFD: np.ndarray) -> np.ndarray:
    """(S, F): the subspace in which a feature lies once its dictionary is turned by chance, −1: none."""
    unit_SFD, entry_SF = np.asarray(similarity.unit_rows(turned_SFD)), np.full(turned_SFD.shape[:2], -1)
    for name, plane_RD in load((workdir / "atlas" / "planes.safetensors").read_bytes()).items():
        entry_SF[energy_inside(unit_SFD, plane_RD.T) >= config.atlas.capture] = int(name.removeprefix("entry_"))
    return entry_SF


def _drift(listed: DictionaryList) -> np.ndarray:
    """Cosine of every feature with itself at half of the training tokens, or as late before that as is known; NaN without such a dictionary."""
    shape = listed.exists_SF.shape
    last = listed.snapshots[-1][0] if listed.snapshots else 0
    earlier = [paths for tokens, paths in listed.snapshots if 0 < tokens <= 0.55 * last]
    if not earlier:
        return np.full(shape, np.nan)
    before, now = (np.asarray(similarity.unit_rows(w)) for w in (listed.snapshot(earlier[-1]).w_dec_FD, listed.w_dec_SFD))
    return np.einsum("sfd,sfd->sf", before, now)


def _table(
    listed: DictionaryList, unstable_SF: np.ndarray, reason_N: np.ndarray, evidence: Evidence, inside_N: np.ndarray, found: Found
) -> dict[str, Any]:
    s, f = np.nonzero(unstable_SF)
    seed_N = found.seed_SF[unstable_SF]
    return {
        "seed": np.asarray(listed.seeds)[s],
        "feature": f,
        "reason": reason_N,
        "stratum": evidence.stratum_N,
        "drift": evidence.drift_N,
        "split_seeds": evidence.split_N,
        "combination_share": found.share_SF[unstable_SF],
        "combination_seed": np.where(seed_N >= 0, np.asarray(listed.seeds)[seed_N], -1),
        "combination_features": found.index_SFM[unstable_SF],
        "combination_weights": found.weight_SFM[unstable_SF],
        "entry": evidence.entry_N,
        "energy_inside": inside_N,
        "split_by_chance": evidence.split_by_chance_N,
    }


def _not_measured(folder: epath.Path, because: str) -> list[epath.Path]:
    empty = {reason: unmeasured(Count(0, "seeds"), "share of unstable features").as_dict() for reason in diagnosis.REASONS}
    return not_measured(folder, because, empty | {"features": 0})
