"""Figures on local subspaces, and on why features are unstable."""

import math
from typing import Any

import altair as alt

from reports.chart import NULL_COLOUR, WIDTH, Figure, data, sized, styled
from reports.results import Results
from reports.text import number, with_interval

SEED_COLOURS = ["#1b9e77", "#d95f02", "#7570b3", "#e7298a"]  # of the seeds whose features are drawn
ARROWS = 14  # features of a seed that are drawn, those that lie most in the two directions
MOST_SEEDS = 24  # of a heat map that can still be read
MOST_ENTRIES = 4  # subspaces with a heat map
REASON_COLOURS = {
    "dead": "#bdbdbd",
    "rare or under-trained": "#92c5de",
    "split or absorbed": "#7b3294",
    "basis ambiguity": "#d6604d",
    "unexplained": "#4d4d4d",
}


def all_figures(results: Results) -> list[Figure]:
    figures = []
    if results.has("atlas/entries.parquet"):
        entries = results.table("atlas/entries.parquet")
        if entries:
            figures += [_agreement(results, entries), _against_chance(entries), _view(results, entries)]
    if results.has("diagnosis/features.parquet"):
        figures.append(_reasons(results))
    return figures


def name_of(entry: dict[str, Any]) -> str:
    return f"subspace {entry['entry']} (rank {entry['rank']})"


