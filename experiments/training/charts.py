"""Charts of training: loss, explained variance, L0 and dead features of every seed."""

import altair as alt

from reports.chart import WIDTH, Figure, data, styled
from reports.results import Results
from reports.text import with_interval


def all_figures(results: Results, seeds: tuple[int, ...]) -> list[Figure]:
    """Of the seeds that the run trained; () of SAEs from elsewhere."""
    return [_training(results, seeds)] if seeds and results.has("train/metrics.jsonl") else []


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
