"""Figures on whether stability can be told in advance."""

import altair as alt

from reports.chart import WIDTH, Figure, data, sized
from reports.results import Results
from reports.text import number, with_interval

COLOURS = {"f1": "#7570b3", "auroc": "#1b7837"}
NAMES = {"f1": "F1 of unstable", "auroc": "AUROC"}


def all_figures(results: Results, seeds: tuple[int, ...]) -> list[Figure]:
    """Those whose data a run has."""
    del seeds
    figures = []
    if results.has("transfer/scores.parquet") and results.summary["transfer"]["auroc"]["value"] is not None:
        figures.append(_scores(results))
    if results.has("transfer/calibration.parquet") and "brier" in results.summary["transfer"]:
        figures.append(_calibration(results))
    return figures


def _scores(results: Results) -> Figure:
    rows = results.table("transfer/scores.parquet")
    order = list(dict.fromkeys(r["predictor"] for r in rows))
    records = [r | {"what": NAMES[r["figure"]]} for r in rows]
    base = alt.Chart(data(records)).encode(
        y=alt.Y("predictor:N", sort=order, title="", axis=alt.Axis(labelLimit=160)), yOffset=alt.YOffset("what:N")
    )
    colour = alt.Color("what:N", scale=alt.Scale(domain=list(NAMES.values()), range=list(COLOURS.values())), title="")
    rules = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", color=colour)
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X("value:Q", scale=alt.Scale(domain=[0, 1]), title="on seeds and directions that took no part; tick: no knowledge"),
        color=colour,
        tooltip=["predictor:N", "what:N", *(alt.Tooltip(f"{n}:Q", format=".3f") for n in ("value", "low", "high", "null"))],
    )
    ticks = base.mark_tick(color="#333", thickness=2, height=10).encode(x="null:Q")
    s = results.summary["transfer"]
    sentence = (
        f"A logistic regression on decoder rows, trained and labelled on half of the seeds, tells unstable from stable features of the other half with F1 {with_interval(s['f1'])} "
        f"(all called unstable: {number(s['f1']['null'])}) and AUROC {with_interval(s['auroc'])}. Directions that recur in several seeds are held out whole, so that none is known by heart."
    )
    return Figure("transfer", "Can stability be told from decoder rows?", sentence, sized(ticks + rules + points, 230, WIDTH - 110))


def _calibration(results: Results) -> Figure:
    rows = results.table("transfer/calibration.parquet")
    diagonal = alt.Chart(data([{"p": 0.0}, {"p": 1.0}])).mark_line(color="#969696", strokeDash=[4, 4]).encode(x="p:Q", y="p:Q")
    points = (
        alt.Chart(data(rows))
        .mark_line(point=True, color="#2166ac")
        .encode(
            x=alt.X("predicted:Q", title="predicted p̂", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("observed:Q", title="share that reappeared", scale=alt.Scale(domain=[0, 1])),
            tooltip=[alt.Tooltip("predicted:Q", format=".3f"), alt.Tooltip("observed:Q", format=".3f"), "features:Q"],
        )
    )
    s = results.summary["transfer"]
    sentence = (
        f"Predicted for SAEs that were left out, from all others but one, and held against that one, a tenth of the features a point. Brier score {number(s['brier']['value'])}; the share found as it is: "
        f"{number(s['brier']['null'])}; the mean of all: {number(s['brier_of_mean']['value'])}. Expected calibration error {number(s['calibration_error']['value'])}."
    )
    return Figure("calibration", "Is the predicted p̂ right?", sentence, sized(diagonal + points))
