"""Figures of one world whose truth is known: latents beside subspace, and the angles of their planes."""

from typing import Any

import altair as alt

from reports.chart import NULL_COLOUR, Figure, data, sized
from reports.results import Results
from reports.text import with_interval

FIGURES = (
    ("latents", "atoms found at {found}"),
    ("latents", "p̂ at {found}"),
    ("latents", "p̂ at {theta}"),
    ("subspace", "top plane, overlap between seeds, all its latents"),
    ("subspace", "top plane, overlap between seeds, its unstable latents"),
    ("subspace", "top plane, overlap with the planted one, its unstable latents"),
    ("subspace", "top plane, overlap between seeds, unstable latents, chosen without the truth"),
    ("subspace", "top plane, overlap with the planted one, unstable latents, chosen without the truth"),
)


def all_figures(results: Results, seeds: tuple[int, ...]) -> list[Figure]:
    """Those whose data a run has."""
    del seeds
    if not results.has("recovery/recovery.parquet"):
        return []
    place = {name: f"{results.summary['recovery'][name]:g}" for name in ("found", "theta")}
    places = [(level, figure.format(**place)) for level, figure in FIGURES]
    figures = [_levels(results.table("recovery/recovery.parquet"), places)]
    spectra, angles = (results.table(f"recovery/{name}.parquet") for name in ("spectra", "angles"))
    return figures + ([_spectra(spectra), _angles(angles)] if angles else [])


def _levels(rows: list[dict[str, Any]], places: list[tuple[str, str]]) -> Figure:
    row_by_place = {(r["group"], r["level"], r["figure"]): r for r in rows}
    groups = list(dict.fromkeys(r["group"] for r in rows))
    present = [row_by_place[group, *place] for group in groups for place in places if (group, *place) in row_by_place]
    records = [r | {"shown": f"{r['level']}: {r['figure']}"} for r in present if r["value"] is not None]
    order = [f"{level}: {figure}" for level, figure in places]
    colour = alt.Color("group:N", scale=alt.Scale(domain=groups, scheme="set1"), title="")
    base = alt.Chart(data(records)).encode(y=alt.Y("shown:N", sort=order, title=None, axis=alt.Axis(labelLimit=420)))
    x = alt.X("value:Q", scale=alt.Scale(domain=[0, 1]), title="share")
    dots = base.mark_point(filled=True, size=70).encode(x=x, color=colour, tooltip=["group:N", "shown:N", "value:Q", "null:Q"])
    bars = base.mark_rule().encode(x="low:Q", x2="high:Q", color=colour)
    ticks = base.mark_tick(thickness=2, size=16, color="#555").encode(x="null:Q")
    atoms = {g: row_by_place[g, *places[0]] for g in groups if (g, *places[0]) in row_by_place}
    sentence = (
        "Atoms found: "
        + ", ".join(f"{g} {with_interval(e)}" for g, e in atoms.items())
        + ". Grey ticks: chance; of a block's own latents, that of directions chosen by the same rule."
    )
    return Figure("recovery", "Found as latents, found as a subspace", sentence, sized((dots + bars + ticks).properties(), 260))


def _angles(rows: list[dict[str, Any]]) -> Figure:
    order = ["two seeds", "a seed and the planted one", "random directions chosen alike and the planted one"]
    records = [r | {"line": f"{r['block']}, {r['planes']}"} for r in rows]
    base = alt.Chart(data(records)).encode(
        x=alt.X("index:Q", title="principal angle, in order"),
        color=alt.Color(
            "planes:N", scale=alt.Scale(domain=order, range=["#d6604d", "#2166ac", NULL_COLOUR]), title="", legend=alt.Legend(columns=1)
        ),
        detail="line:N",
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    line = base.mark_line(point=True).encode(
        y=alt.Y("angle:Q", title="degrees", scale=alt.Scale(domain=[0, 90])),
        tooltip=["line:N", "index:Q", alt.Tooltip("angle:Q", format=".1f")],
    )
    sentence = (
        "Between the planes that a block's live latents span, as many dimensions as were planted (bands: range over seeds, pairs, draws)."
    )
    return Figure("planted_angles", "Principal angles to the planted plane", sentence, sized(band + line))


def _spectra(rows: list[dict[str, Any]]) -> Figure:
    order = ["latents of a seed", "as many atoms", "as many random directions chosen alike"]
    records = [r | {"line": f"{r['block']}, {r['what']}"} for r in rows]
    base = alt.Chart(data(records)).encode(
        x=alt.X("index:Q", title="principal direction, in order"),
        color=alt.Color(
            "what:N", scale=alt.Scale(domain=order, range=["#d6604d", "#2166ac", NULL_COLOUR]), title="", legend=alt.Legend(columns=1)
        ),
        detail="line:N",
    )
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    line = base.mark_line().encode(
        y=alt.Y("share:Q", title="share of squared norm", axis=alt.Axis(format="%")),
        tooltip=["line:N", "index:Q", alt.Tooltip("share:Q", format=".3%")],
    )
    sentence = (
        "How many dimensions a block's live latents fill: their squared norm by principal direction (bands: range over seeds, draws)."
    )
    return Figure("block_spectra", "Spectra of the block's latents", sentence, sized(band + line))
