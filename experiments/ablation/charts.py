"""Figures on what stable and unstable features do: for the reconstruction, for the language model's predictions."""

from typing import Any

import altair as alt

from reports.chart import NULL_COLOUR, WIDTH, Figure, data, sized
from reports.results import Results
from reports.text import number, with_interval

COLOURS = {
    "stable": "#2166ac",
    "intermediate": "#969696",
    "unstable": "#d6604d",
    "random": "#4d4d4d",
    "matched frequency": "#e7298a",
    "matched energy": "#a6761d",
    "latents outside the blocks": "#1b7837",
    "latents in a block": "#7b3294",
}
HOW = {"removed": "after the activation", "refilled": "before the selection"}


def all_figures(results: Results, seeds: tuple[int, ...]) -> list[Figure]:
    """Those whose data a run has."""
    del seeds
    figures = []
    if results.has("function/curves.parquet"):
        figures += [_differences(results), _removal_curves(results), _keeping_curves(results), _parts(results), _deciles(results)]
    if results.has("splice/masks.parquet"):
        figures += [_spliced(results), _removed_from_predictions(results)]
    return figures


def _colour(rows: list[dict[str, Any]]) -> alt.Color:
    order = [name for name in COLOURS if any(r["set"] == name for r in rows)]
    return alt.Color("set:N", scale=alt.Scale(domain=order, range=[COLOURS[name] for name in order]), title="features")


def _tooltip(*names: str) -> list[Any]:
    return [*(f"{n}:N" for n in names), *(alt.Tooltip(f"{n}:Q", format=".3f") for n in ("value", "low", "high"))]


def _curves(rows: list[dict[str, Any]], x_title: str, y_title: str) -> alt.LayerChart:
    """Figures of sets over the number of their features, in the bands of their intervals."""
    base = alt.Chart(data(rows)).encode(x=alt.X("features:Q", scale=alt.Scale(type="log", base=2), title=x_title), color=_colour(rows))
    bands = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    result: alt.LayerChart = bands + base.mark_line(point={"size": 14}).encode(
        y=alt.Y("value:Q", title=y_title), tooltip=["features:Q", *_tooltip("set")]
    )
    return result


def _removal_curves(results: Results) -> Figure:
    rows = [r | {"how": HOW[r["how"]]} for r in results.table("function/curves.parquet") if r["how"] in HOW]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("features:Q", scale=alt.Scale(type="log", base=2), title="features removed"),
        color=_colour(rows),
        strokeDash=alt.StrokeDash(
            "how:N",
            scale=alt.Scale(domain=list(HOW.values()), range=[[1, 0], [5, 4]]),
            title="removed",
            legend=alt.Legend(
                columns=1, symbolType="stroke", symbolStrokeColor="#000", symbolFillColor="#000", symbolStrokeWidth=2, symbolOpacity=1
            ),
        ),
    )
    bands = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=""), y2="high:Q", strokeDash=alt.value([1, 0]))
    lines = base.mark_line(point={"size": 14}).encode(
        y=alt.Y("value:Q", title="explained variance lost"), tooltip=["features:Q", *_tooltip("set", "how")]
    )
    s = results.summary["function"]
    ratio, n = s["ratio"], s["stable_removed"]
    sentence = (
        f"Mean over all choices of so many features of a set, in closed form. {number(n)} stable features cost {with_interval(s['removed_stable'])} of explained variance, {ratio} times as many "
        f"unstable ones {with_interval(s['removed_unstable'])}: difference {with_interval(s['removed_difference'])}, {with_interval(s['removed_difference_by_the_other_half'])} when no seed both labels and is measured "
        f"(any live features instead: {number(s['removed_difference']['null'])}). Unstable features cost {with_interval(s['matched_frequency_less_unstable'])} less than others of their firing rates."
    )
    return Figure("masking", "What removing features costs", sentence, sized(bands + lines, width=WIDTH - 60))