def _agreement(results: Results, entries: list[dict[str, Any]]) -> Figure:
    names = {e["entry"]: name_of(e) for e in entries[:MOST_ENTRIES]}
    records = [r | {"name": names[r["entry"]]} for r in results.table("atlas/agreement.parquet") if r["entry"] in names]
    seeds = sorted({r["seed"] for r in records})[:MOST_SEEDS]
    records = [r for r in records if r["seed"] in seeds and r["other"] in seeds]
    size = (WIDTH - 60) // 2
    panel = (
        alt.Chart()
        .mark_rect()
        .encode(
            x=alt.X("other:O", title="seed"),
            y=alt.Y("seed:O", title="seed"),
            color=alt.Color("overlap:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1]), title="overlap of spans"),
            tooltip=["seed:O", "other:O", alt.Tooltip("overlap:Q", format=".3f")],
        )
        .properties(width=size, height=size)
    )
    chart = alt.FacetChart(data(records), spec=panel, facet=alt.Facet("name:N", title="", sort=list(names.values())), columns=2)
    span = results.summary["atlas"]["span_agreement"]
    sentence = (
        f"The spans of the features that lie in a subspace overlap between two seeds by {with_interval(span)} (mean over subspaces), by {number(span['null'])} where "
        f"dictionaries are turned against each other and as many features are chosen for lying in one plane."
    )
    if len(entries) > MOST_ENTRIES:
        sentence += f" The {MOST_ENTRIES} of {len(entries)} subspaces with most features."
    return Figure("atlas_agreement", "Local subspaces: agreement of their spans between seeds", sentence, styled(chart))


def _against_chance(entries: list[dict[str, Any]]) -> Figure:
    records = []
    for e in entries:
        span, chance = e["span_agreement"], e["span_agreement_null"]
        records.append({"name": name_of(e), "what": "span, overlap between seeds", "value": span, "null": chance})
        records.append({"name": name_of(e), "what": "features, p̂", "value": e["p"], "null": e["p_by_chance"]})
        if "contribution_agreement" in e and e["contribution_agreement"] is not None:
            own, null = e["contribution_agreement"], e["contribution_agreement_null"]
            records.append({"name": name_of(e), "what": "what they add to a token, cosine", "value": own, "null": null})
    base = alt.Chart(data(records)).encode(
        y=alt.Y("name:N", title="", sort=[name_of(e) for e in entries], axis=alt.Axis(labelLimit=180)), yOffset=alt.YOffset("what:N")
    )
    colours = alt.Scale(
        domain=["span, overlap between seeds", "what they add to a token, cosine", "features, p̂"], range=["#1b7837", "#a6761d", "#d6604d"]
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X("value:Q", scale=alt.Scale(domain=[0, 1]), title="agreement between seeds; tick: by chance"),
        color=alt.Color("what:N", scale=colours, title=""),
        tooltip=["name:N", "what:N", alt.Tooltip("value:Q", format=".3f"), alt.Tooltip("null:Q", format=".3f")],
    )
    ticks = base.mark_tick(color="#333", thickness=2, height=12).encode(x="null:Q")
    sentence = "A subspace that is shared while its basis is not: spans and what their features add together agree between seeds, single features do not. Each beside its chance level."
    return Figure(
        "atlas_chance",
        "Local subspaces: the span agrees, the features do not",
        sentence,
        sized(ticks + points, max(120, 70 * len(entries))),
    )


def _view(results: Results, entries: list[dict[str, Any]]) -> Figure:
    entry = entries[0]
    rows = [r for r in results.table("atlas/features.parquet") if r["entry"] == entry["entry"]]
    seeds = sorted({r["seed"] for r in rows})[: len(SEED_COLOURS)]
    records = []
    for seed in seeds:
        of_seed = sorted((r for r in rows if r["seed"] == seed), key=lambda r: -math.hypot(r["x"], r["y"]))
        for r in of_seed[:ARROWS]:
            name = f"seed {seed}"
            records += [
                {"seed": name, "feature": r["feature"], "x": x, "y": y, "at": at} for at, (x, y) in enumerate(((0, 0), (r["x"], r["y"])))
            ]
    circle = [{"x": math.cos(a), "y": math.sin(a), "at": i} for i, a in enumerate(math.radians(3 * n) for n in range(121))]
    axis = lambda name, title: alt.X(name, scale=alt.Scale(domain=[-1.05, 1.05], nice=False), title=title, axis=alt.Axis(tickCount=5))
    y = alt.Y("y:Q", scale=alt.Scale(domain=[-1.05, 1.05], nice=False), title="second direction", axis=alt.Axis(tickCount=5))
    ring = (
        alt.Chart(data(circle))
        .mark_line(color=NULL_COLOUR, strokeDash=[4, 4])
        .encode(x=axis("x:Q", "leading direction of the subspace"), y=y, order="at:Q")
    )
    colour = alt.Color("seed:N", scale=alt.Scale(domain=[f"seed {s}" for s in seeds], range=SEED_COLOURS[: len(seeds)]), title="")
    base = alt.Chart(data(records)).encode(x="x:Q", y="y:Q", color=colour, tooltip=["seed:N", "feature:Q"])
    lines = base.mark_line(strokeWidth=1.6, opacity=0.8).encode(detail=["seed:N", "feature:N"], order="at:Q")
    tips = base.transform_filter("datum.at == 1").mark_circle(size=34, opacity=0.9)
    sentence = (
        f"{name_of(entry)[0].upper()}{name_of(entry)[1:]}: decoder rows of {len(seeds)} seeds in its two leading directions, the {ARROWS} of each seed that lie most in them; a row wholly in "
        f"the drawn plane would reach the circle. Every seed fills the same plane, with directions of its own."
    )
    return Figure("atlas_view", "Different bases of one space", sentence, sized(ring + lines + tips, WIDTH))


def _reasons(results: Results) -> Figure:
    s = results.summary["diagnosis"]
    records = [
        {"reason": reason, "value": e["value"], "low": e["low"], "high": e["high"], "null": e["null"]}
        for reason in REASON_COLOURS
        if (e := s[reason])["value"] is not None
    ]
    base = alt.Chart(data(records)).encode(y=alt.Y("reason:N", title="", sort=list(REASON_COLOURS), axis=alt.Axis(labelLimit=180)))
    scale = alt.Scale(domain=list(REASON_COLOURS), range=list(REASON_COLOURS.values()))
    bars = base.mark_bar(height=18).encode(
        x=alt.X("value:Q", title="share of unstable features", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        color=alt.Color("reason:N", scale=scale, legend=None),
        tooltip=["reason:N", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high", "null"))],
    )
    whiskers = base.mark_rule(color="#222").encode(x="low:Q", x2="high:Q")
    ticks = base.transform_filter("datum.null != null").mark_tick(color="#222", thickness=2, height=18).encode(x="null:Q")
    sentence = (
        f"The first reason that applies to each of {s['features']:,} unstable features (dead, rare, split or absorbed, basis ambiguity, still moving); dark tick: how often the evidence appears by chance. Split or absorbed: up to three features of another seed "
        "reconstruct it. Basis ambiguity: it lies in a sharply bounded subspace that seeds share."
    )
    if not s["drift_known"]:
        sentence += " Whether features still move is not known: there is no dictionary from half of their training."
    return Figure("diagnosis", "Why unstable features are unstable", sentence, sized(bars + whiskers + ticks, 170))
