"""Claim C6."""

from typing import Any

from experiments.pooling.methods import LONGER
from experiments.pooling.pools import SINGLE
from experiments.pooling.products import ALL, EXPLAINED, LIVE, LONG, N_LIVE
from reports.claims import YES, Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Results
from reports.text import number, with_interval

LABELS = {ALL: "p̂ between on all features", LIVE: "p̂ between on live ones", EXPLAINED: "explained variance"}


def rows(results: Results) -> tuple[Row, ...]:
    """None: a study of pools has a table of its own."""
    del results
    return ()


def _c6(results: Results, rules: Claims) -> Evidence | None:
    """The headline pool beside the best that its compute buys otherwise, each between independent products of itself."""
    if "pooled" not in results.summary:
        return None
    s = results.summary["pooled"]
    if not s["headline_measured"]:
        return Evidence("–", (), f"config.pool.headline={s['headline']!r} was not made")
    independent = s["independent products"]
    less = {name: independent["less"][name] for name in independent["competitors"] if name in independent["less"]}
    margins = {ALL: rules.c6_p, LIVE: rules.c6_p, EXPLAINED: rules.c6_explained}
    parts = tuple(
        Part(f"{LABELS[figure]} over {name}", (differences[figure],), margin)
        for name, differences in less.items()
        for figure, margin in margins.items()
    )
    rule = (
        f"rule: p̂ between independent pools above that of each competitor at equal compute by {rules.c6_p}, on all features and on live ones, "
        f"and explained variance by {rules.c6_explained}, whole intervals"
    )
    reason = lambda holds, sides: rule + ("" if holds == YES else f"; {'; '.join(f'{label}: {side}' for label, side in sides.items())}")
    return Evidence(_measured(s, less), parts, _withheld(s, less, rules), reason, moves=False)


def _withheld(s: dict[str, Any], less: dict[str, Any], rules: Claims) -> str:
    """Why nothing is decided: all that is missing, or what is wrong with the pool."""
    independent, pooled, single = s["independent products"], s["methods"][s["headline"]], s["methods"][SINGLE]
    counts, spent = independent["products"], independent["tokens"]
    needs = {s["headline"]: ("independent pools", "c6_groups", rules.c6_groups)}
    for name in independent["competitors"]:
        field, least = ("c6_long", rules.c6_long) if name == LONGER else ("c6_groups", rules.c6_groups)
        needs[name] = (f"SAEs {name}" if name == LONGER else name, field, least)
    missing = [
        f"{counts.get(name, 0)} {what}, config.claims.{field}={least}"
        for name, (what, field, least) in needs.items()
        if counts.get(name, 0) < least
    ]
    if len(s["seeds"]["one"]) < rules.min_seeds:
        missing.insert(0, f"{len(s['seeds']['one'])} SAEs in a pool, config.claims.min_seeds={rules.min_seeds}")
    if spent.get(LONGER, spent[s["headline"]]) < spent[s["headline"]]:
        missing.append(
            f"SAEs {LONGER} saw {number(spent[LONGER])} tokens, a pool and its members {number(spent[s['headline']])}: not equal compute"
        )
    if missing:
        return f"too little to compare: {'; '.join(missing)}"
    if pooled["l0"]["value"] > 1.02 * single["l0"]["value"] or pooled["features"]["value"] > single["features"]["value"]:
        return "it has more features, or more of them active, than a single SAE"
    if any(differences[figure]["value"] is None for differences in less.values() for figure in LABELS):
        return "none of its features, or of a competitor's, fires often enough to count"
    nulls = [independent["methods"][s["headline"]][figure]["null"] for figure in (ALL, LIVE)]
    if any(null is not None and null > rules.c1_chance for null in nulls):
        return f"its features reappear by chance more often than {rules.c1_chance}"
    return ""


def _measured(s: dict[str, Any], less: dict[str, Any]) -> str:
    """The headline, its competitors and what is between them, in words."""
    independent, name, fresh = s["independent products"], s["headline"], s["methods"][s["headline"]]
    figures, counts = independent["methods"], independent["products"]
    own = figures[name]
    show = lambda e: f"{with_interval(e)} (by chance {number(e['null'])})" if e["null"] is not None else with_interval(e)
    texts = [
        f"{name}, F = {number(fresh['features']['value'])}, L0 {number(fresh['l0']['value'])}, {counts[name]} pools of {s['group']} SAEs: "
        f"{LABELS[ALL]} {show(own[ALL])}, {LABELS[LIVE]} {show(own[LIVE])} of {number(own[N_LIVE]['value'])}, {LABELS[EXPLAINED]} {with_interval(own[EXPLAINED])}"
    ]
    for other, differences in less.items():
        theirs = figures[other]
        values = ", ".join(f"{with_interval(theirs[figure])} (difference {with_interval(differences[figure])})" for figure in LABELS)
        texts.append(f"{other}, {counts[other]} SAEs: {values}, {number(theirs[N_LIVE]['value'])} live")
    if LONGER in less:
        texts.append(
            f"p̂ against SAEs trained as long {with_interval(own[LONG])} against {with_interval(figures[LONGER][LONG])} of theirs, "
            f"difference {with_interval(less[LONGER][LONG])}"
        )
    return "; ".join(texts)


CLAIMS = (
    Statement(
        "C6", "Pooling features over seeds gives a more stable SAE at preserved explained variance.", "wants pools: configs/pool.py", _c6,
    ),
)  # fmt: skip
