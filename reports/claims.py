"""The claims C1–C7 of the source paper, each decided by a rule fixed in the config before the run.

A claim is `yes` or `no` only on enough seeds and features, and only if a whole interval lies on one side of the rule's
threshold; else `undecided`.  What no stage measures is `not measured yet`.
"""

from typing import Any, NamedTuple

from reports.results import Results
from reports.text import number, with_interval

YES, NO, UNDECIDED, NOT_MEASURED = "yes", "no", "undecided", "not measured yet"


class Claim(NamedTuple):
    """One row of the claims table."""

    name: str
    paper: str
    measured: str
    holds: str
    because: str


_PAPER = {
    "C1": "A per-feature signal, p̂, separates stable from unstable features.",
    "C2": "Stable features carry most of reconstruction and prediction; masking 4N unstable costs less than masking N stable.",
    "C3": "Unstable features are rarer (0.18 % of tokens against 0.44 %) and dominated by surface form.",
    "C4": "Unstable features concentrate in a reproducible subspace of lower rank (effective rank / D 0.59–0.65 against 0.80–0.81).",
    "C5": "A planted low-rank block is recovered as a subspace and not as individual latents.",
    "C6": "Pooling features over seeds gives a more stable SAE at preserved explained variance.",
    "C7": "Stable and unstable can be told from decoder rows on seeds not trained on (F1 0.67–0.73).",
}


_ELSEWHERE = {
    "C2": "the stage 'function' was not asked for",
    "C4": "the stage 'subspace' was not asked for",
    "C5": "wants a world of known atoms: configs/synthetic.py",
    "C6": "wants pools: configs/pool.py",
    "C7": "the stage 'transfer' was not asked for",
}


def decide(results: Results, rules: Any) -> list[Claim]:
    """All claims in order, from the result files and `config.claims`."""
    decided = {"C1": _c1(results, rules), "C3": _c3(results, rules)}
    if "function" in results.summary:
        decided["C2"] = _c2(results, rules)
    if "subspace" in results.summary:
        decided["C4"] = _c4(results, rules)
    if "transfer" in results.summary:
        decided["C7"] = _c7(results, rules)
    if "recovery" in results.summary:
        decided["C5"] = _c5(results, rules)
    rows = []
    for name, paper in _PAPER.items():
        elsewhere = _ELSEWHERE.get(name, "no stage measures it yet")
        measured, holds, because = decided.get(name, ("–", NOT_MEASURED, elsewhere))
        rows.append(Claim(name, paper, measured, holds, because))
    return rows


def of_pools(results: Results, rules: Any) -> Claim:
    """C6 alone, from the stage `pooled`."""
    return Claim("C6", _PAPER["C6"], *_c6(results, rules))


def as_markdown(claims: list[Claim], on: str) -> str:
    """The table for README, with what it was measured on."""
    lines = ["| claim | the paper says | measured here | on | holds |", "|---|---|---|---|---|"]
    for c in claims:
        where = "–" if c.holds == NOT_MEASURED else on
        lines.append(f"| {c.name} | {c.paper} | {c.measured} | {where} | **{c.holds}**: {c.because} |")
    return "\n".join(lines) + "\n"


def _too_little(results: Results, rules: Any) -> str | None:
    """Why nothing can be decided here, if so."""
    s = results.summary["stability"]
    if len(s["seeds"]) < rules.min_seeds:
        return f"{len(s['seeds'])} seeds, config.claims.min_seeds={rules.min_seeds}"
    for label in ("stable", "unstable"):
        count = s[f"live_{label}_features"]["value"]
        if count < rules.min_features:
            return f"{count} live {label} features in all seeds, config.claims.min_features={rules.min_features}"
    return None


def _under_trained(results: Results, rules: Any) -> str | None:
    """Why nothing can be said of unstable features as such, if so: away from a plateau they may be under-trained."""
    rise = results.rise_per_doubling()
    if rise is None and not results.has("stability/tokens_curve.parquet"):
        return "no dictionaries along training are there, so no plateau can be shown"
    if rise is None:
        return "fewer than two dictionaries along training with p̂ above chance, so no plateau can be shown"
    if not on_plateau(rise, rules):
        return f"p̂ still changes by {with_interval(rise)} per doubling of training tokens (a plateau is an interval within ± config.claims.plateau_rise={rules.plateau_rise})"
    return None


def on_plateau(rise: dict[str, Any], rules: Any) -> bool:
    """Whether the whole interval of the change of p̂ per doubling of training tokens is too small to matter (an equivalence test)."""
    return rise["low"] is not None and -rules.plateau_rise <= rise["low"] and rise["high"] <= rules.plateau_rise


