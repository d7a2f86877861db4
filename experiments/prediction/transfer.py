"""Stage: can unstable features be told by their decoder rows on seeds that took no part, and can p̂ of a new SAE's features be predicted?

scores.parquet        a row per predictor: F1 of the class unstable and AUROC on the other half of the seeds, with intervals
calibration.parquet   p̂ predicted for SAEs that were left out against the share that reappeared, by tenths of the features
"""

import functools
from typing import Any

import numpy as np

from experiments.data import dictionary_list
from experiments.data.dictionary_list import DictionaryList
from experiments.fields import config, field
from experiments.reappearance.labels import LabelRule
from experiments.stage import Outputs, Stage, Task
from runtime import progress
from stability import aggregates, prediction, reappearance, similarity, transfer
from stability.estimates import Count, Estimate, unmeasured
from stability.prediction import Calibration, References
from stability.transfer import BASELINES, PREVALENCE, ROWS, Seeds


@config("transfer")
class Transfer:
    """How classifiers of stable and unstable features are tested across seeds."""

    folds: int = field(default=4, doc="parts into which directions are dealt; each is judged by what was learned from the others", ge=2)
    draws: int = field(default=200, doc="of directions with replacement, for the intervals", ge=2)
    splits: int = field(default=2, doc="cuts of the seeds into halves; from each the other is judged", gt=0)
    seeds: int = field(default=16, doc="SAEs, the first so many", ge=4, says="at least 4: two halves of 2 label themselves")
    features: int = field(default=20_000, doc="of a half that are learned from or judged", gt=0)


STAGE = Stage(config=Transfer, reads=(LabelRule,), needs=("saes", "stability", "sensitivity"))

PLACED = ("best_cosine", "best_partner")


def run(task: Task, out: Outputs) -> None:
    c = task.section(Transfer)
    whole = dictionary_list.saes(task)
    saes = whole.first(c.seeds)
    s = len(saes.seeds)
    if s < 4:
        _not_measured(out, f"{s} seeds: two halves of at least 2 label themselves")
        return
    references, live_SF, log_rate_SF, order = read_references(task, whole, s)
    hits_SSF = reappearance.reappears(references.cosine_SSF, task.section(LabelRule).theta)
    unit_SFD, direction_SF = np.asarray(similarity.unit_rows(saes.w_dec_SFD))[order], transfer.directions(references.partner_SSF, hits_SSF)
    labelled_seeds = Seeds(unit_SFD, hits_SSF, live_SF, references.crowding_SF, log_rate_SF, direction_SF)
    figures, table = _scores(task, out, labelled_seeds, _log_rates_without_parts(task, whole, s, order))
    calibration: dict[str, Any] = {"predicted": [], "observed": [], "features": []}
    try:
        scores_of_predictions = prediction.calibrate(references, task.section(LabelRule).theta, live_SF)
        figures, calibration = figures | calibration_figures(scores_of_predictions, s), calibration_table(scores_of_predictions)
    except prediction.NothingToLearn as problem:
        print(f"transfer: no predictions, {problem}")
    sizes = np.unique(direction_SF[live_SF], return_counts=True)[1]
    largest = {
        "directions": len(sizes),
        "features in the largest direction": int(sizes.max(initial=0)),
        "live features": int(live_SF.sum()),
    }
    out.summary({name: e.as_dict() for name, e in figures.items()} | {"seeds": s} | largest)
    out.table("scores", table)
    out.table("calibration", calibration)


def _not_measured(out: Outputs, because: str) -> None:
    empty = {name: unmeasured(Count(0, "seeds"), "share").as_dict() for name in ("f1", "auroc", "auroc_excess", "auroc_nearest_neighbour")}
    out.not_measured(because, empty)


def read_references(task: Task, saes: DictionaryList, count: int) -> tuple[References, np.ndarray, np.ndarray | None, np.ndarray]:
    """(what stability and sensitivity found of the first `count` SAEs; live features (S, F); logarithms of firing rates if they are known; places of
    the SAEs in this order, which is that of their seeds' numbers)."""
    table = task.table("stability/features")
    crowding = task.table("sensitivity/features", ("crowding",))["crowding"]
    first, order = saes.first(count), np.argsort(saes.seeds[:count])
    by_seed = lambda column, empty: first.by_seed(column, empty)[order]
    cosine_SSF, partner_SSF = (
        np.swapaxes(by_seed(np.stack(list(table[name])), empty)[:, :, order], 1, 2)
        for name, empty in zip(PLACED, (np.nan, -1), strict=True)
    )
    live_SF = by_seed(table["stratum"], "") == reappearance.LIVE
    log_rate_SF = _logarithm(by_seed(table["firing_rate"], 0.0)) if "firing_rate" in table else None
    return References(cosine_SSF, partner_SSF, np.nan_to_num(by_seed(crowding, 0.0))), live_SF, log_rate_SF, order


def _logarithm(rates: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(np.log(rates), transfer.LEAST_LOG_RATE))


