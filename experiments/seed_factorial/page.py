"""The page of a seed factorial."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from experiments.seed_factorial import arm_charts
from reports import page
from reports.page import StudyFacts
from reports.results import Results
from reports.text import number, with_interval

TEMPLATE = "experiments.seed_factorial:arms.html.jinja"


def write_arms_page(folder: epath.Path, results: Results, seeds: Sequence[int], study: StudyFacts) -> list[epath.Path]:
    """The page of a seed factorial, likewise."""
    rows = [
        {
            "arm": r["arm"],
            "text": with_interval(r),
            "numbers": [number(r[key]) for key in ("null", "mmcs", "explained_variance", "l0", "dead_share")],
            "rise": "–" if r["rise"] is None else with_interval({"value": r["rise"], "low": r["rise_low"], "high": r["rise_high"]}),
            "note": r["note"],
        }
        for r in results.table("arms/arms.parquet")
    ]
    parts = [{"part": r["part"], "text": with_interval(r)} for r in results.table("arms/parts.parquet")]
    figures = arm_charts.all_figures(results)
    transfers = _across_arms(results)
    return page.write(folder, TEMPLATE, figures, study, rows=rows, parts=parts, transfers=transfers, seeds=seeds)


def _across_arms(results: Results) -> list[dict[str, str]]:
    """Classifiers learned from one arm and judged on another, a row per pair."""
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for r in results.table("arms/transfer.parquet"):
        pairs.setdefault((r["trained_on"], r["judged_on"]), {})[r["predictor"]] = r
    return [
        {"trained_on": a, "judged_on": b}
        | {key: f"{number(scores['decoder rows'][key])} ({number(scores['nearest neighbour'][key])})" for key in ("auroc", "f1")}
        | {"prevalence": number(scores["prevalence"]["f1"])}
        for (a, b), scores in pairs.items()
    ]
