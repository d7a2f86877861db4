"""The figures of a grid of worlds: phase diagrams, an example block on its sphere, figures against the number of seeds."""

import collections
from typing import Any

import altair as alt

from reports.chart import Figure, sized, styled
from reports.results import Results

PANELS = {"p": "p̂ at {found:g}", "atoms found": "atoms found", "span overlap, planted": "span overlap with the planted"}
VERDICT_COLOURS = {
    "identified": "#2166ac",
    "reproducible, not the truth": "#92c5de",
    "degenerate tie": "#f4a582",
    "the objective prefers another basis": "#b2182b",
    "optimisation": "#7b3294",
    "undecided": "#bdbdbd",
    "not judged": "#f0f0f0",
}
SPHERE_COLOURS = ["#bdbdbd", "#d6604d", "#2166ac", "#1b7837"]


def all_figures(results: Results, least_cosine: float) -> list[Figure]:
    """`found`: cosine from which an atom counts as found."""
    panels = {key: title.format(found=least_cosine) for key, title in PANELS.items()}
    rows = results.table("verdicts/verdicts.parquet")
    figures = []
    for x, y in _diagrams(rows):
        cells = [r for r in rows if r[x] is not None and r[y] is not None]
        figures += [_phase(cells, x, y, panels), _verdict_map(cells, x, y)]
    if results.has("verdicts/block_3d.parquet"):
        figures.append(_sphere(results.table("verdicts/block_3d.parquet")))
    if results.has("verdicts/seeds.parquet"):
        figures.append(_seeds(results.table("verdicts/seeds.parquet")))
    if not _diagrams(rows):
        figures.insert(0, _cells(rows, panels))
    return figures


