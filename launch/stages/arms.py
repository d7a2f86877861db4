"""Stage: p̂ in every arm of the seed factorial, and which part of instability comes from what.

arms.parquet    a row per arm: mean p̂ of live features with interval and null; explained variance, L0, dead share; how p̂ moved at the end of training
parts.parquet   a row per part of instability
transfer.parquet   a row per (arm learned from, arm judged, predictor): can unstable features be told by their decoder rows
"""

import functools
import itertools
from typing import Any

import jax
import numpy as np
from etils import epath

from launch import arms, dictionary_list, null_models, progress, sources
from launch.dictionary_list import DictionaryList
from launch.stages.stability import rise_along_training
from saes.evaluation import Evaluation, evaluate_each
from stability import aggregates, nulls, reappearance, similarity, transfer
from stability.aggregates import pair_mean
from stability.estimates import Count, Estimate
from stability.transfer import Labelled, Seeds
from storage import files
from storage.tables import write_table

COLUMNS = ("arm", "value", "low", "high", "null", "explained_variance", "mmcs", "l0", "dead_share", "rise", "rise_low", "rise_high", "note")


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    folder, c = workdir / "arms", config.stability
    acts_ND = sources.evaluation_rows(config, workdir)
    if acts_ND is None:
        raise ValueError("config.stages: the arms are measured on held-out activations, the stage 'activations' makes them")
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    tables: dict[str, np.ndarray] = {}
    figures: dict[str, Estimate] = {}
    nulls_of_arms: list[float] = []
    labelled: dict[str, Labelled] = {}

    def add(arm: str, p: Estimate, *others: Any) -> None:
        figures[f"p, {arm}"] = p
        for column, value in zip(rows.values(), (arm, p.value, p.low, p.high, p.null, *others), strict=True):
            column.append(value)

    for arm in config.arms:
        home = workdir / "factorial" / arm
        if arm == arms.NOTHING:
            paths = (home / name / "train" / dictionary_list.NAME for name in ("first", "second"))
            first, second = (dictionary_list.load(path, distinct=False) for path in paths)  # equal SAEs are what this arm hopes for
            p, ev, mmcs, equal = _of_two_processes(config, first, second, acts_ND)
            add(arm, p, ev, mmcs, *[None] * 5, "equal to the last bit" if equal else "not equal")
            if not equal:
                print("warning: the same training in two processes gave other numbers; differences as small as theirs mean nothing")
            continue
        listed = dictionary_list.load(home / "train" / dictionary_list.NAME)
        evaluation = evaluate_each(listed.dictionaries, functools.partial(progress.batches, acts_ND, f"arms/{arm}"), 1)
        p_SS, null, mmcs, seeds = _p(config, listed, evaluation)
        labelled[arm] = transfer.labelled(seeds, range(len(p_SS)), c.epsilon, config.transfer.features)
        tables[arm] = p_SS
        knife = functools.partial(
            aggregates.jackknifed, seeds=len(p_SS), confidence=c.confidence, null=null, unit="probability", bounds=(0.0, 1.0)
        )
        rise = rise_along_training(listed, c)
        moved = (rise.value, rise.low, rise.high) if rise else (None,) * 3
        about = (
            float(evaluation.explained_variance_S.mean()), mmcs, float(evaluation.l0_S.mean()),
            float(evaluation.share_firing_less_than(1).mean()), *moved, "",
        )  # fmt: skip
        nulls_of_arms.append(null)
        if arm == arms.DATA:
            for name, table_SS in zip(("order alone, on half of the documents", arms.DATA), arms.split_by_half(p_SS), strict=True):
                add(name, knife(functools.partial(pair_mean, table_SS)), *about)
        else:
            add(arm, knife(functools.partial(pair_mean, p_SS)), *about)
    parts = arms.decomposed(tables, max(nulls_of_arms, default=0.0), c.confidence)
    columns = {"part": list(parts)} | {name: [getattr(e, name) for e in parts.values()] for name in ("value", "low", "high", "null")}
    for name, e in {**figures, **parts}.items():
        print(f"  {name:60} {_shown(e)}")
    summary: dict[str, Any] = {name: e.as_dict() for name, e in {**figures, **parts}.items()}
    if arms.NOTHING in config.arms:
        summary["two processes equal to the last bit"] = rows["note"][rows["arm"].index(arms.NOTHING)].startswith("equal")
    files.write_json(folder / "summary.json", summary)
    tables_of = {"arms": rows, "parts": columns, "transfer": _across(labelled)}
    return [folder / "summary.json", *(write_table(folder / f"{name}.parquet", table) for name, table in tables_of.items())]


