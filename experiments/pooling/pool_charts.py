"""Figures on pools: what stability costs, and how it depends on the number of pooled SAEs, on θ and on the number of features."""

import math
from typing import Any

import altair as alt

from reports.chart import WIDTH, Figure, data, styled
from reports.results import Results
from reports.text import number, with_interval

COLOURS = {
    "single SAEs, more or larger ones": "#4d4d4d",
    "pools as they are made": "#2166ac",
    "pools that were trained on": "#1b7837",
    "controls": "#bf812d",
}
LINE = 0.033  # between names, in p̂
OTHERS = ("single SAE", "trained longer", "wider", "bagging")
KINDS = {"pool": "#2166ac", "stable features": "#d6604d"}  # as they are made
TUNED = "#1b7837"
NAMES = {
    "p": "p̂ against fresh seeds",
    "between": "p̂ between pools",
    "explained": "explained variance",
    "features": "features",
}


def all_figures(results: Results) -> list[Figure]:
    curves = results.table("pooled/curves.parquet")
    varied = list(dict.fromkeys(r["over"] for r in curves if r["value"] is not None))
    has_p = any(method["p"]["value"] is not None for method in results.summary["pooled"]["methods"].values())
    return [
        *([_trade_off(results, curves)] if has_p else []),
        *(_curve_figure(results, [r for r in curves if r["over"] == name], name) for name in varied),
    ]


def family(method: str) -> str:
    if method.partition(", ")[0] in OTHERS:
        return "single SAEs, more or larger ones"
    if method.startswith("random pool"):
        return "controls"
    return "pools that were trained on" if ", " in method else "pools as they are made"


def _trade_off(results: Results, curves: list[dict[str, Any]]) -> Figure:
    methods = results.summary["pooled"]["methods"]
    rows = [
        {"method": name, "family": family(name)}
        | {f"{k}_{b}": figures[k][b] for k in ("p", "explained") for b in ("value", "low", "high")}
        | {"between": figures["between"]["value"], "features": figures["features"]["value"], "l0": figures["l0"]["value"]}
        for name, figures in methods.items()
        if figures["p"]["value"] is not None
    ]
    line = [r for kind in _kinds(curves) for r in _over_features(curves, kind)]
    every = [r["explained_value"] for r in (*rows, *line)]
    room = 0.4 * (max(every) - min(every))  # for the names
    scale = alt.Scale(domain=[min(every) - 0.03, max(every) + room], nice=False)
    axis = alt.Axis(values=[tick / 10 for tick in range(math.ceil(10 * min(every)), 11)], titleAnchor="start")
    x = alt.X("explained_value:Q", title="explained variance", scale=scale, axis=axis)
    _spread(rows, max(every) - min(every))
    y = alt.Y("p_value:Q", title="mean p̂ against fresh seeds", scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(data(rows))
    families = alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    colour = alt.Color("family:N", scale=families, title="")
    formatted = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("explained_value", "p_value", "p_low", "p_high", "between")]
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=x, y=y, color=colour, tooltip=["method:N", *formatted, "features:Q", alt.Tooltip("l0:Q", format=".2f")]
    )
    bars = base.mark_rule().encode(x=x, y="p_low:Q", y2="p_high:Q", color=colour)
    name_x = alt.X("name_x:Q", scale=scale, title="explained variance", axis=axis)
    names = base.mark_text(align="left", dx=8, fontSize=10).encode(x=name_x, y="name_at:Q", text="method:N", color=colour)
    lines = base.mark_rule(strokeWidth=0.6, opacity=0.6).encode(x=x, x2="name_x:Q", y=y, y2="name_at:Q", color=colour)
    path = (
        alt.Chart(data(line)).mark_line(opacity=0.4, strokeDash=[4, 3]).encode(x=x, y=y, order="features:Q", detail="kind:N", color=colour)
    )
    sizes = (
        alt.Chart(data(line))
        .mark_text(fontSize=9, dy=10, opacity=0.8)
        .encode(x=x, y=y, text=alt.Text("features:Q", format="d"), color=colour)
    )
    single = methods["single SAE"]
    sentence = (
        f"Top right is best: features that other seeds find too, at more explained variance. A single SAE has p̂ {with_interval(single['p'])} (by chance {number(single['p']['null'])}) at "
        f"{with_interval(single['explained'])} of explained variance. Dashed: {' and '.join(dict.fromkeys(r['kind'] for r in line))}, of other numbers of features. Bagging has as many features and as large an L0 as all its SAEs together."
    )
    chart = styled((path + sizes + lines + bars + points + names).properties(width=WIDTH + 200, height=360))
    return Figure("trade-off", "What stability costs", sentence, chart)