def _log_rates_without_parts(task: Task, saes: DictionaryList, count: int, order: np.ndarray) -> list[np.ndarray]:
    """Logarithms of the firing rates (S, F) of the same SAEs in all text but one part, for every part; [] where they are not known."""
    table = task.table("stability/features")
    if "rate_without_parts" not in table:
        return []
    rate_SFP = saes.first(count).by_seed(np.stack(list(table["rate_without_parts"])), 0.0)[order]
    return list(np.moveaxis(_logarithm(rate_SFP), -1, 0))


def _scores(
    task: Task, out: Outputs, labelled_seeds: Seeds, log_rates_without_parts: list[np.ndarray]
) -> tuple[dict[str, Estimate], dict[str, list[Any]]]:
    """With one seed left out at a time, and one part of the text for predictors that ask how often features fire, for the intervals."""
    c, s = task.section(Transfer), len(labelled_seeds.hits_SSF)
    measure = functools.partial(transfer.between_halves, labelled_seeds, task.section(LabelRule).epsilon, c.splits, c.folds, c.features)
    of_parts = []
    with progress.comparing("transfer/classifiers", s + 1 + len(log_rates_without_parts)) as on_fit:
        every = out.part("all seeds", functools.partial(measure, draws=c.draws))
        on_fit()
        leave_one_out = []
        for place in range(s):
            leave_one_out.append(out.part(f"without {place}", functools.partial(measure, excluded_seed=place)))
            on_fit()
        for part, log_rate_SF in enumerate(log_rates_without_parts):
            of_text = functools.partial(
                transfer.between_halves,
                labelled_seeds._replace(log_rate_SF=log_rate_SF),
                *(task.section(LabelRule).epsilon, c.splits, c.folds, c.features),
                only=transfer.OF_TEXT,
            )
            of_parts.append(every | out.part(f"text without part {part}", of_text))
            on_fit()

    get = lambda name, figure: lambda scores: getattr(scores[name], figure) if name in scores else float("nan")

    def knife(figure: Any, null: float | None, lowest: float = 0.0, over_directions: np.ndarray | None = None) -> Estimate:
        """`figure` of the scores by predictor; where the seeds that are left tell nothing the interval is None.

        Args:
          over_directions: the figure with directions drawn anew.
        """
        statistic = lambda weights_S: figure(every if weights_S.all() else leave_one_out[int(np.argmin(weights_S))])
        other = 0.0 if over_directions is None else float(np.nanvar(over_directions, ddof=1))
        rule = task.section(LabelRule)
        documents = [figure(scores) for scores in of_parts]
        return aggregates.jackknifed(
            statistic, s, rule.confidence, null=null, unit="share", bounds=(lowest, 1.0), documents=documents, other_variance=other
        )

    columns: dict[str, list[Any]] = {name: [] for name in ("predictor", "figure", "value", "low", "high", "null")}
    figures: dict[str, Estimate] = {}
    if not every:
        return {
            name: unmeasured(Count(s, "seeds"), "share") for name in ("f1", "auroc", "auroc_excess", "auroc_nearest_neighbour")
        }, columns
    for name in every:
        for figure, null in (("f1", every[PREVALENCE].f1), ("auroc", 0.5)):
            e = knife(get(name, figure), null, over_directions=every[name].auroc_R if figure == "auroc" else None)
            for column, value in zip(columns.values(), (name, figure, e.value, e.low, e.high, e.null), strict=True):
                column.append(value)
            if name == ROWS:
                figures[figure] = e
    best = max((name for name in BASELINES if name in every), key=lambda name: every[name].auroc)
    excess = lambda scores: scores[ROWS].auroc - scores[best].auroc if ROWS in scores else float("nan")
    figures["auroc_excess"] = knife(excess, 0.0, -1.0, every[ROWS].auroc_R - every[best].auroc_R)
    figures["auroc_best_baseline"] = knife(get(best, "auroc"), 0.5, over_directions=every[best].auroc_R)
    figures["auroc_nearest_neighbour"] = knife(get(transfer.NEIGHBOUR, "auroc"), 0.5, over_directions=every[transfer.NEIGHBOUR].auroc_R)
    columns["best_baseline"] = [best == name for name in columns["predictor"]]
    return figures, columns


def calibration_figures(calibration: Calibration, seeds: int) -> dict[str, Estimate]:
    """Without intervals: every SAE is both left out and learned from."""
    n = Count(seeds, "seeds")
    return {
        "brier": Estimate(calibration.brier, None, None, calibration.brier_of_share, n, "squared error"),
        "brier_of_mean": Estimate(calibration.brier_of_mean, None, None, None, n, "squared error"),
        "calibration_error": Estimate(calibration.error, None, None, None, n, "probability"),
    }


def calibration_table(calibration: Calibration) -> dict[str, Any]:
    return {"predicted": calibration.predicted_T, "observed": calibration.observed_T, "features": calibration.features_T}