def _across(labelled: dict[str, Labelled]) -> dict[str, list[Any]]:
    """Every arm's classifiers on every other arm, whose SAEs labelled themselves."""
    out: dict[str, list[Any]] = {name: [] for name in ("trained_on", "judged_on", "predictor", "f1", "auroc")}
    for trained_on, judged_on in itertools.permutations(labelled, 2):
        for predictor, score in transfer.scores(labelled[trained_on], labelled[judged_on]).items():
            for column, value in zip(out.values(), (trained_on, judged_on, predictor, score.f1, score.auroc), strict=True):
                column.append(value)
    return out


def _p(config: Any, listed: DictionaryList, evaluation: Evaluation) -> tuple[np.ndarray, float, float, Seeds]:
    """(p̂ of live features by pair (S, S), the null's p̂, MMCS, what classifiers need). The null: a Haar rotation of each; untrained SAEs are no
    null where they begin alike."""
    c = config.stability
    live_SF = reappearance.strata(evaluation.firings_SF, c.rare_firings) == reappearance.LIVE
    with progress.comparing("arms/pairs") as on_pair:
        compared = functools.partial(similarity.all_pairs, sizes=listed.sizes, block_size=c.block_size, on_pair=on_pair)
        cosine_SSF = compared(listed.w_dec_SFD).cosine
        turned_SSF = compared(nulls.rotate_each(null_models.root_key(), listed.w_dec_SFD, listed.seeds)).cosine
    of = lambda cosine: aggregates.share_reappearing(reappearance.reappears(cosine, c.theta), live_SF)
    everyone = np.ones(len(live_SF))
    by_chance = nulls.chance_of_match(c.theta, listed.w_dec_SFD.shape[-1], max(listed.sizes))
    mmcs = pair_mean(aggregates.mean_among(cosine_SSF, live_SF), everyone)
    with np.errstate(divide="ignore"):
        log_rate_SF = np.maximum(np.log(evaluation.firings_SF / evaluation.rows), transfer.LEAST_LOG_RATE)
    crowding_SF = np.stack(
        [similarity.crowding(d.w_dec_FD, config.sensitivity.neighbours, c.block_size)[:, 1] for d in listed.dictionaries]
    )
    unit_SFD = np.asarray(similarity.unit_rows(listed.w_dec_SFD))
    seeds = Seeds(unit_SFD, reappearance.reappears(cosine_SSF, c.theta), live_SF, crowding_SF, log_rate_SF)
    return of(cosine_SSF), max(by_chance, pair_mean(of(turned_SSF), everyone)), mmcs, seeds


def _of_two_processes(
    config: Any, first: DictionaryList, second: DictionaryList, acts_ND: np.ndarray
) -> tuple[Estimate, float, float, bool]:
    """(p̂ of the one's live features in the other, explained variance, mean cosine, whether all their numbers are equal)."""
    c = config.stability
    evaluation = evaluate_each(first.dictionaries[:1], lambda: progress.batches(acts_ND, "arms/nothing"), 1)
    live_F = reappearance.strata(evaluation.firings_SF[0], c.rare_firings) == reappearance.LIVE
    a, b = (listed.dictionaries[0].w_dec_FD for listed in (first, second))
    match, _ = similarity.best_match(similarity.unit_rows(a), similarity.unit_rows(b), block_size=c.block_size)
    p = float(similarity.reaches(np.asarray(match.cosine), c.theta)[live_F].mean())
    leaves = (jax.tree.leaves(listed.dictionaries) for listed in (first, second))
    equal = all((x == y).all() for x, y in zip(*leaves, strict=True))
    by_chance = nulls.chance_of_match(c.theta, a.shape[1], len(a))
    estimate = Estimate(p, None, None, by_chance, Count(2, "processes"), "probability")
    return estimate, float(evaluation.explained_variance_S[0]), float(np.asarray(match.cosine)[live_F].mean()), equal


def _shown(e: Estimate) -> str:
    if e.value is None:
        return "not measured"
    interval = "" if e.low is None or e.high is None else f" [{e.low:.3f}, {e.high:.3f}]"
    return f"{e.value:.3f}{interval}"
