"""Figures on what single features respond to: surface form by label, kinds of explanations."""

import altair as alt
import numpy as np

from experiments.ablation.charts import COLOURS
from experiments.interpretation.surface_form import DIFFERENCE
from interpret.explanations import KINDS
from reports.chart import NULL_COLOUR, WIDTH, Figure, data, sized
from reports.results import Results
from reports.text import number, with_interval

BINS = np.linspace(0, 1, 26)
LABELS = ("stable", "intermediate", "unstable")


def all_figures(results: Results, seeds: tuple[int, ...]) -> list[Figure]:
    """Those whose data a run has."""
    del seeds
    figures = []
    if results.has("statistics/features.parquet"):
        figures += [_surface(results), _cutoffs(results)]
    if results.has("explanations/features.parquet"):
        figures.append(_explanations(results))
    return figures


def _surface(results: Results) -> Figure:
    columns = results.columns("statistics/features.parquet", ("label", "stratum", "surface_score", "surface_score_null"))
    live = (columns["stratum"] == "live") & np.isfinite(columns["surface_score"])
    records = []
    series = [(label, columns["surface_score"][live & (columns["label"] == label)]) for label in LABELS]
    series.append(("firing on random tokens (null)", columns["surface_score_null"][live]))
    for name, scores in series:
        counts = np.histogram(scores, BINS)[0] / max(1, len(scores))
        records += [{"score": float(x), "share": float(y), "label": name} for x, y in zip((BINS[1:] + BINS[:-1]) / 2, counts, strict=True)]
    order = [*LABELS, "firing on random tokens (null)"]
    lines = (
        alt.Chart(data(records))
        .mark_line(interpolate="monotone")
        .encode(
            x=alt.X("score:Q", title="surface-form score", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("share:Q", title="share of features", axis=alt.Axis(format="%")),
            color=alt.Color(
                "label:N", scale=alt.Scale(domain=order, range=[*(COLOURS[x] for x in LABELS), "#bdbdbd"]), title="live features"
            ),
            tooltip=["label:N", alt.Tooltip("score:Q", format=".2f"), alt.Tooltip("share:Q", format=".1%")],
        )
    )
    s = results.summary["statistics"]
    sentence = (
        f"From {s['firings']} firings of every feature. 0: firing has nothing to do with the token's text, 1: it is a matter of the text alone. Unstable features score above stable ones with probability "
        f"{with_interval(s['surface_auroc'])} (0.5: as often as not), within deciles of firing rate {with_interval(s['surface_auroc_within_deciles'])}. From all firings: best predictor, F1 {with_interval(s['f1_unstable'])} of unstable and "
        f"{with_interval(s['f1_stable'])} of stable ones (random tokens {number(s['f1_unstable']['null'])}); in shuffled contexts activations fall by {with_interval(s['fall_unstable'])} and {with_interval(s['fall_stable'])}."
    )
    return Figure("surface", "Is it the token's text?", sentence, sized(lines))


def _cutoffs(results: Results) -> Figure:
    rows = [r for r in results.table("statistics/cutoffs.parquet") if r["value"] is not None]
    order = ["stable", "unstable", DIFFERENCE]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("cutoff:Q", title="score from which a feature counts as one of surface form", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("features:N", scale=alt.Scale(domain=order, range=[COLOURS["stable"], COLOURS["unstable"], "#333"]), title=""),
    )
    bands = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    lines = base.mark_line().encode(
        y=alt.Y("value:Q", title="share of features"), tooltip=["features:N", "cutoff:Q", alt.Tooltip("value:Q", format=".3f")]
    )
    zero = alt.Chart(data([{"y": 0.0}])).mark_rule(strokeDash=[4, 4], color=NULL_COLOUR).encode(y="y:Q")
    differences = [r for r in rows if r["features"] == DIFFERENCE and r["low"] is not None]
    higher, lower = (
        [r["cutoff"] for r in differences if sign * r["value"] > 0 and sign * r["low" if sign > 0 else "high"] > 0] for sign in (1, -1)
    )
    says = lambda cuts: f"at {len(cuts)} of {len(differences)} cut-offs" if cuts else "at none"
    sentence = f"A cut-off decides nothing here, since its choice can decide the sign: more unstable features are of surface form {says(higher)}, fewer {says(lower)} (whole intervals)."
    return Figure("cutoffs", "Surface form over cut-offs", sentence, sized(zero + bands + lines))


def _explanations(results: Results) -> Figure:
    s = results.summary["explanations"]
    records = [
        {"kind": kind, "label": label, "share": n / max(1, sum(kinds.values()))}
        for label, kinds in s["kinds"].items()
        for kind, n in kinds.items()
    ]
    bars = (
        alt.Chart(data(records))
        .mark_bar()
        .encode(
            y=alt.Y("kind:N", sort=list(KINDS), title="", axis=alt.Axis(labelLimit=180)),
            yOffset=alt.YOffset("label:N", sort=["stable", "unstable"]),
            x=alt.X("share:Q", title="share of explanations", axis=alt.Axis(format="%")),
            color=alt.Color(
                "label:N", scale=alt.Scale(domain=["stable", "unstable"], range=[COLOURS["stable"], COLOURS["unstable"]]), title=""
            ),
            tooltip=["kind:N", "label:N", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    only = "" if s["asked_a_model"] else " (rules know nothing else)"
    sentence = (
        f"{s['features']} features in pairs of about the same firing rate, explained by {s['by']}, which does not see labels. Of a substring speak {with_interval(s['substring_unstable'])} of the explanations of unstable, "
        f"{with_interval(s['substring_stable'])} of those of stable features; of surface form in any way {with_interval(s['surface_unstable'])} and {with_interval(s['surface_stable'])}{only}. They tell on which other tokens a feature fires with a balanced accuracy of {with_interval(s['detection_unstable'])} and "
        f"{with_interval(s['detection_stable'])} (0.5 by chance; as many places of the same tokens for both). Labels are held fixed."
    )
    return Figure("explanations", "What explanations speak of", sentence, sized(bars, 240, WIDTH - 80))
