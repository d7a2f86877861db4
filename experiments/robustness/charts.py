"""What the rules would say by other ways to count features as the same, in one small figure."""

import altair as alt

from reports.chart import Figure, data, styled
from reports.results import Results

COLOURS = {"yes": "#1b7837", "no": "#b2182b", "undecided": "#d9d9d9"}


def all_figures(results: Results, seeds: tuple[int, ...]) -> list[Figure]:
    """Those whose data a run has."""
    del seeds
    return [_verdicts(results)] if results.has("specifications/verdicts.parquet") else []


def _verdicts(results: Results) -> Figure:
    rows = results.table("specifications/verdicts.parquet")
    for row in rows:
        row["specification"] = f"{row['features']}, {row['theta']:g}"
        row["criterion"] = row["criterion"].replace("decoder and encoder, same partner", "both, same partner")
    tiles = (
        alt.Chart(data(rows))
        .mark_rect(stroke="#fff")
        .encode(
            x=alt.X("specification:N", title="", sort=None, axis=alt.Axis(labelAngle=-60)),
            y=alt.Y("claim:N", title=""),
            color=alt.Color("side:N", title="", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))),
            column=alt.Column("criterion:N", title="", sort=None, header=alt.Header(labelLimit=120, labelLineHeight=12)),
            tooltip=["claim:N", "criterion:N", "specification:N", "side:N"],
        )
        .properties(width=70, height=22 * len({row["claim"] for row in rows}))
    )
    s = results.summary["specifications"]
    counts = "; ".join(f"{claim}: " + ", ".join(f"{side} in {n}" for side, n in sides.items()) for claim, sides in s["sides"].items())
    absent = "; ".join(f"{claim}, since {why}" for claim, why in s.get("not_asked", {}).items())
    sentence = f"The same rules for live and all features, θ, and what counts as the same: {s['specifications']} specifications, whatever the plateau (C2: explained variance alone). {counts}."
    sentence += f" Not asked: {absent}." if absent else ""
    return Figure("specifications", "Verdicts by what counts as the same", sentence, styled(tiles))
