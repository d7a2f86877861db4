"""Figures on how firm p̂ is: over θ and ε beside every null, by what counts as the same, and pair by pair."""

from typing import Any

import altair as alt

from reports.chart import Figure, banded, data, sized, styled
from reports.results import Results
from reports.text import number, with_interval

MEASURED = "measured"
NULL_DASH = [5, 3]
NULL_COLOURS = ["#969696", "#7b3294", "#1b7837", "#a6761d", "#66a61e", "#e7298a"]
NOTION_COLOURS = {
    "decoder": "#2166ac",
    "encoder": "#d95f02",
    "decoder and encoder, same partner": "#7570b3",
    "decoder, either sign": "#66a61e",
    "activations": "#e7298a",
}
MOST_SEEDS = 40  # of a heat map that can still be read


def all_figures(results: Results) -> list[Figure]:
    figures = [_over_theta(results), _labels(results)]
    if results.has("sensitivity/curves.parquet"):
        figures.append(_notions(results))
    if 2 < len(results.summary["stability"]["seeds"]) <= MOST_SEEDS:
        figures.append(_pairs(results))
    return figures


def _theta_axis() -> alt.X:
    return alt.X("theta:Q", title="θ: cosine from which a feature counts as the same", scale=alt.Scale(nice=False))


def _over_theta(results: Results) -> Figure:
    rows = results.table("stability/theta_curve.parquet")
    measured = [r for r in rows if r["what"] == MEASURED]
    models = list(dict.fromkeys(r["what"] for r in rows if r["what"] != MEASURED))
    scale = alt.Scale(domain=[MEASURED, *models], range=["#2166ac", *NULL_COLOURS[: len(models)]])
    y = alt.Y("value:Q", title="mean p̂ of live features", scale=alt.Scale(domain=[0, 1]))
    colour = alt.Color("what:N", scale=scale, title="", legend=alt.Legend(columns=2))
    tip = ["what:N", "theta:Q", alt.Tooltip("value:Q", format=".4f")]
    band = alt.Chart(data(measured)).mark_area(opacity=0.25).encode(x=_theta_axis(), y=alt.Y("low:Q", title=""), y2="high:Q", color=colour)
    own = alt.Chart(data(measured)).mark_line(point=True).encode(x=_theta_axis(), y=y, color=colour, tooltip=tip)
    nulls = (
        alt.Chart(data([r for r in rows if r["what"] != MEASURED]))
        .mark_line(strokeDash=NULL_DASH)
        .encode(x=_theta_axis(), y=y, color=colour, tooltip=tip)
    )
    theta = results.summary["stability"]["theta"]
    rule = alt.Chart(data([{"theta": theta}])).mark_rule(strokeDash=[4, 4], color="#333").encode(x="theta:Q")
    first, last = measured[0], measured[-1]
    sentence = (
        f"From θ = {first['theta']:g} to {last['theta']:g} p̂ falls from {with_interval(first)} to {with_interval(last)}; the strongest null from "
        f"{number(first['null'])} to {number(last['null'])}. Null models are dashed; the rotation in the whitened metric saturates where one direction dominates and is only shown."
    )
    return Figure("theta_curve", "Reappearance over θ, beside every null model", sentence, sized(nulls + band + own + rule))


def _labels(results: Results) -> Figure:
    s = results.summary["stability"]
    rows = [r for r in results.table("stability/labels.parquet") if r["theta"] == s["theta"]]
    rows = list({(r["epsilon"], r["label"]): r for r in rows}.values())
    base = alt.Chart(data(rows)).encode(
        x=alt.X("epsilon:Q", title="ε: stable is p̂ ≥ 1−ε, unstable p̂ ≤ ε", axis=alt.Axis(tickCount=6)),
        color=alt.Color("label:N", scale=alt.Scale(domain=["stable", "unstable"], range=["#2166ac", "#d6604d"]), title="label"),
    )
    tooltip = ["label:N", "epsilon:Q", alt.Tooltip("value:Q", format=".3f"), alt.Tooltip("null:Q", format=".3f")]
    lines = banded(base, "share of live features", tooltip, interpolate="step-after")
    null = base.mark_line(strokeDash=NULL_DASH, opacity=0.7, interpolate="step-after").encode(y="null:Q")
    comparisons = len(s["seeds"]) - 1
    sentence = (
        f"At θ = {s['theta']:g}. With {comparisons} comparisons p̂ moves in steps of {1 / comparisons:.2g}, so labels change only where ε passes one. "
        "Dashed: dictionaries rotated at random."
    )
    return Figure("labels", "Labels over ε", sentence, sized(null + lines))


def _notions(results: Results) -> Figure:
    rows = results.table("sensitivity/curves.parquet")
    present = [name for name in NOTION_COLOURS if any(r["what"] == name for r in rows)]
    base = alt.Chart(data(rows)).encode(
        x=_theta_axis(),
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=present, range=[NOTION_COLOURS[name] for name in present]),
            title="the same by",
            legend=alt.Legend(columns=2),
        ),
    )
    tooltip = ["what:N", "theta:Q", alt.Tooltip("value:Q", format=".3f"), alt.Tooltip("null:Q", format=".4f")]
    lines = banded(base, "mean p̂ of live features", tooltip, opacity=0.15)
    null = base.mark_line(strokeDash=NULL_DASH, opacity=0.7).encode(y="null:Q")
    theta, s = results.summary["stability"]["theta"], results.summary["sensitivity"]
    at_theta = ", ".join(f"{name} {with_interval(s[f'p by {name}'])}" for name in present)
    sentence = (
        f"At θ = {theta:g} p̂ by {at_theta}. One to one instead of many to one, {with_interval(s['shared_one_to_one'])} of live features keep a partner; the sets agree "
        f"by {number(s['agreement_of_matchings']['value'])} (intersection over union). Dashed: rotated dictionaries, for activations shifted tokens."
    )
    return Figure("notions", "What counts as the same feature", sentence, sized(null + lines))


def _pairs(results: Results) -> Figure:
    s = results.summary["stability"]
    names = dict(zip(s["seeds"], s["names"], strict=True))
    rows = [
        r | {"anchor_name": names[r["anchor"]] or "", "other_name": names[r["other"]] or ""}
        for r in results.table("stability/pairs.parquet")
    ]
    chart = (
        alt.Chart(data(rows))
        .mark_rect()
        .encode(
            x=alt.X("other:O", title="looked for in", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("anchor:O", title="features of"),
            color=alt.Color("p:Q", title="mean p̂ of live features", scale=alt.Scale(scheme="viridis")),
            tooltip=[
                "anchor:O",
                "anchor_name:N",
                "other:O",
                "other_name:N",
                "features:Q",
                "features_other:Q",
                alt.Tooltip("p:Q", format=".3f"),
            ],
        )
    )
    ordered = sorted(rows, key=lambda r: r["p"] if r["p"] is not None else 0.0)
    worst, best = ordered[0], ordered[-1]
    sentence = f"From {_told(worst)} to {_told(best)}. " + (
        "Sizes differ, so p̂ has a direction: a small dictionary's features are looked for in a large one, and the reverse."
        if len(set(s["saes"]["sizes"])) > 1
        else "A pair that stands out would be an SAE that trained otherwise than the rest."
    )
    return Figure("pairs", "Pair by pair", sentence, styled(chart.properties(width=300, height=300)))


def _told(row: dict[str, Any]) -> str:
    return f"{number(row['p'])} (features of {row['anchor']} in {row['other']})"