def _side(estimate: dict[str, Any], threshold: float) -> str:
    """YES if the whole interval lies above the threshold, NO if below, else UNDECIDED."""
    if estimate["low"] is None or estimate["high"] is None:
        return UNDECIDED
    return YES if estimate["low"] > threshold else NO if estimate["high"] < threshold else UNDECIDED


def _c1(results: Results, rules: Any) -> tuple[str, str, str]:
    s = results.summary["stability"]
    difference = s["split_half_difference"]
    measured = (
        f"labelled on half of the comparisons, stable features reappear in the other half with p̂ higher by {with_interval(difference)} "
        f"than unstable ones; stable {with_interval(s['stable_share_live'])} of live features, unstable {with_interval(s['unstable_share_live'])}"
    )
    if because := _too_little(results, rules):
        return measured, UNDECIDED, because
    null = s["mean_p_live"]["null"]
    if null >= rules.c1_chance:
        return measured, UNDECIDED, f"chance is {number(null)}, not below {rules.c1_chance}: θ is too low for this width"
    in_span = s["mean_p_unstable"]["null"]
    if in_span is not None and in_span >= rules.c1_chance:
        return (
            measured,
            UNDECIDED,
            f"unstable features match by chance with {number(in_span)} inside their span, not below {rules.c1_chance}: raise θ",
        )
    holds = _side(difference, rules.c1_difference)
    return (
        measured,
        holds,
        f"rule: the interval of the difference above {rules.c1_difference}, chance below {rules.c1_chance}, also inside the unstable span",
    )


def _c2(results: Results, rules: Any) -> tuple[str, str, str]:
    """N stable features are worth more than ratio·N unstable ones, in reconstruction and in prediction, and hold the larger part of what is explained."""
    s = results.summary["function"]
    if "not_measured" in s:
        return "–", UNDECIDED, s["not_measured"]
    if s["removed_difference"]["value"] is None:
        return "–", UNDECIDED, "too few stable or unstable features to remove"
    spliced = results.summary.get("splice", {"not_measured": "no language model"})
    ratio = s["ratio"]
    measured = (
        f"removing N stable ({number(s['stable_removed'])} on average) against {ratio}N unstable features costs {with_interval(s['removed_stable'])} against "
        f"{with_interval(s['removed_unstable'])} of explained variance, difference {with_interval(s['removed_difference'])} (any features: {number(s['removed_difference']['null'])})"
    )
    figures = {"explained variance": s["removed_difference"]}
    if "not_measured" not in spliced:
        figures["cross-entropy"] = spliced["removed_difference"]
        measured += (
            f", and {with_interval(spliced['removed_stable'])} against {with_interval(spliced['removed_unstable'])} nats a token, "
            f"difference {with_interval(spliced['removed_difference'])} ({number(spliced['removed_difference']['null'])})"
        )
    figures["part of what is explained"] = s["part_difference"]
    measured += (
        f"; stable features hold {with_interval(s['part_stable'])} of what is explained ({number(s['part_stable']['null'])} of the features), "
        f"unstable ones {with_interval(s['part_unstable'])} ({number(s['part_unstable']['null'])})"
    )
    if because := _too_little(results, rules):
        return measured, UNDECIDED, because
    sides = {name: _side(e, rules.c2_difference) for name, e in figures.items()}
    as_it_stands = "; ".join(f"{name}: {side}" for name, side in sides.items())
    if because := _under_trained(results, rules):
        return measured, UNDECIDED, f"{because}; as it stands the differences are above {rules.c2_difference}: {as_it_stands}"
    where = "" if "cross-entropy" in figures else " (reconstruction alone: no language model)"
    return (
        measured,
        _joint(list(sides.values())),
        f"rule: all differences, stable less unstable, above {rules.c2_difference}{where}: {as_it_stands}",
    )


