"""Headline rows of what features respond to, and claim C3."""

from experiments.reappearance.report import too_little, under_trained
from reports.claims import Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Estimated, Results
from reports.text import with_interval

ROWS = (
    Row("statistics.surface_stable", "surface form, stable", "share of features whose firing is a matter of the token's text: score of at least statistics.surface; null: firing on random tokens"),
    Row("statistics.surface_unstable", "surface form, unstable", "the same of unstable features"),
    Row("statistics.surface_difference", "surface form, unstable less stable", "difference of these shares"),
    Row("statistics.surface_difference_at_equal_frequency", "… at equal firing rate", "unstable features less others of the same firing rates"),
    Row("explanations.substring_unstable", "explained by a substring, unstable", "share of explanations that speak of what tokens contain, begin or end with, or how they are written"),
    Row("explanations.substring_stable", "explained by a substring, stable", "the same of stable features of about the same firing rate"),
    Row("explanations.detection_unstable", "detection, unstable", "balanced accuracy with which the explanation tells on which other tokens the feature fires"),
    Row("explanations.detection_stable", "detection, stable", "the same of stable features"),
)  # fmt: skip


def rows(results: Results) -> tuple[Row, ...]:
    """Headline rows of the room."""
    del results
    return ROWS


def _c3(results: Results, rules: Claims) -> Evidence | None:
    if "stability" not in results.summary:
        return None
    s = results.summary["stability"]
    if "firing_rate_stable_over_unstable" not in s:
        return Evidence("–", (), "no activations to measure firing on")
    ratio, with_rare = s["firing_rate_stable_over_unstable"], s["firing_rate_stable_over_unstable_with_rare"]
    figures_text = f"stable features fire {with_interval(ratio)} times as often as unstable ones, with rare ones {with_interval(with_rare)}"
    forms = results.summary.get("statistics", {"not_measured": "the stage 'statistics' was not asked for"})
    has_forms = "not_measured" not in forms and forms["surface_difference"]["value"] is not None
    if has_forms:
        figures_text += (
            f"; of surface form are {with_interval(forms['surface_unstable'])} of unstable and {with_interval(forms['surface_stable'])} of stable features, difference "
            f"{with_interval(forms['surface_difference'])}, at equal firing rate {with_interval(forms['surface_difference_at_equal_frequency'])}"
        )
    explained = results.summary.get("explanations", {})
    if "substring_difference" in explained:
        judge = "a model" if explained["asked_a_model"] else "rules"
        figures_text += f"; explained by a substring ({judge}): {with_interval(explained['substring_unstable'])} of unstable, {with_interval(explained['substring_stable'])} of stable ones"
    unknown: Estimated = {"value": None, "low": None, "high": None}
    parts = (
        Part("rarer", (ratio, with_rare), rules.c3_ratio),  # live features alone leave the rarest out
        Part("surface", (forms["surface_difference"] if has_forms else unknown,), rules.c3_surface),
    )
    missing = forms.get("not_measured", "no stable or no unstable features")
    why = lambda sides: f"more of them of surface form: {sides['surface']}" if has_forms else missing
    rule = f"rule: rate ratios above {rules.c3_ratio}, difference of surface-form shares above {rules.c3_surface}"
    reason = lambda holds, sides: f"{rule}: rarer: {sides['rarer']}; {why(sides)}"
    little, trained = too_little(results, rules), under_trained(results, rules)
    if little or not trained:
        return Evidence(figures_text, parts, little, reason)
    return Evidence(figures_text, parts, lambda sides: f"{trained}; as it stands, rarer: {sides['rarer']}; {why(sides)}", reason)


CLAIMS = (
    Statement(
        "C3", "Unstable features are rarer (0.18 % of tokens against 0.44 %) and dominated by surface form.",
        "the stage 'stability' was not asked for", _c3,
    ),
)  # fmt: skip