def _diagrams(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Pairs of coordinates that cells have, as (x, y); y is the one that more cells have."""
    of_cells = [tuple(name for name in _axes(row) if row[name] is not None) for row in rows]
    count = collections.Counter(name for names in of_cells for name in names)
    pairs = dict.fromkeys(tuple(sorted(names, key=lambda n: (count[n], n))) for names in of_cells if len(names) == 2)
    return [(x, y) for x, y in pairs]


def _axes(row: dict[str, Any]) -> list[str]:
    names = list(row)
    return names[names.index("verdict") + 1 : names.index("latents")]


def _heat(cells: list[dict[str, Any]], x: str, y: str, key: str, title: str) -> alt.LayerChart:
    records = [
        {
            "x": c[x], "y": c[y], "value": c[key], "shown": "–" if c[key] is None else f"{c[key]:.2f}",
            "chance": "" if c[f"{key}, null"] is None else f"chance {c[f'{key}, null']:.2f}",
        }
        for c in cells
    ]  # fmt: skip
    data = alt.Data(values=records)
    base = alt.Chart(data, title=title).encode(
        x=alt.X("x:O", title=x, axis=alt.Axis(labelAngle=0)), y=alt.Y("y:O", title=y, sort="descending")
    )
    colour = alt.Color("value:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1]), title="share", legend=None)
    ink = alt.condition("datum.value == null || datum.value > 0.6", alt.value("black"), alt.value("white"))
    rect = base.mark_rect().encode(color=colour, tooltip=["x:O", "y:O", alt.Tooltip("value:Q", format=".3f"), "chance:N"])
    value = base.mark_text(dy=-5, fontSize=12).encode(text="shown:N", color=ink)
    chance = base.mark_text(dy=8, fontSize=8).encode(text="chance:N", color=ink)
    result: alt.LayerChart = (rect + value + chance).properties(width=240, height=230)
    return result


def _phase(cells: list[dict[str, Any]], x: str, y: str, titles: dict[str, str]) -> Figure:
    panels = [_heat(cells, x, y, key, title) for key, title in titles.items()]
    crowded = [c for c in cells if c["p"] is not None and c["p"] < 0.5]
    spans_found = [c for c in crowded if (c["span overlap, planted"] or 0.0) > 0.9]
    sentence = (
        f"Random starts, means over seeds, with what chance gives in small. In {len(crowded)} of {len(cells)} cells fewer than half of the "
        f"block's latents reappear (p̂ < 0.5); in {len(spans_found)} of these the block's span is found all the same (overlap above 0.9)."
    )
    return Figure(_slug(f"phase {y} {x}"), f"Found as latents, found as a subspace: {y} × {x}", sentence, styled(alt.hconcat(*panels)))


def _verdict_map(cells: list[dict[str, Any]], x: str, y: str) -> Figure:
    present = [v for v in VERDICT_COLOURS if any(c["verdict"] == v for c in cells)]
    records = [{"x": c[x], "y": c[y], "verdict": c["verdict"], "kept": c.get("kept"), "gain": c.get("gain")} for c in cells]
    chart = (
        alt.Chart(alt.Data(values=records))
        .mark_rect(stroke="white")
        .encode(
            x=alt.X("x:O", title=x, axis=alt.Axis(labelAngle=0)),
            y=alt.Y("y:O", title=y, sort="descending"),
            color=alt.Color(
                "verdict:N", scale=alt.Scale(domain=present, range=[VERDICT_COLOURS[v] for v in present]), title="",
                legend=alt.Legend(columns=2),
            ),
            tooltip=["x:O", "y:O", "verdict:N", alt.Tooltip("kept:Q", format=".2f"), alt.Tooltip("gain:Q", format=".4f")],
        )
    )  # fmt: skip
    counts = ", ".join(f"{sum(c['verdict'] == v for c in cells)} {v}" for v in present)
    sentence = f"From SAEs that start at the truth beside those that start at random: {counts}."
    return Figure(_slug(f"verdicts {y} {x}"), f"Why latents differ between seeds: {y} × {x}", sentence, sized(chart))


def _cells(rows: list[dict[str, Any]], titles: dict[str, str]) -> Figure:
    """Without coordinates: every cell a row, latents beside subspace, chance as a tick."""
    records = [
        {"cell": r["cell"], "figure": title, "value": r[key], "low": r[f"{key}, low"], "high": r[f"{key}, high"], "null": r[f"{key}, null"]}
        for r in rows
        for key, title in titles.items()
        if r[key] is not None
    ]
    base = alt.Chart(alt.Data(values=records)).encode(y=alt.Y("cell:N", title=None, sort=[r["cell"] for r in rows]))
    x = alt.X("value:Q", scale=alt.Scale(domain=[0, 1]), title="share")
    dots = base.mark_point(filled=True, size=60).encode(x=x, color=alt.Color("figure:N", title="", scale=alt.Scale(scheme="dark2")))
    bars = base.mark_rule().encode(x="low:Q", x2="high:Q", color="figure:N")
    ticks = base.mark_tick(color="#555", thickness=2).encode(x="null:Q")
    chart = (dots + bars + ticks).properties(width=200, height=24 * len(rows)).facet(column=alt.Column("figure:N", title=None))
    sentence = "Blocks from random starts: as latents, and as a subspace; intervals over seeds, chance as a tick."
    return Figure("cells", "Controls", sentence, styled(chart))


def _sphere(points: list[dict[str, Any]]) -> Figure:
    """Both halves of the unit sphere, seen along its third axis: equal areas stay equal (Lambert)."""
    records = []
    for p in points:
        stretch = (2.0 / (1.0 + abs(p["z"]))) ** 0.5
        half = "upper half" if p["z"] >= 0 else "lower half"
        records.append({"what": p["what"], "half": half, "u": stretch * p["x"], "v": stretch * p["y"]})
    kinds = list(dict.fromkeys(p["what"] for p in points))
    base = alt.Chart(alt.Data(values=records)).mark_point(filled=True, opacity=0.85).encode(
        x=alt.X("u:Q", scale=alt.Scale(domain=[-1.5, 1.5]), title=None, axis=None),
        y=alt.Y("v:Q", scale=alt.Scale(domain=[-1.5, 1.5]), title=None, axis=None),
        color=alt.Color("what:N", scale=alt.Scale(domain=kinds, range=SPHERE_COLOURS[: len(kinds)]), title=""),
        size=alt.condition("datum.what == 'atom'", alt.value(150), alt.value(45)),
        shape=alt.condition("datum.what == 'atom'", alt.value("circle"), alt.value("diamond")),
        tooltip=["what:N"],
    )  # fmt: skip
    chart = base.properties(width=250, height=250).facet(column=alt.Column("half:N", title=None, sort="descending"))
    sentence = (
        f"The block of the cell “{points[0]['cell']}” in its own three dimensions: grey its atoms, coloured what three seeds learned. "
        "Where latents of all colours sit on an atom, it is found."
    )
    return Figure("block_3d", "A block of rank 3", sentence, styled(chart))


def _seeds(rows: list[dict[str, Any]]) -> Figure:
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("seeds:O", title="seeds", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("figure:N", title="", scale=alt.Scale(scheme="dark2")),
    )
    line = base.mark_line(point=True).encode(
        y=alt.Y("value:Q", title="share", scale=alt.Scale(domain=[0, 1])), tooltip=["figure:N", "seeds:Q", "sets:Q", "value:Q"]
    )
    ranges = base.mark_rule().encode(y="lowest:Q", y2="highest:Q")
    sentence = "The reference cell's block, by how many seeds are compared: means and ranges over disjoint sets of seeds. A mean of p̂ should not depend on their number; how many latents count as unstable may."
    return Figure("seeds", "Does it depend on the number of seeds?", sentence, sized(line + ranges))


def _slug(text: str) -> str:
    return "_".join(text.split())