def _c3(results: Results, rules: Any) -> tuple[str, str, str]:
    s = results.summary["stability"]
    if "firing_rate_stable_over_unstable" not in s:
        return "–", UNDECIDED, "no activations to measure firing on"
    ratio, with_rare = s["firing_rate_stable_over_unstable"], s["firing_rate_stable_over_unstable_with_rare"]
    measured = f"stable features fire {with_interval(ratio)} times as often as unstable ones, with rare ones {with_interval(with_rare)}"
    forms = results.summary.get("statistics", {"not_measured": "the stage 'statistics' was not asked for"})
    known = "not_measured" not in forms and forms["surface_difference"]["value"] is not None
    if known:
        measured += (
            f"; of surface form are {with_interval(forms['surface_unstable'])} of unstable and {with_interval(forms['surface_stable'])} of stable features, difference "
            f"{with_interval(forms['surface_difference'])}, at equal firing rate {with_interval(forms['surface_difference_at_equal_frequency'])}"
        )
    explained = results.summary.get("explanations", {})
    if "substring_difference" in explained:
        by = "a model" if explained["asked_a_model"] else "rules"
        measured += f"; explained by a substring ({by}): {with_interval(explained['substring_unstable'])} of unstable, {with_interval(explained['substring_stable'])} of stable ones"
    if because := _too_little(results, rules):
        return measured, UNDECIDED, because
    sides = {_side(ratio, rules.c3_ratio), _side(with_rare, rules.c3_ratio)}  # live features alone leave the rarest out
    rarer = sides.pop() if len(sides) == 1 else UNDECIDED
    surface = _side(forms["surface_difference"], rules.c3_surface) if known else UNDECIDED
    why = f"{forms.get('not_measured', 'no stable or no unstable features')}" if not known else f"more of them of surface form: {surface}"
    if because := _under_trained(results, rules):
        return measured, UNDECIDED, f"{because}; as it stands, rarer: {rarer}; {why}"
    rule = f"rule: rate ratios above {rules.c3_ratio}, difference of surface-form shares above {rules.c3_surface}"
    return measured, _joint([rarer, surface]), f"{rule}: rarer: {rarer}; {why}"


def _joint(sides: list[str]) -> str:
    """YES if all are, NO if one is NO, else UNDECIDED."""
    return NO if NO in sides else UNDECIDED if UNDECIDED in sides else YES


def _c4(results: Results, rules: Any) -> tuple[str, str, str]:
    s = results.summary["subspace"]
    if "not_measured" in s:
        return "–", UNDECIDED, s["not_measured"]
    measured = (
        f"top-{s['headline_rank']} planes of unstable features overlap between seeds by {with_interval(s['overlap_unstable'])}, "
        f"{with_interval(s['overlap_excess'])} over the strongest null ({s['overlap_strongest_null']}; n={s['features_against_nulls']}); "
        f"effective rank / D at n={s['features_per_set']} (at most {number(s['effective_rank_ceiling'])}): "
        f"unstable {with_interval(s['effective_rank_unstable'])}, stable {with_interval(s['effective_rank_stable'])}"
    )
    if because := _too_little(results, rules):
        return measured, UNDECIDED, because
    if because := _under_trained(results, rules):
        return measured, UNDECIDED, because
    excess = _side(s["overlap_excess"], rules.c4_excess)
    lower = _side(s["effective_rank_stable_minus_unstable"], 0.0)
    if s["effective_rank_ceiling"] < 1:  # fewer features than dimensions: all sets are near the ceiling
        lower = UNDECIDED
    holds = YES if (excess, lower) == (YES, YES) else NO if NO in (excess, lower) else UNDECIDED
    because = {YES: "both rules met", NO: "not met: ", UNDECIDED: "an interval crosses its threshold: "}[holds]
    if holds != YES:
        parts = {f"overlap over the strongest null above {rules.c4_excess}": excess, "lower effective rank than stable": lower}
        because += "; ".join(f"{name}: {verdict}" for name, verdict in parts.items())
    return measured, holds, because


def _c5(results: Results, rules: Any) -> tuple[str, str, str]:
    """The span of unstable latents, chosen without the truth, is the planted one in every seed; the blocks' atoms are not found, free ones are."""
    found = results.summary["recovery"]
    missing: dict[str, Any] = {"value": None, "low": None, "high": None, "null": 0.0}
    at = lambda start: next((e for key, e in found.items() if key.startswith(start)), missing)
    names = list(dict.fromkeys(key.split(",")[0] for key in found if key.startswith("block") and not key.startswith("blocks,")))
    free, blocks = at("free, latents: atoms found at"), [at(f"{name}, latents: atoms found at") for name in names]
    spans = [at(f"blocks, subspace: top plane, overlap {what}") for what in ("between seeds", "with the planted one")]
    needed = [free, *blocks, *spans]
    if not blocks or any(e["value"] is None for e in needed):
        return "–", UNDECIDED, "the world has no block of lower rank, nothing beside it, or no unstable latents"
    atoms = [f"{name} {with_interval(e)} (chance {number(e['null'])})" for name, e in zip(names, blocks, strict=True)]
    measured = (
        f"atoms found: free {with_interval(free)}, {', '.join(atoms)}; top plane of unstable latents, chosen without the truth, overlaps between seeds by "
        f"{with_interval(spans[0])} (strongest null {number(spans[0]['null'])}) and with the planted one by {with_interval(spans[1])} ({number(spans[1]['null'])})"
    )
    seeds = results.summary["stability"]["seeds"]
    if len(seeds) < rules.min_seeds:
        return measured, UNDECIDED, f"{len(seeds)} seeds, config.claims.min_seeds={rules.min_seeds}"
    if any(e["null"] > rules.c1_chance for e in blocks):
        return measured, UNDECIDED, f"atoms of a block are found by chance more often than {rules.c1_chance}"
    sides = [_side(free, rules.c5_span), *(_side(e, max(rules.c5_span, e["null"])) for e in spans)]
    opposite = {YES: NO, NO: YES, UNDECIDED: UNDECIDED}
    sides += [opposite[_side(e, rules.c5_found)] for e in blocks]
    holds = YES if set(sides) == {YES} else NO if NO in sides else UNDECIDED
    because = f"rule: intervals of spans above {rules.c5_span} and their nulls, of free atoms found above {rules.c5_span}, of block atoms found below {rules.c5_found}"
    # Longer training can find atoms; it is asked for only where their not being found is what the claim rests on.
    if holds == YES and (trained := _under_trained(results, rules)):
        return measured, UNDECIDED, trained
    return measured, holds, because


