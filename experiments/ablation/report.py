"""Headline rows of what features do, and claim C2."""

from experiments.reappearance.report import too_little, under_trained
from reports.claims import Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Results
from reports.text import number, with_interval

ROWS = (
    Row("function.removed_difference", "N stable less 4N unstable removed", "difference of explained variance lost, mean over all choices of N (4: function.ratio); above 0 if the fewer stable features are worth more; null: any live features instead"),
    Row("function.removed_difference_by_the_other_half", "… labelled by the other half", "the same where no seed both labels and is measured"),
    Row("function.removed_difference_refilled", "… removed before the selection", "the same where other features take the places of those removed (topk alone)"),
    Row("function.part_stable", "stable: part of what is explained", "sum of Shapley values of explained variance, exact; parts add up to 1; null: share of live features"),
    Row("function.part_unstable", "unstable: part of what is explained", "the same of unstable features"),
    Row("function.only_stable", "stable alone", "explained variance with only stable features left; null: as many live ones"),
    Row("function.only_unstable", "unstable alone", "the same of unstable features"),
    Row("function.marginal_per_firing_stable_over_unstable", "marginal effect, stable / unstable", "explained variance lost by removing one feature, for each token on which it fires"),
    Row("function.marginal_within_deciles_stable_over_unstable", "… within deciles of rate", "the same among features that fire about equally often"),
    Row("function.matched_frequency_less_unstable", "matched frequency less unstable", "explained variance lost with as many other features of the same firing rates removed, less that of the unstable ones"),
    Row("function.partial_p_per_token", "p̂ and marginal effect, partial", "rank correlation, with firing rate and energy taken out"),
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
    """N stable features are worth more than ratio·N unstable ones, in reconstruction and in prediction, and hold the larger part of what is explained."""
    if "function" not in results.summary:
        return None
    s = results.summary["function"]
    if "not_measured" in s:
        return Evidence("–", (), s["not_measured"])
    if s["removed_difference"]["value"] is None:
        return Evidence("–", (), "too few stable or unstable features to remove")
    spliced = results.summary.get("splice", {"not_measured": "no language model"})
    ratio = s["ratio"]
    figures_text = (
        f"removing N stable ({number(s['stable_removed'])} on average) against {ratio}N unstable features costs {with_interval(s['removed_stable'])} against "
        f"{with_interval(s['removed_unstable'])} of explained variance, difference {with_interval(s['removed_difference'])} (any features: {number(s['removed_difference']['null'])})"
    )
    figures = {"explained variance": s["removed_difference"]}
    if "not_measured" not in spliced:
        figures["cross-entropy"] = spliced["removed_difference"]
        figures_text += (
            f", and {with_interval(spliced['removed_stable'])} against {with_interval(spliced['removed_unstable'])} nats a token, "
            f"difference {with_interval(spliced['removed_difference'])} ({number(spliced['removed_difference']['null'])})"
        )
    figures["part of what is explained"] = s["part_difference"]
    figures_text += (
        f"; stable features hold {with_interval(s['part_stable'])} of what is explained ({number(s['part_stable']['null'])} of the features), "
        f"unstable ones {with_interval(s['part_unstable'])} ({number(s['part_unstable']['null'])})"
    )
    parts = tuple(Part(name, (e,), rules.c2_difference) for name, e in figures.items())
    stands = lambda sides: "; ".join(f"{name}: {side}" for name, side in sides.items())
    where = "" if "cross-entropy" in figures else " (reconstruction alone: no language model)"
    rule = f"rule: all differences, stable less unstable, above {rules.c2_difference}{where}"
    reason = lambda holds, sides: f"{rule}: {stands(sides)}"
    little, trained = too_little(results, rules), under_trained(results, rules)
    if little or not trained:
        return Evidence(figures_text, parts, little, reason)
    return Evidence(
        figures_text,
        parts,
        lambda sides: f"{trained}; as it stands the differences are above {rules.c2_difference}: {stands(sides)}",
        reason,
    )


CLAIMS = (
    Statement(
        "C2", "Stable features carry most of reconstruction and prediction; masking 4N unstable costs less than masking N stable.",
        "the stage 'function' was not asked for", _c2,
    ),
)  # fmt: skip
