"""Headline rows of what features do, and claim C2."""

from collections.abc import Mapping
from typing import Any

from experiments.reappearance.report import too_little
from reports.claims import Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Results
from reports.text import number, with_interval

ROWS = (
    Row("function.removed_difference", "N stable less 4N unstable removed", "difference of explained variance lost, mean over all choices of N, which is a quarter of the most (function.shares, function.ratio); above 0 if the fewer stable features are worth more; null: any live features instead"),
    Row("function.removed_difference_by_the_other_half", "… labelled by the other half", "the same where no seed both labels and is measured"),
    Row("function.removed_difference_refilled", "… removed before the selection", "the same where other features take the places of those removed (topk alone)"),
    Row("function.part_stable", "stable: part of what is explained", "sum of Shapley values of explained variance, exact; parts add up to 1; null: share of live features"),
    Row("function.part_unstable", "unstable: part of what is explained", "the same of unstable features"),
    Row("function.only_stable", "stable alone", "explained variance with only stable features left; null: as many live ones"),
    Row("function.only_unstable", "unstable alone", "the same of unstable features"),
    Row("function.marginal_per_firing_stable_over_unstable", "marginal effect, stable / unstable", "explained variance lost by removing one feature, for each token on which it fires"),
    Row("function.marginal_within_deciles_stable_over_unstable", "… within deciles of rate", "the same among features that fire about equally often"),
    Row("function.matched_frequency_less_unstable", "matched frequency less unstable", "explained variance lost with as many other features of the same firing rates removed, less that of the unstable ones"),
    Row("function.partial_p_per_token", "p̂ and marginal effect, partial", "rank correlation, with firing rate and energy taken out; effect per token"),
    Row("function.partial_p_per_firing", "… per firing", "the same of the effect for each token on which a feature fires"),
    Row("function.partial_p_part", "p̂ and part of what is explained, partial", "the same of Shapley values"),
    Row("splice.ce_recovered", "CE recovered", "(CE with zeros − CE with reconstructions) / (CE with zeros − CE of the model), at spliced positions"),
    Row("splice.removed_difference", "N stable less 4N unstable, CE", "difference of cross-entropy gained, above 0 if the fewer stable features are worth more to predictions; null: any live features instead"),
    Row("splice.removed_difference_by_the_other_half", "… labelled by the other half, CE", "the same where no seed both labels and is measured"),
    Row("splice.matched_frequency_less_unstable", "matched frequency less unstable, CE", "cross-entropy gained with as many other features of the same firing rates removed, less that of the unstable ones"),
    Row("splice.single_per_firing_stable", "a stable feature removed, CE", "nats for each token on which it fires; of a sample of features"),
    Row("splice.single_per_firing_unstable", "an unstable feature removed, CE", "the same"),
)  # fmt: skip


def rows(results: Results) -> tuple[Row, ...]:
    """Headline rows of the room."""
    del results
    return ROWS


def _c2(results: Results, rules: Claims) -> Evidence | None:
    """N stable features are worth more than ratio·N unstable ones, in reconstruction and in prediction, however many and however they are removed,
    and hold the larger part of what is explained."""
    if "function" not in results.summary:
        return None
    s = results.summary["function"]
    if "not_measured" in s:
        return Evidence("–", (), s["not_measured"])
    if missing := [where for where, e in s["removed_differences"].items() if e["value"] is None]:
        return Evidence("–", (), f"too few stable or unstable features to remove at {missing[0]}")
    spliced = results.summary.get("splice", {"not_measured": "no language model"})
    sections = {"explained variance": s} | ({} if "not_measured" in spliced else {"cross-entropy": spliced})
    parts = [
        Part(f"{name}, {where}", (e,), rules.c2_difference)
        for name, section in sections.items()
        for where, e in section["removed_differences"].items()
    ]
    parts.append(Part("part of what is explained", (s["part_difference"],), rules.c2_difference))
    figures = [_removal(section, name, s) for name, section in sections.items()]
    figures += [
        f"stable features hold {with_interval(s['part_stable'])} of what is explained ({number(s['part_stable']['null'])} of the features), "
        f"unstable ones {with_interval(s['part_unstable'])} ({number(s['part_unstable']['null'])})",
        f"with firing rate and energy taken out, p̂ goes with the marginal effect by {with_interval(s['partial_p_per_token'])} a token and "
        f"{with_interval(s['partial_p_per_firing'])} a firing, with the part of what is explained by {with_interval(s['partial_p_part'])} (rank correlations)",
    ]
    where = "" if "cross-entropy" in sections else " (reconstruction alone: no language model)"
    rule = f"rule: all differences, stable less unstable, above {rules.c2_difference}{where}"
    reason = lambda holds, sides: f"{rule}: {_stands(sides)}"
    return Evidence("; ".join(figures), tuple(parts), too_little(results, rules), reason)


def _removal(section: Mapping[str, Any], name: str, function: Mapping[str, Any]) -> str:
    """What is lost, at one share and over all shares and ablations."""
    every = section["removed_differences"]
    unit = "of explained variance" if name == "explained variance" else "nats a token"
    first = (
        f"removing N stable ({number(function['stable_removed'])} on average) against {function['ratio']}N unstable features costs "
        if section is function
        else ""
    )
    weakest = min(every, key=lambda where: -1e9 if every[where]["low"] is None else every[where]["low"])
    return (
        f"{first}{with_interval(section['removed_stable'])} against {with_interval(section['removed_unstable'])} {unit}, difference "
        f"{with_interval(section['removed_difference'])} (any features: {number(section['removed_difference']['null'])}), the lowest of {len(every)} at "
        f"{weakest}: {with_interval(every[weakest])}"
    )


def _stands(sides: Mapping[str, str]) -> str:
    """Sides of the parts, those of one figure together."""
    figures: dict[str, dict[str, list[str]]] = {}
    for name, side in sides.items():
        figure, _, where = name.partition(", ")
        figures.setdefault(figure, {}).setdefault(side, []).append(where)
    places_text = lambda by_side: ", ".join(f"{side} at {' and '.join(places)}" for side, places in by_side.items())
    return "; ".join(
        f"{figure}: {next(iter(by_side)) if len(by_side) == 1 else places_text(by_side)}" for figure, by_side in figures.items()
    )


CLAIMS = (
    Statement(
        "C2", "Stable features carry most of reconstruction and prediction; masking 4N unstable costs less than masking N stable.",
        "the stage 'function' was not asked for", _c2,
    ),
)  # fmt: skip
