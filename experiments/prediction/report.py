"""Headline rows of classifiers and predictions across seeds, and claim C7."""

from experiments.reappearance.report import too_little
from reports.claims import Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Results
from reports.text import number, with_interval

ROWS = (
    Row("transfer.f1", "transfer, F1", "of the class unstable by a logistic regression on decoder rows, on seeds and directions that took no part; null: all called unstable"),
    Row("transfer.auroc", "transfer, AUROC", "of the same"),
    Row("transfer.auroc_excess", "transfer, over baselines", "AUROC less that of the best of frequency, crowding, both, and the nearest neighbour"),
    Row("transfer.brier", "predicted p̂, Brier", "squared error of p̂ predicted for SAEs that were left out; null: the share of the others in which a feature is found"),
)  # fmt: skip


def rows(results: Results) -> tuple[Row, ...]:
    """Headline rows of the room."""
    del results
    return ROWS


def _c7(results: Results, rules: Claims) -> Evidence | None:
    if "transfer" not in results.summary:
        return None
    s = results.summary["transfer"]
    if "not_measured" in s:
        return Evidence("–", (), s["not_measured"])
    if s["auroc"]["value"] is None:
        return Evidence("–", (), "a half of the seeds has no stable or no unstable features")
    figures_text = (
        f"on seeds and directions that took no part F1 {with_interval(s['f1'])} (all called unstable: {number(s['f1']['null'])}), AUROC {with_interval(s['auroc'])}, "
        f"{with_interval(s['auroc_excess'])} over the best baseline, of {with_interval(s['auroc_best_baseline'])} (frequency, crowding, both, nearest neighbour; "
        f"{s['directions']:,} directions, the largest of {s['features in the largest direction']} features)"
    )
    part = Part("excess", (s["auroc_excess"],), rules.c7_excess)
    rule = f"rule: AUROC of decoder rows over the best baseline above {rules.c7_excess}"
    return Evidence(figures_text, (part,), too_little(results, rules), lambda holds, sides: f"{rule}: {sides['excess']}")


CLAIMS = (
    Statement(
        "C7", "Stable and unstable can be told from decoder rows on seeds not trained on (F1 0.67–0.73).",
        "the stage 'transfer' was not asked for", _c7,
    ),
)  # fmt: skip