def _kinds(curves: list[dict[str, Any]]) -> dict[str, str]:
    """Of the pools on curves, their colours: those as they are made, then those trained on."""
    return {kind: KINDS.get(kind, TUNED) for kind in (*KINDS, *dict.fromkeys(r["kind"] for r in curves if r["kind"] not in KINDS))}


def _over_features(curves: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Pools of several numbers of features, a row each."""
    points: dict[float, dict[str, Any]] = {}
    for r in curves:
        if r["over"] == "features" and r["kind"] == kind and r["figure"] in ("p", "explained"):
            points.setdefault(r["at"], {"features": int(r["at"]), "kind": kind, "family": family(kind)})[f"{r['figure']}_value"] = r[
                "value"
            ]
    # One of those that are the same pool, since there are no more features to take.
    different = {(r.get("p_value"), r.get("explained_value")): r for r in reversed(points.values())}
    return [r for (p, explained), r in different.items() if p is not None and explained is not None]


def _spread(rows: list[dict[str, Any]], width: float) -> None:
    """Where names stand, `name_x` and `name_at`: of points that lie apart beside them, of the crowd on the right in a column, in the order of p̂.

    Args:
      width: of the picture without the column, in explained variance.
    """
    right = max(r["explained_value"] for r in rows)
    crowd = sorted((r for r in rows if r["explained_value"] > right - 0.2), key=lambda r: r["p_value"])
    for r in rows:
        r["name_x"], r["name_at"] = r["explained_value"], r["p_value"]
    for place, r in enumerate(crowd):
        r["name_x"] = right + 0.04 * width
        if place:
            r["name_at"] = max(r["p_value"], crowd[place - 1]["name_at"] + LINE)
    # As far down as it went up on average, so that names lie about where their points do.
    shift = sum(r["name_at"] - r["p_value"] for r in crowd) / max(1, len(crowd))
    for r in crowd:
        r["name_at"] -= shift


def _curve_figure(results: Results, curves: list[dict[str, Any]], varied: str) -> Figure:
    single = results.summary["pooled"]["methods"]["single SAE"]
    rows = [r | {"figure": NAMES[r["figure"]]} for r in curves if r["figure"] in NAMES and r["value"] is not None]
    rules = [{"figure": NAMES[name], "value": single[name]["value"]} for name in NAMES]
    kinds = {kind: colour for kind, colour in _kinds(curves).items() if any(r["kind"] == kind for r in rows)}
    log = alt.Scale(type="log", base=2) if varied != "θ of the pool" else alt.Scale(zero=False)
    panels = []
    for name in NAMES.values():
        here = [r for r in rows if r["figure"] == name]
        base = alt.Chart(data(here)).encode(
            x=alt.X("at:Q", title=varied, scale=log, axis=alt.Axis(values=sorted({r["at"] for r in here}))),
            color=alt.Color("kind:N", scale=alt.Scale(domain=list(kinds), range=list(kinds.values())), title=""),
        )
        band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
        tip = ["kind:N", "at:Q", *(alt.Tooltip(f"{b}:Q", format=".3f") for b in ("value", "low", "high"))]
        line = base.mark_line(point=True).encode(y=alt.Y("value:Q", title=name, scale=alt.Scale(zero=False)), tooltip=tip)
        rule = alt.Chart(data([r for r in rules if r["figure"] == name])).mark_rule(color="#4d4d4d", strokeDash=[4, 3]).encode(y="value:Q")
        panels.append((band + line + rule).properties(width=260, height=170))
    chart = styled(alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:])))
    as_pooled, fine_tuned = ([kind for kind in kinds if (", " in kind) == is_tuned] for is_tuned in (False, True))
    sentence = f"One thing is varied at a time: {' and '.join(as_pooled)} as they are made" + (
        f"; {fine_tuned[0]}, once a group. " if fine_tuned else ". "
    )
    sentence += "Dashed: a single SAE. Bands: one SAE left out at a time, of the pooled or of those that judge; where pools were trained on once a group, of those that judge alone, and of explained variance t of two groups."
    if varied == "θ of the pool":
        theta = results.summary["pooled"]["theta"]
        sentence += (
            f" All are judged at θ = {theta}: above it a pool may hold several features that are one to its judges, and each counts."
        )
    return Figure(
        f"over-{varied.split()[0].replace('θ', 'theta')}", f"Pools over {varied.replace('of the pool', '').strip()}", sentence, chart
    )
