"""The figures of the page, as Altair charts: interactive there, and the same spec rendered to PNG beside it."""

import math
from typing import Any

import altair as alt

from reports import atlas_figures, feature_figures, function_figures, recovery_figures, stability_figures, transfer_figures
from reports.chart import NULL_COLOUR, WIDTH, Figure, banded, data, sized, styled
from reports.results import Results
from reports.text import number, with_interval

MOST_POINTS = 10_000  # of a scatter plot; of more features an even part is shown
LABEL_COLOURS = {"stable": "#2166ac", "intermediate": "#969696", "unstable": "#d6604d", "random": "#4d4d4d"}
SETS = ("unstable", "intermediate", "stable", "random")
PREDICTOR_COLOURS = {
    "unstable features of another seed": LABEL_COLOURS["unstable"],
    "stable features of another seed": LABEL_COLOURS["stable"],
    "random features of another seed": LABEL_COLOURS["random"],
    "matched frequency features of another seed": "#e7298a",
    "matched energy features of another seed": "#a6761d",
    "activation PCA": "#7b3294",
    "random plane": NULL_COLOUR,
}


def all_figures(results: Results, train_seeds: tuple[int, ...]) -> list[Figure]:
    """Every figure whose data the run has, in the page's order.

    Args:
      train_seeds: columns of the training metrics; empty where the SAEs measured are not those that the workdir's `train` made.
    """
    features = results.table("stability/features.parquet", ("seed", "feature", "p", "comparisons", "label", "stratum", "firing_rate"))
    figures = [
        _p_histogram(results, features),
        _match_distribution(results),
    ]
    if any(f.get("firing_rate") for f in features):  # a figure of features that fire
        figures.insert(1, _p_against_rate(results, features))
    figures += stability_figures.all_figures(results)
    if results.has("stability/tokens_curve.parquet"):
        figures.append(_tokens_curve(results))
    if results.has("subspace/overlap.parquet"):
        figures += [
            _over_ranks(results, "overlap", "Overlap of subspaces between seeds"),
            _over_ranks(results, "captured_energy", "Energy of unstable features captured by a plane"),
            _spectra(results),
            _angles(results),
        ]
    figures += function_figures.all_figures(results) + feature_figures.all_figures(results)
    figures += atlas_figures.all_figures(results) + transfer_figures.all_figures(results)
    if results.has("recovery/recovery.parquet"):
        figures = recovery_figures.all_figures(results) + figures
    if train_seeds and results.has("train/metrics.jsonl"):
        figures.append(_training(results, train_seeds))
    return figures


def _label_scale(labels: list[str]) -> alt.Scale:
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
            color=alt.Color("label:N", scale=_label_scale(["stable", "intermediate", "unstable"]), title="label"),
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
        color=alt.Color("set:N", scale=_label_scale([s for s in SETS if any(r["set"] == s for r in records)]), title="features"),
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    line = base.mark_line().encode(
        y=alt.Y("energy:Q", title="cumulative share of σ²", scale=alt.Scale(domain=[0, 1])),
        tooltip=["set:N", "index:Q", alt.Tooltip("energy:Q", format=".3f")],
    )
    s = results.summary["subspace"]
    sentence = (
        f"From {s['features_per_set']} features of each set: effective rank / D is {with_interval(s['effective_rank_unstable'])} for unstable, "
        f"{with_interval(s['effective_rank_stable'])} for stable, {number(s['effective_rank_stable']['null'])} for random live features; {s['features_per_set']} rows cannot have more than {number(s['effective_rank_ceiling'])} (bands: range over seeds)."
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


def _training(results: Results, seeds: tuple[int, ...]) -> Figure:
    metrics = results.metrics("train")
    every = max(1, len(metrics) // 150)
    panels = {"explained_variance": "explained variance", "loss": "loss", "dead_fraction": "dead share", "l0": "L0"}
    records = [
        {"step": m["step"], "seed": str(seed), "figure": title, "value": m[key][i]}
        for m in metrics[::every]
        for key, title in panels.items()
        for i, seed in enumerate(seeds)
    ]
    scale = {"loss": alt.Scale(type="log"), "L0": alt.Scale(zero=False)}
    charts = [
        alt.Chart(data([r for r in records if r["figure"] == title]))
        .mark_line(opacity=0.7, strokeWidth=1)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("value:Q", title=title, scale=scale.get(title, alt.Scale())),
            color=alt.Color("seed:N", title="seed", sort=[str(s) for s in seeds], legend=alt.Legend(columns=8)),
            tooltip=["seed:N", "step:Q", alt.Tooltip("value:Q", format=".3f")],
        )
        .properties(width=WIDTH // 2 - 35, height=120)
        for title in panels.values()
    ]
    ev = results.figure("stability.explained_variance")
    sentence = f"One line a seed. On held-out tokens the SAEs explain {with_interval(ev)} of the variance (mean over seeds)."
    return Figure("training", "Training of all seeds", sentence, styled((charts[0] | charts[1]) & (charts[2] | charts[3])))
