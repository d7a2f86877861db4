"""Charts of p̂: how often features reappear, how firm that is over θ and ε beside every null, by what counts as the same, pair by pair, along training."""

import itertools
import math
from typing import Any

import altair as alt

from reports.chart import Figure, banded, data, sized, styled
from reports.results import Results
from reports.text import number, with_interval

MEASURED = "measured"
NULL_DASH = [5, 3]
NULL_COLOURS = ["#969696", "#7b3294", "#1b7837", "#a6761d", "#66a61e", "#e7298a"]
CRITERION_COLOURS = {
    "decoder": "#2166ac",
    "encoder": "#d95f02",
    "decoder and encoder, same partner": "#7570b3",
    "decoder, either sign": "#66a61e",
    "activations": "#e7298a",
}
MOST_SEEDS = 40  # of a heat map that can still be read


MOST_POINTS = 10_000  # of a scatter plot; of more features an even part is shown
LABEL_COLOURS = {"stable": "#2166ac", "intermediate": "#969696", "unstable": "#d6604d", "random": "#4d4d4d"}


def all_figures(results: Results, seeds: tuple[int, ...]) -> list[Figure]:
    """Those whose data a run has."""
    del seeds
    if not results.has("stability/features.parquet"):
        return []
    features = results.table("stability/features.parquet", ("seed", "feature", "p", "comparisons", "label", "stratum", "firing_rate"))
    figures = [_p_histogram(results, features), _match_distribution(results), _over_theta(results), _labels(results)]
    if any(f.get("firing_rate") for f in features):  # a figure of features that fire
        figures.insert(1, _p_against_rate(results, features))
    if results.has("sensitivity/curves.parquet"):
        figures.append(_criteria(results))
    if 2 < len(results.summary["stability"]["seeds"]) <= MOST_SEEDS:
        figures.append(_pairs(results))
    if results.has("stability/tokens_curve.parquet"):
        figures.append(_tokens_curve(results))
    return figures


def label_scale(labels: list[str]) -> alt.Scale:
    """One colour a label, the same in all charts."""
    return alt.Scale(domain=labels, range=[LABEL_COLOURS[x] for x in labels])


def _p_histogram(results: Results, features: list[dict[str, Any]]) -> Figure:
    counts: dict[tuple[float, str], int] = {}
    for f in features:
        key = (round(f["p"], 4), f["stratum"])
        counts[key] = counts.get(key, 0) + 1
    records = [{"p": p, "stratum": stratum, "features": n} for (p, stratum), n in sorted(counts.items())]
    order = ["live", "rare", "dead"]
    chart = (
        alt.Chart(data(records))
        .mark_bar()
        .encode(
            x=alt.X("p:O", title="p̂: share of other seeds in which the feature reappears", axis=alt.Axis(format=".2f", labelAngle=0)),
            y=alt.Y("features:Q", title="features, all seeds"),
            color=alt.Color("stratum:N", scale=alt.Scale(domain=order, range=["#2166ac", "#92c5de", "#bdbdbd"]), title="stratum"),
            order=alt.Order("stratum:N", sort="descending"),
            tooltip=["p:Q", "stratum:N", "features:Q"],
        )
    )
    p = results.figure("stability.mean_p_live")
    sentence = f"A live feature reappears in another seed with probability {with_interval(p)}; under the strongest null it would be {number(p['null'])}."
    if p["value"] is None:
        sentence = "No feature is alive on the held-out tokens, so there is no p̂ of live features."
    return Figure("p_histogram", "How often features reappear", sentence, sized(chart))


