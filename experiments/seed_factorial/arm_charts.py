"""The figure of the seed factorial."""

import altair as alt

from reports.chart import Figure, data, styled
from reports.results import Results
from reports.text import with_interval


def all_figures(results: Results) -> list[Figure]:
    return [_arms(results)]


def _arms(results: Results) -> Figure:
    rows = results.table("arms/arms.parquet")
    base = alt.Chart(data(rows)).encode(y=alt.Y("arm:N", title="what differs", sort=[r["arm"] for r in rows]))
    x = alt.X("value:Q", title="mean p̂ of live features", scale=alt.Scale(domain=[0, 1]))
    tip = ["arm:N", alt.Tooltip("value:Q", format=".3f"), alt.Tooltip("low:Q", format=".3f"), alt.Tooltip("high:Q", format=".3f")]
    dots = base.mark_point(filled=True, size=70, color="#2166ac").encode(x=x, tooltip=tip)
    bars = base.mark_rule(color="#2166ac").encode(x="low:Q", x2="high:Q")
    ticks = base.mark_tick(color="#555", thickness=2).encode(x="null:Q")
    figures_text = ", ".join(f"{r['arm']}: {with_interval(r)}" for r in rows)
    sentence = f"{figures_text}. Grey ticks: chance."
    return Figure(
        "arms",
        "What differs, and how often features reappear",
        sentence,
        styled((bars + ticks + dots).properties(width=450, height=34 * len(rows))),
    )
