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

from experiments.data import dictionary_list, sources
from experiments.data.dictionary_list import DictionaryList
from experiments.data.seeds import Seeds
from experiments.data.sources import Sampling
from experiments.fields import check
from experiments.prediction.transfer import Transfer
from experiments.reappearance import null_models
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.sensitivity import Sensitivity
from experiments.reappearance.stability import rise_along_training
from experiments.seed_factorial import design
from experiments.stage import Outputs, Stage, Task
from experiments.training.population import Sweep
from runtime import progress
from saes.evaluation import Evaluation, evaluate_each
from stability import aggregates, nulls, reappearance, similarity, transfer
from stability.aggregates import pair_mean
from stability.estimates import Count, Estimate
from stability.transfer import Labelled

STAGE = Stage(reads=(LabelRule, Sensitivity, Transfer), needs=("rows", design.GROUP))


def check_settings(task: Task) -> None:
    """The runs say what differs between the SAEs of an arm, not the study."""
    seeds, sampling, sweep = task.settings[Seeds], task.settings[Sampling], task.settings[Sweep]
    check(len(seeds.list) >= 4, "seeds", seeds.seeds, "a factorial needs at least 4: two for each half of the documents")
    for name, value, own in (
        ("init_seed", seeds.init_seed, -1), ("data_seed", seeds.data_seed, 0), ("train.halves", sampling.halves, False),
    ):  # fmt: skip
        check(value == own, name, value, f"in a factorial the arms say what differs: leave {own}")
    check(not sweep, "sweep", sweep, "a factorial has arms in its place")


COLUMNS = ("arm", "value", "low", "high", "null", "explained_variance", "mmcs", "l0", "dead_share", "rise", "rise_low", "rise_high", "note")


def run(task: Task, out: Outputs) -> None:
    c = task.section(LabelRule)
    acts_ND = sources.evaluation_rows(task)
    if acts_ND is None:
        raise ValueError("config.stages: the arms are measured on held-out activations, the stage 'activations' makes them")
    arms = list(dict.fromkeys(label.split("/")[1] for label in task.sources[design.GROUP]))
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    tables: dict[str, np.ndarray] = {}
    figures: dict[str, Estimate] = {}
    nulls_of_arms: list[float] = []
    labelled: dict[str, Labelled] = {}

    def add(arm: str, p: Estimate, *others: Any) -> None:
        figures[f"p, {arm}"] = p
        for column, value in zip(rows.values(), (arm, p.value, p.low, p.high, p.null, *others), strict=True):
            column.append(value)

    for arm in arms:
        home = f"{design.GROUP}/{arm}"
        if arm == design.NOTHING:
            paths = (task.path(f"{home}/{name}/train") / dictionary_list.NAME for name in ("first", "second"))
            first, second = (dictionary_list.load(path, distinct=False) for path in paths)  # equal SAEs are what this arm hopes for
            p, ev, mmcs, equal = _of_two_processes(task, first, second, acts_ND)
            add(arm, p, ev, mmcs, *[None] * 5, "equal to the last bit" if equal else "not equal")
            if not equal:
                print("warning: the same training in two processes gave other numbers; differences as small as theirs mean nothing")
            continue
        saes = dictionary_list.load(task.path(f"{home}/train") / dictionary_list.NAME)
        make = functools.partial(evaluate_each, saes.dictionaries, functools.partial(progress.batches, acts_ND, f"arms/{arm}"), 1)
        evaluation = out.part(f"{arm}, evaluation", make)
        p_SS, null, mmcs, seeds = out.part(arm, functools.partial(_p, task, saes, evaluation))
        labelled[arm] = transfer.labelled(seeds, range(len(p_SS)), c.epsilon, task.section(Transfer).features)
        tables[arm] = p_SS
        knife = functools.partial(
            aggregates.jackknifed, seeds=len(p_SS), confidence=c.confidence, null=null, unit="probability", bounds=(0.0, 1.0)
        )
        rise = rise_along_training(saes, c)
        moved = (rise.value, rise.low, rise.high) if rise else (None,) * 3
        details = (
            float(evaluation.explained_variance_S.mean()), mmcs, float(evaluation.l0_S.mean()),
            float(evaluation.share_firing_less_than(1).mean()), *moved, "",
        )  # fmt: skip
        nulls_of_arms.append(null)
        if arm == design.DATA:
            for name, table_SS in zip(("order alone, on half of the documents", design.DATA), design.split_by_half(p_SS), strict=True):
                add(name, knife(functools.partial(pair_mean, table_SS)), *details)
        else:
            add(arm, knife(functools.partial(pair_mean, p_SS)), *details)
    parts = design.decomposed(tables, max(nulls_of_arms, default=0.0), c.confidence)
    columns = {"part": list(parts)} | {name: [getattr(e, name) for e in parts.values()] for name in ("value", "low", "high", "null")}
    for name, e in {**figures, **parts}.items():
        print(f"  {name:60} {_text(e)}")
    summary: dict[str, Any] = {name: e.as_dict() for name, e in {**figures, **parts}.items()}
    if design.NOTHING in arms:
        summary["two processes equal to the last bit"] = rows["note"][rows["arm"].index(design.NOTHING)].startswith("equal")
    out.summary(summary)
    tables_of = {"arms": rows, "parts": columns, "transfer": _transfer_scores(labelled)}
    for name, table in tables_of.items():
        out.table(name, table)