def _p_against_rate(results: Results, features: list[dict[str, Any]]) -> Figure:
    alive = [f for f in features if f["firing_rate"] > 0]
    every = max(1, -(-len(alive) // MOST_POINTS))
    alive = alive[::every]
    # Values of p̂ are few: a deterministic jitter (golden ratio) keeps the points apart without moving them to a neighbour.
    step = 1.0 / max(f["comparisons"] for f in features)
    records = [
        {
            "rate": f["firing_rate"],
            "shown": f["p"] + 0.7 * step * (math.modf(i * 0.6180339887)[0] - 0.5),
            "p": f["p"],
            "label": f["label"],
            "seed": f["seed"],
            "feature": f["feature"],
        }
        for i, f in enumerate(alive)
    ]
    points = (
        alt.Chart(data(records))
        .mark_circle(size=14, opacity=0.45)
        .encode(
            x=alt.X(
                "rate:Q",
                scale=alt.Scale(type="log", nice=False, padding=12),
                title="firing rate on held-out tokens",
                axis=alt.Axis(format="~g", tickCount=5),
            ),
            y=alt.Y(
                "shown:Q",
                scale=alt.Scale(domain=[-0.1, 1.1]),
                title="p̂ (jittered)",
                axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f"),
            ),
            color=alt.Color("label:N", scale=label_scale(["stable", "intermediate", "unstable"]), title="label"),
            tooltip=["seed:Q", "feature:Q", alt.Tooltip("p:Q", format=".3f"), alt.Tooltip("rate:Q", format=".2g"), "label:N"],
        )
    )
    ratio = results.figure("stability.firing_rate_stable_over_unstable")
    sentence = f"Stable live features fire {with_interval(ratio)} times as often as unstable ones (1 if label and rate had nothing to do with each other)."
    if every > 1:
        sentence += f" One feature in {every} is drawn."
    return Figure("p_against_rate", "Reappearance against firing rate", sentence, sized(points.interactive()))


def _match_distribution(results: Results) -> Figure:
    theta = results.summary["stability"]["theta"]
    rows = results.table("stability/match_histogram.parquet")
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["kind"]] = totals.get(row["kind"], 0) + row["matches"]
    records = [
        {"cosine": (r["low"] + r["high"]) / 2, "share": r["matches"] / totals[r["kind"]], "kind": r["kind"]}
        for r in rows
        if r["high"] > -0.2
    ]
    lines = (
        alt.Chart(data(records))
        .mark_area(line=True, opacity=0.35, interpolate="step")
        .encode(
            x=alt.X("cosine:Q", title="best signed cosine in another seed", scale=alt.Scale(domain=[-0.2, 1])),
            y=alt.Y("share:Q", title="share of (feature, other seed)", stack=None, axis=alt.Axis(format="%")),
            color=alt.Color("kind:N", scale=alt.Scale(domain=["trained", "rotated (null)"], range=["#2166ac", "#969696"]), title=""),
            tooltip=["kind:N", alt.Tooltip("cosine:Q", format=".2f"), alt.Tooltip("share:Q", format=".2%")],
        )
    )
    rule = alt.Chart(data([{"theta": theta}])).mark_rule(strokeDash=[4, 4], color="#333").encode(x="theta:Q")
    mmcs = results.figure("stability.mmcs")
    sentence = (
        f"The mean best cosine (MMCS) is {with_interval(mmcs)}; under the strongest null it is {number(mmcs['null'])}. "
        f"The dashed line is θ = {theta:g}."
    )
    return Figure("match_distribution", "Best matches in another seed, and by chance", sentence, sized(lines + rule))


def _tokens_curve(results: Results) -> Figure:
    rows = results.table("stability/tokens_curve.parquet")
    trained = [r for r in rows if r["tokens"] > 0]
    x = alt.X("tokens:Q", scale=alt.Scale(type="log", nice=False), title="training tokens per SAE", axis=alt.Axis(format="~s", tickCount=5))
    base = alt.Chart(data(trained))
    band = base.mark_area(opacity=0.25, color="#2166ac").encode(x=x, y=alt.Y("p_low:Q", title="value"), y2="p_high:Q")
    names = {"p": "p̂, all features", "explained_variance": "explained variance", "dead_share": "dead share"}
    records = [{"tokens": r["tokens"], "figure": title, "value": r[key]} for r in trained for key, title in names.items() if key in r]
    lines = (
        alt.Chart(data(records))
        .mark_line(point=True)
        .encode(
            x=x,
            y=alt.Y("value:Q", scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("figure:N", scale=alt.Scale(domain=list(names.values()), range=["#2166ac", "#1b7837", "#969696"]), title=""),
            tooltip=["figure:N", alt.Tooltip("tokens:Q", format=","), alt.Tooltip("value:Q", format=".3f")],
        )
    )
    sentence = "Where p̂ still rises, instability may be under-training; it counts as such only on a plateau."
    if "rise_per_doubling" in results.summary["stability"]:
        sentence = (
            f"At the end p̂ moved by {with_interval(results.figure('stability.rise_per_doubling'))} per doubling of tokens. " + sentence
        )
    return Figure("tokens_curve", "Reappearance against training tokens", sentence, sized(band + lines))


def _theta_axis() -> alt.X:
    return alt.X("theta:Q", title="θ: cosine from which a feature counts as the same", scale=alt.Scale(nice=False))


def _over_theta(results: Results) -> Figure:
    rows = results.table("stability/theta_curve.parquet")
    own_rows = [r for r in rows if r["what"] == MEASURED]
    models = list(dict.fromkeys(r["what"] for r in rows if r["what"] != MEASURED))
    scale = alt.Scale(domain=[MEASURED, *models], range=["#2166ac", *itertools.islice(itertools.cycle(NULL_COLOURS), len(models))])
    y = alt.Y("value:Q", title="mean p̂ of live features", scale=alt.Scale(domain=[0, 1]))
    colour = alt.Color("what:N", scale=scale, title="", legend=alt.Legend(columns=2))
    tip = ["what:N", "theta:Q", alt.Tooltip("value:Q", format=".4f")]
    band = alt.Chart(data(own_rows)).mark_area(opacity=0.25).encode(x=_theta_axis(), y=alt.Y("low:Q", title=""), y2="high:Q", color=colour)
    own = alt.Chart(data(own_rows)).mark_line(point=True).encode(x=_theta_axis(), y=y, color=colour, tooltip=tip)
    nulls = (
        alt.Chart(data([r for r in rows if r["what"] != MEASURED]))
        .mark_line(strokeDash=NULL_DASH)
        .encode(x=_theta_axis(), y=y, color=colour, tooltip=tip)
    )
    theta = results.summary["stability"]["theta"]
    rule = alt.Chart(data([{"theta": theta}])).mark_rule(strokeDash=[4, 4], color="#333").encode(x="theta:Q")
    first, last = own_rows[0], own_rows[-1]
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


def _criteria(results: Results) -> Figure:
    rows = results.table("sensitivity/curves.parquet")
    present = [name for name in CRITERION_COLOURS if any(r["what"] == name for r in rows)]
    base = alt.Chart(data(rows)).encode(
        x=_theta_axis(),
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=present, range=[CRITERION_COLOURS[name] for name in present]),
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
    return Figure("criteria", "What counts as the same feature", sentence, sized(null + lines))


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
    sentence = f"From {_comparison_text(worst)} to {_comparison_text(best)}. " + (
        "Sizes differ, so p̂ has a direction: a small dictionary's features are looked for in a large one, and the reverse."
        if len(set(s["saes"]["sizes"])) > 1
        else "A pair that stands out would be an SAE that trained otherwise than the rest."
    )
    return Figure("pairs", "Pair by pair", sentence, styled(chart.properties(width=300, height=300)))


def _comparison_text(row: dict[str, Any]) -> str:
    return f"{number(row['p'])} (features of {row['anchor']} in {row['other']})"