def _c6(results: Results, rules: Any) -> tuple[str, str, str]:
    """The headline pool beside a single SAE, against seeds and pools that had no part in it."""
    s = results.summary["pooled"]
    if not s["headline_measured"]:
        return "–", UNDECIDED, f"config.pool.headline={s['headline']!r} was not made"
    of, single, less = s["methods"][s["headline"]], s["methods"]["single SAE"], s["less a single SAE"][s["headline"]]
    figures = (
        ("p", "p̂ against fresh seeds", rules.c6_p),
        ("between", "p̂ between disjoint groups", rules.c6_between),
        ("explained", "explained variance", rules.c6_explained),
    )
    parts = [
        f"{called} {with_interval(of[name])} against {with_interval(single[name])}, difference {with_interval(less[name])}"
        + (f" (by chance {number(of[name]['null'])})" if name != "explained" else "")
        for name, called, _ in figures
    ]
    measured = f"{s['headline']}, F = {number(of['features']['value'])}, L0 {number(of['l0']['value'])}: {'; '.join(parts)}"
    if len(s["seeds"]["one"]) < rules.min_seeds:
        return measured, UNDECIDED, f"{len(s['seeds']['one'])} SAEs in a pool, config.claims.min_seeds={rules.min_seeds}"
    if of["l0"]["value"] > 1.02 * single["l0"]["value"] or of["features"]["value"] > single["features"]["value"]:
        return measured, UNDECIDED, "it has more features, or more of them active, than a single SAE"
    if any(less[name]["value"] is None for name, _, _ in figures):
        return measured, UNDECIDED, "none of its features, or of a single SAE's, fires often enough to count"
    if of["p"]["null"] > rules.c1_chance:
        return measured, UNDECIDED, f"its features reappear by chance more often than {rules.c1_chance}"
    sides = {called: _side(less[name], threshold) for name, called, threshold in figures}
    holds = YES if set(sides.values()) == {YES} else NO if NO in sides.values() else UNDECIDED
    rule = f"rule: intervals of the differences from a single SAE above {rules.c6_p}, {rules.c6_between} and {rules.c6_explained}"
    return measured, holds, rule + ("" if holds == YES else f"; {'; '.join(f'{called}: {side}' for called, side in sides.items())}")


def _c7(results: Results, rules: Any) -> tuple[str, str, str]:
    s = results.summary["transfer"]
    if "not_measured" in s:
        return "–", UNDECIDED, s["not_measured"]
    if s["auroc"]["value"] is None:
        return "–", UNDECIDED, "a half of the seeds has no stable or no unstable features"
    measured = (
        f"on the half of the seeds that took no part F1 {with_interval(s['f1'])} (all called unstable: {number(s['f1']['null'])}), AUROC {with_interval(s['auroc'])}, "
        f"{with_interval(s['auroc_excess'])} over crowding or frequency alone; the nearest neighbour: {with_interval(s['auroc_nearest_neighbour'])}"
    )
    if because := _too_little(results, rules):
        return measured, UNDECIDED, because
    holds = _side(s["auroc_excess"], rules.c7_excess)
    because = f"rule: AUROC over the better of crowding and frequency above {rules.c7_excess}"
    if s["auroc_nearest_neighbour"]["value"] >= s["auroc"]["value"]:
        because += "; a nearest neighbour does at least as well, so it may be memory of what recurs"
    return measured, holds, because
