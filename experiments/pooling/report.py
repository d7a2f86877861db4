"""Claim C6."""

from reports.claims import YES, Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Results
from reports.text import number, with_interval


def rows(results: Results) -> tuple[Row, ...]:
    """None: a study of pools has a table of its own."""
    del results
    return ()


def _c6(results: Results, rules: Claims) -> Evidence | None:
    """The headline pool beside a single SAE, against seeds and pools that had no part in it."""
    if "pooled" not in results.summary:
        return None
    s = results.summary["pooled"]
    if not s["headline_measured"]:
        return Evidence("–", (), f"config.pool.headline={s['headline']!r} was not made")
    pooled, single, less = s["methods"][s["headline"]], s["methods"]["single SAE"], s["less a single SAE"][s["headline"]]
    figures = (
        ("p", "p̂ against fresh seeds", rules.c6_p),
        ("between", "p̂ between disjoint groups", rules.c6_between),
        ("explained", "explained variance", rules.c6_explained),
    )
    parts = [
        f"{label} {with_interval(pooled[name])} against {with_interval(single[name])}, difference {with_interval(less[name])}"
        + (f" (by chance {number(pooled[name]['null'])})" if name != "explained" else "")
        for name, label, _ in figures
    ]
    figures_text = f"{s['headline']}, F = {number(pooled['features']['value'])}, L0 {number(pooled['l0']['value'])}: {'; '.join(parts)}"
    withheld = ""
    if len(s["seeds"]["one"]) < rules.min_seeds:
        withheld = f"{len(s['seeds']['one'])} SAEs in a pool, config.claims.min_seeds={rules.min_seeds}"
    elif pooled["l0"]["value"] > 1.02 * single["l0"]["value"] or pooled["features"]["value"] > single["features"]["value"]:
        withheld = "it has more features, or more of them active, than a single SAE"
    elif any(less[name]["value"] is None for name, _, _ in figures):
        withheld = "none of its features, or of a single SAE's, fires often enough to count"
    elif pooled["p"]["null"] > rules.c1_chance:
        withheld = f"its features reappear by chance more often than {rules.c1_chance}"
    compared = tuple(Part(label, (less[name],), threshold) for name, label, threshold in figures)
    rule = f"rule: intervals of the differences from a single SAE above {rules.c6_p}, {rules.c6_between} and {rules.c6_explained}"
    reason = lambda holds, sides: rule + ("" if holds == YES else f"; {'; '.join(f'{label}: {side}' for label, side in sides.items())}")
    return Evidence(figures_text, compared, withheld, reason, moves=False)


CLAIMS = (
    Statement(
        "C6", "Pooling features over seeds gives a more stable SAE at preserved explained variance.", "wants pools: configs/pool.py", _c6,
    ),
)  # fmt: skip
