"""Headline rows of what features respond to, and claim C3."""

from experiments.reappearance.report import too_little
from reports.claims import Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Results
from reports.text import number, with_interval

ROWS = (
    Row("statistics.surface_auroc", "surface form, unstable against stable", "probability that an unstable feature's firing is more a matter of the token's text than a stable one's, by scores from equally many firings (statistics.firings)"),
    Row("statistics.surface_auroc_within_deciles", "… within deciles of rate", "the same among features that fire about equally often"),
    Row("statistics.surface_stable", "surface form, stable", "share of features with a score of at least statistics.surface; null: firing on random tokens"),
    Row("statistics.surface_unstable", "surface form, unstable", "the same of unstable features"),
    Row("explanations.substring_unstable", "explained by a substring, unstable", "share of explanations that speak of what tokens contain, begin or end with; labels held fixed"),
    Row("explanations.substring_stable", "explained by a substring, stable", "the same of stable features of about the same firing rate"),
    Row("explanations.detection_unstable", "detection, unstable", "balanced accuracy with which the explanation tells on which other tokens the feature fires; labels held fixed"),
    Row("explanations.detection_stable", "detection, stable", "the same of stable features, among as many places of the same tokens"),
)  # fmt: skip


def rows(results: Results) -> tuple[Row, ...]:
    """Headline rows of the room."""
    del results
    return ROWS


def _c3a(results: Results, rules: Claims) -> Evidence | None:
    if "stability" not in results.summary:
        return None
    s = results.summary["stability"]
    if "firing_rate_stable_over_unstable" not in s:
        return Evidence("–", (), "no activations to measure firing on")
    names = [f"{median}firing_rate_stable_over_unstable{rare}" for median in ("", "median_") for rare in ("", "_with_rare")]
    mean, mean_with_rare, median, median_with_rare = (s[name] for name in names)
    figures_text = (
        f"stable features fire on {with_interval(s['firing_rate_stable'])} of tokens, unstable ones on {with_interval(s['firing_rate_unstable'])}: {with_interval(mean)} times as often, "
        f"with rare ones {with_interval(mean_with_rare)}; medians {number(s['median_firing_rate_stable']['value'])} and {number(s['median_firing_rate_unstable']['value'])}: "
        f"{with_interval(median)} times, with rare ones {with_interval(median_with_rare)}"
    )
    parts = (
        Part("means", (mean, mean_with_rare), rules.c3_ratio),  # live features alone leave the rarest out
        Part("medians", (median, median_with_rare), rules.c3_ratio),
    )
    return _evidence(results, rules, figures_text, parts, f"ratios of means and of medians above {rules.c3_ratio}")


def _c3b(results: Results, rules: Claims) -> Evidence | None:
    if "statistics" not in results.summary:
        return None
    s = results.summary["statistics"]
    if "not_measured" in s:
        return Evidence("–", (), s["not_measured"])
    figures_text = (
        f"an unstable feature is more a matter of the token's text than a stable one with probability {with_interval(s['surface_auroc'])}, within deciles of firing rate "
        f"{with_interval(s['surface_auroc_within_deciles'])} (0.5: no more); scores of {s['firings']} firings each, which {with_interval(s['surface_scored_stable'])} of stable and "
        f"{with_interval(s['surface_scored_unstable'])} of unstable features have"
    )
    part = Part("AUROC", (s["surface_auroc"],), rules.c3_surface)
    return _evidence(results, rules, figures_text, (part,), f"AUROC above {rules.c3_surface}")


def _c3c(results: Results, rules: Claims) -> Evidence | None:
    s = results.summary.get("explanations", {})
    if not s.get("asked_a_model"):
        return None
    figures_text = (
        f"by {s['by']} {with_interval(s['substring_unstable'])} of unstable and {with_interval(s['substring_stable'])} of stable features are explained by a substring, difference "
        f"{with_interval(s['substring_difference'])}; explanations tell where they fire with a balanced accuracy of {with_interval(s['detection_unstable'])} and {with_interval(s['detection_stable'])}"
    )
    part = Part("substring", (s["substring_difference"],), rules.c3_substring)
    return _evidence(results, rules, figures_text, (part,), f"difference of shares above {rules.c3_substring}")


def _evidence(results: Results, rules: Claims, figures_text: str, parts: tuple[Part, ...], rule: str) -> Evidence:
    """Of stable and unstable features, of which nothing is said where they are few."""
    stands = lambda sides: "; ".join(f"{name}: {side}" for name, side in sides.items())
    return Evidence(figures_text, parts, too_little(results, rules), lambda holds, sides: f"rule: {rule}; {stands(sides)}")


CLAIMS = (
    Statement("C3a", "Unstable features are rarer (0.18 % of tokens against 0.44 %).", "the stage 'stability' was not asked for", _c3a),
    Statement("C3b", "Unstable features are dominated by surface form.", "the stage 'statistics' was not asked for", _c3b),
    Statement(
        "C3c", "Explanations of unstable features speak of substrings (38.9 % against 11.3 %).",
        "wants a language model that explains: config.explanations.model", _c3c,
    ),
)  # fmt: skip
