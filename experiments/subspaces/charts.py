"""Charts of subspaces: overlap between seeds beside nulls, spectra, principal angles, local subspaces, reasons."""

import math
from typing import Any

import altair as alt

from experiments.reappearance.charts import LABEL_COLOURS, label_scale
from experiments.subspaces.predictors import GAUSSIAN, PCA, RANDOM_PLANE
from experiments.subspaces.report import name_of
from reports.chart import NULL_COLOUR, WIDTH, Figure, banded, data, sized, styled
from reports.results import Results
from reports.text import number, with_interval
from stability.diagnosis import REASONS

SEED_COLOURS = ["#1b9e77", "#d95f02", "#7570b3", "#e7298a"]  # of the seeds whose features are drawn
ARROWS = 14  # features of a seed that are drawn, those that lie most in the two directions
MOST_SEEDS = 24  # of a heat map that can still be read
MOST_ENTRIES = 4  # subspaces with a heat map
REASON_COLOURS = dict(zip(REASONS, ("#bdbdbd", "#92c5de", "#7b3294", "#d6604d", "#4d4d4d"), strict=True))
SETS = ("unstable", "intermediate", "stable", "random")
PREDICTOR_COLOURS = {
    "unstable features of another seed": LABEL_COLOURS["unstable"],
    "stable features of another seed": LABEL_COLOURS["stable"],
    "random features of another seed": LABEL_COLOURS["random"],
    "matched frequency features of another seed": "#e7298a",
    "matched energy features of another seed": "#a6761d",
    PCA: "#7b3294",
    GAUSSIAN: "#1b9e77",
    RANDOM_PLANE: NULL_COLOUR,
}


def all_figures(results: Results, seeds: tuple[int, ...]) -> list[Figure]:
    """Those whose data a run has."""
    del seeds
    figures = []
    if results.has("subspace/overlap.parquet"):
        figures += [
            _over_ranks(results, "overlap", "Overlap of subspaces between seeds"),
            _over_ranks(results, "captured_energy", "Energy of unstable features captured by a plane"),
            _spectra(results),
            _angles(results),
        ]
    return figures + _local(results)


def _local(results: Results) -> list[Figure]:
    figures = []
    if results.has("atlas/entries.parquet"):
        entries = results.table("atlas/entries.parquet")
        if entries:
            figures += [_agreement(results, entries), _against_chance(entries), _view(results, entries)]
    if results.has("diagnosis/features.parquet"):
        figures.append(_reasons(results))
    return figures


def _over_ranks(results: Results, figure: str, title: str) -> Figure:
    rows = [r for r in results.table("subspace/overlap.parquet") if r["figure"] == figure]
    order = [name for name in PREDICTOR_COLOURS if any(r["predictor"] == name for r in rows)]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("rank:Q", scale=alt.Scale(type="log", base=2), title="rank r of the planes"),
        color=alt.Color(
            "predictor:N",
            scale=alt.Scale(domain=order, range=[PREDICTOR_COLOURS[name] for name in order]),
            title="plane from",
            legend=alt.Legend(columns=2),
        ),
    )
    tooltip = ["predictor:N", "rank:Q", *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high"))]
    lines = banded(base, figure.replace("_", " ") + " (share)", tooltip)
    s = results.summary["subspace"]
    own, excess = s[f"{figure}_unstable"], s[f"{figure}_excess"]
    what = "overlap" if figure == "overlap" else "captured energy"
    sentence = (
        f"At r = {s['headline_rank']} the {what} between the unstable features of two seeds is {with_interval(own)}; the strongest null "
        f"({s[f'{figure}_strongest_null']}) reaches {number(own['null'])}, so the excess is {with_interval(excess)}. "
        f"{s['features_against_nulls']} features a set; stable ones, being fewer, {s['features_per_set']}."
    )
    return Figure(figure, title, sentence, sized(lines))


def _spectra(results: Results) -> Figure:
    rows = results.table("subspace/spectra.parquet")
    sums: dict[tuple[str, int], list[float]] = {}
    for r in rows:
        sums.setdefault((r["set"], r["index"]), []).append(r["energy"])
    records = [{"set": s, "index": i, "energy": sum(v) / len(v), "low": min(v), "high": max(v)} for (s, i), v in sums.items()]
    base = alt.Chart(data(records)).encode(
        x=alt.X("index:Q", title="directions, in order of σ"),
        color=alt.Color("set:N", scale=label_scale([s for s in SETS if any(r["set"] == s for r in records)]), title="features"),
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    line = base.mark_line().encode(
        y=alt.Y("energy:Q", title="cumulative share of σ²", scale=alt.Scale(domain=[0, 1])),
        tooltip=["set:N", "index:Q", alt.Tooltip("energy:Q", format=".3f")],
    )
    s = results.summary["subspace"]
    null = "SAEs trained on Gaussian activations" if "effective_rank_gaussian_minus_unstable" in s else "random live features"
    sentence = (
        f"From {s['features_per_set']} features of each set: effective rank / D is {with_interval(s['effective_rank_unstable'])} for unstable, "
        f"{with_interval(s['effective_rank_stable'])} for stable, {number(s['effective_rank_stable']['null'])} for {null}; {s['features_per_set']} rows cannot have more than {number(s['effective_rank_ceiling'])} (bands: range over seeds)."
    )
    return Figure("spectra", "Spectra at equal numbers of features", sentence, sized(band + line))


def _angles(results: Results) -> Figure:
    rows = results.table("subspace/angles.parquet")
    sets = [s for s in SETS if any(r["set"] == s for r in rows)]
    order, colours = [*sets, "random planes (null)"], [*(LABEL_COLOURS[s] for s in sets), NULL_COLOUR]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("index:Q", title="principal angle, in order"),
        color=alt.Color("set:N", scale=alt.Scale(domain=order, range=colours), title="features"),
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    line = base.mark_line(point=True).encode(
        y=alt.Y("angle:Q", title="degrees", scale=alt.Scale(domain=[0, 90])),
        tooltip=["set:N", "index:Q", alt.Tooltip("angle:Q", format=".1f")],
    )
    sentence = (
        f"Angles between the top-{results.summary['subspace']['headline_rank']} planes of two seeds: 0° is a shared direction, "
        "90° one that the other seed lacks (bands: 95 % of pairs, of draws for the null)."
    )
    return Figure("angles", "Principal angles between seeds", sentence, sized(band + line))


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
                {"seed": name, "feature": r["feature"], "x": x, "y": y, "at": place}
                for place, (x, y) in enumerate(((0, 0), (r["x"], r["y"])))
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