def _transfer_scores(labelled: dict[str, Labelled]) -> dict[str, list[Any]]:
    """Every arm's classifiers on every other arm, whose SAEs labelled themselves. Directions that both arms have are not held out: memory of them counts."""
    out: dict[str, list[Any]] = {name: [] for name in ("trained_on", "judged_on", "predictor", "f1", "auroc")}
    for trained_on, judged_on in itertools.permutations(labelled, 2):
        for predictor, score in transfer.scores(labelled[trained_on], labelled[judged_on], folds=0).items():
            for column, value in zip(out.values(), (trained_on, judged_on, predictor, score.f1, score.auroc), strict=True):
                column.append(value)
    return out


def _p(task: Task, saes: DictionaryList, evaluation: Evaluation) -> tuple[np.ndarray, float, float, transfer.Seeds]:
    """(p̂ of live features by pair (S, S), the null's p̂, MMCS, what classifiers need). The null: a Haar rotation of each; untrained SAEs are no
    null where they begin alike."""
    c = task.section(LabelRule)
    live_SF = reappearance.strata(evaluation.firings_SF, c.rare_firings) == reappearance.LIVE
    with progress.comparing("arms/pairs") as on_pair:
        compared = functools.partial(similarity.all_pairs, sizes=saes.sizes, block_size=c.block_size, on_pair=on_pair)
        cosine_SSF = compared(saes.w_dec_SFD).cosine
        turned_SSF = compared(nulls.rotate_each(null_models.root_key(), saes.w_dec_SFD, saes.seeds)).cosine
    p_table = lambda cosine: aggregates.share_reappearing(reappearance.reappears(cosine, c.theta), live_SF)
    everyone = np.ones(len(live_SF))
    by_chance = nulls.chance_of_match(c.theta, saes.w_dec_SFD.shape[-1], max(saes.sizes))
    mmcs = pair_mean(aggregates.mean_among(cosine_SSF, live_SF), everyone)
    with np.errstate(divide="ignore"):
        log_rate_SF = np.maximum(np.log(evaluation.firings_SF / evaluation.rows), transfer.LEAST_LOG_RATE)
    crowding_SF = np.stack(
        [similarity.crowding(d.w_dec_FD, task.section(Sensitivity).neighbours, c.block_size)[:, 1] for d in saes.dictionaries]
    )
    unit_SFD = np.asarray(similarity.unit_rows(saes.w_dec_SFD))
    seeds = transfer.Seeds(
        unit_SFD,
        reappearance.reappears(cosine_SSF, c.theta),
        live_SF,
        crowding_SF,
        log_rate_SF,
        np.arange(live_SF.size).reshape(live_SF.shape),
    )
    return p_table(cosine_SSF), max(by_chance, pair_mean(p_table(turned_SSF), everyone)), mmcs, seeds


def _of_two_processes(
    task: Task, first: DictionaryList, second: DictionaryList, acts_ND: np.ndarray
) -> tuple[Estimate, float, float, bool]:
    """(p̂ of the one's live features in the other, explained variance, mean cosine, whether all their numbers are equal)."""
    c = task.section(LabelRule)
    evaluation = evaluate_each(first.dictionaries[:1], lambda: progress.batches(acts_ND, "arms/nothing"), 1)
    live_F = reappearance.strata(evaluation.firings_SF[0], c.rare_firings) == reappearance.LIVE
    a, b = (saes.dictionaries[0].w_dec_FD for saes in (first, second))
    match, _ = similarity.best_match(similarity.unit_rows(a), similarity.unit_rows(b), block_size=c.block_size)
    p = float(similarity.reaches(np.asarray(match.cosine), c.theta)[live_F].mean())
    leaves = (jax.tree.leaves(saes.dictionaries) for saes in (first, second))
    equal = all((x == y).all() for x, y in zip(*leaves, strict=True))
    by_chance = nulls.chance_of_match(c.theta, a.shape[1], len(a))
    estimate = Estimate(p, None, None, by_chance, Count(2, "processes"), "probability")
    return estimate, float(evaluation.explained_variance_S[0]), float(np.asarray(match.cosine)[live_F].mean()), equal


def _text(e: Estimate) -> str:
    if e.value is None:
        return "not measured"
    interval = "" if e.low is None or e.high is None else f" [{e.low:.3f}, {e.high:.3f}]"
    return f"{e.value:.3f}{interval}"