def _differences(results: Results) -> Figure:
    rows = results.table("function/differences.parquet")
    base = alt.Chart(data(rows)).encode(
        x=alt.X("share:Q", title="N, as a share of the most that both sets allow", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("ablation:N", title="replaced by", scale=alt.Scale(range=["#1b7837", "#762a83"])),
    )
    bands = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    lines = base.mark_line(point={"size": 14}).encode(
        y=alt.Y("value:Q", title="explained variance"), tooltip=["share:Q", *_tooltip("ablation")]
    )
    line = alt.Chart(data([{"y": 0.0}])).mark_rule(strokeDash=[4, 4], color=NULL_COLOUR).encode(y="y:Q")
    s = results.summary["function"]
    every = "; ".join(f"{where}: {with_interval(e)}" for where, e in s["removed_differences"].items())
    sentence = f"Explained variance lost with N stable features removed, less that with {s['ratio']}N unstable ones: above 0 the fewer stable features are worth more. Together with 95 % certainty (Bonferroni): {every}."
    return Figure("differences", "N stable against 4N unstable features", sentence, sized(line + bands + lines))


def _removed_from_predictions(results: Results) -> Figure:
    rows = [r for r in results.table("splice/masks.parquet") if (r["how"], r["figure"]) == ("removed", "rise")]
    chart = _curves(rows, "features removed after the activation", "cross-entropy added (nats per token)")
    s = results.summary["splice"]
    sentence = (
        f"One random order of each set, a point where every SAE has so many. Unstable features cost {with_interval(s['matched_frequency_less_unstable'])} nats less than as many others of their "
        f"firing rates, {with_interval(s['matched_energy_less_unstable'])} less than others of their energies."
    )
    return Figure("masking-predictions", "What removing features costs predictions", sentence, sized(chart))


def _keeping_curves(results: Results) -> Figure:
    rows = [r for r in results.table("function/curves.parquet") if r["how"] == "kept"]
    chart = _curves(rows, "features that are left", "explained variance")
    s = results.summary["function"]
    sentence = (
        f"Stable features alone explain {with_interval(s['only_stable'])} of the variance (as many live ones {number(s['only_stable']['null'])}), unstable ones {with_interval(s['only_unstable'])} "
        f"({number(s['only_unstable']['null'])}); with a decoder fitted to them again {with_interval(s['refitted_only_stable'])} and {with_interval(s['refitted_only_unstable'])}."
    )
    return Figure("keeping", "What features explain when nothing else is left", sentence, sized(chart))


def _parts(results: Results) -> Figure:
    """Points with intervals, and a tick at the share of features."""
    s = results.summary["function"]
    rows = [
        {"set": label, **{k: s[f"part_{label}"][k] for k in ("value", "low", "high", "null")}}
        for label in ("stable", "intermediate", "unstable")
    ] + [{"set": name, **{k: e[k] for k in ("value", "low", "high", "null")}} for name, e in s["truth"].items()]
    rows = [r for r in rows if r["value"] is not None]
    base = alt.Chart(data(rows)).encode(y=alt.Y("set:N", sort=list(COLOURS), title="", axis=alt.Axis(labelLimit=180)))
    bars = base.mark_bar(height=16).encode(
        x=alt.X("value:Q", title="part of what is explained; tick: share of live features", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("set:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())), legend=None),
        tooltip=_tooltip("set"),
    )
    rules = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    ticks = base.mark_tick(color="#000", thickness=2, height=24).encode(x="null:Q")
    sentence = (
        f"Shapley values of explained variance, exact, summed over the features of a set. Together stable features are worth {with_interval(s['joint_stable'])} when they are removed, of which {with_interval(s['redundancy_stable'])} "
        f"beyond the sum of what each is worth alone; unstable ones {with_interval(s['joint_unstable'])}, of which {with_interval(s['redundancy_unstable'])}."
    )
    if s["truth"]:
        shares = ", ".join(
            f"{name} {with_interval(e)} (tokens hold {number(e['planted'])} of their atoms)" for name, e in s["truth"].items()
        )
        sentence += f" By what is planted: {shares}."
    return Figure("parts", "Who holds what is explained", sentence, sized(bars + rules + ticks, 40 + 40 * len(rows)))


def _deciles(results: Results) -> Figure:
    rows = [r | {"set": r["label"]} for r in results.table("function/deciles.parquet") if r["value"] is not None]
    base = alt.Chart(data(rows)).encode(
        x=alt.X("decile:O", title="tenth of stable and unstable features by firing rate", axis=alt.Axis(labelAngle=0)), color=_colour(rows)
    )
    rules = base.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q")
    points = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=alt.Y("value:Q", title="marginal effect (explained variance)", axis=alt.Axis(format="~e")),
        tooltip=["features:Q", *_tooltip("set")],
    )
    s = results.summary["function"]
    sentence = (
        f"Removing one stable feature costs {with_interval(s['marginal_per_token_stable_over_unstable'])} times as much as one unstable feature, {with_interval(s['marginal_per_firing_stable_over_unstable'])} times for each token on "
        f"which it fires, and {with_interval(s['marginal_within_deciles_stable_over_unstable'])} times among features that fire about equally often. With firing rate and energy taken out, p̂ goes with "
        f"the marginal effect by rank correlation {with_interval(s['partial_p_per_token'])} a token, {with_interval(s['partial_p_per_firing'])} a firing, with the part of what is explained by {with_interval(s['partial_p_part'])}."
    )
    return Figure("deciles", "Marginal effects at equal firing rate", sentence, sized(rules + points))


def _spliced(results: Results) -> Figure:
    names = {
        ("plain", ""): "the SAE as it is",
        ("without", "stable"): "without stable",
        ("without", "intermediate"): "without intermediate",
        ("without", "unstable"): "without unstable",
        ("only", "stable"): "stable alone",
        ("only as many", "stable"): "as many live as stable",
        ("only", "unstable"): "unstable alone",
        ("only as many", "unstable"): "as many live as unstable",
    }
    table = [r for r in results.table("splice/masks.parquet") if r["figure"] == "recovered"]
    rows = [r | {"what": names[r["how"], r["set"]]} for r in table if (r["how"], r["set"]) in names]
    base = alt.Chart(data(rows)).encode(y=alt.Y("what:N", sort=list(names.values()), title="", axis=alt.Axis(labelLimit=200)))
    rules = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X("value:Q", title="cross-entropy recovered"),
        color=alt.Color(
            "how:N",
            scale=alt.Scale(domain=["plain", "without", "only", "only as many"], range=["#000", "#1b7837", "#7b3294", NULL_COLOUR]),
            legend=None,
        ),
        tooltip=_tooltip("what"),
    )
    s = results.summary["splice"]
    sentence = (
        f"0: zeros in the site's place ({number(s['ce_zero']['value'])} nats a token), 1: the model itself ({number(s['ce_clean']['value'])}); the SAEs reach {with_interval(s['ce_recovered'])}, with KL {with_interval(s['kl'])}. "
        f"Removing N stable features (q = {results.summary['function']['share']:g}) adds {with_interval(s['removed_stable'])} nats, {results.summary['function']['ratio']}N unstable ones {with_interval(s['removed_unstable'])}: difference {with_interval(s['removed_difference'])} "
        f"(any live features: {number(s['removed_difference']['null'])}). One stable feature is worth {with_interval(s['single_per_firing_stable'])} nats where it fires, one unstable {with_interval(s['single_per_firing_unstable'])}. "
        f"{s['tokens']:,} tokens; labels held fixed."
    )
    return Figure("spliced", "What features do for predictions", sentence, sized(rules + points, 230, WIDTH - 80))
