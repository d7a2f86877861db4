"""Headline rows of what is recovered of a world of known atoms, and claim C5."""

from typing import Any

from reports.claims import Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Results
from reports.text import number, with_interval

ROWS = (
    Row("recovery.free, latents: atoms found at {found}", "free atoms found", "atoms in general position that some live latent meets at cosine {found}"),
    Row("recovery.block, latents: atoms found at {found}", "block atoms found", "the same of atoms crowded into the planted block"),
    Row("recovery.free, latents: p̂ at {found}", "p̂ at {found}, free latents", "probability that a latent outside the block has a match at cosine {found} in another seed"),
    Row("recovery.free, latents: PW-MCC", "PW-MCC, free latents", "mean cosine of the latents of two seeds under their one-to-one matching; null: as many random directions"),
    Row("recovery.free, latents: ground-truth MCC", "ground-truth MCC, free atoms", "mean cosine of atoms with latents under their one-to-one matching; null: as many random directions"),
    Row("recovery.block, latents: p̂ at {found}", "p̂ at {found}, block latents", "the same of latents that lie in the block"),
    Row("recovery.block, latents: p̂ at {theta}", "p̂ at {theta}, block latents", "at cosine {theta}"),
    Row("recovery.block, subspace: top plane, overlap between seeds, its unstable latents", "block span, between seeds", "overlap of the top planes of the block's unstable latents (p̂ at {theta} below {unstable_below}), as many dimensions as planted; null: uniform directions that lie in the block by the same rule"),
    Row("recovery.block, subspace: top plane, overlap with the planted one, its unstable latents", "block span, planted", "overlap of that plane with the planted one"),
    Row("recovery.blocks, subspace: top plane, overlap between seeds, unstable latents, chosen without the truth", "unstable span, between seeds", "overlap of the top planes of all unstable latents, as many dimensions as planted; null: random planes, activation PCA"),
    Row("recovery.blocks, subspace: top plane, overlap with the planted one, unstable latents, chosen without the truth", "unstable span, planted", "overlap of that plane with the planted one"),
)  # fmt: skip


def rows(results: Results) -> tuple[Row, ...]:
    """Headline rows of the room; thresholds of a study ({found}, {theta}, …) are its own."""
    place = {name: f"{value:g}" for name, value in results.summary.get("recovery", {}).items() if isinstance(value, float)}
    room_rows = []
    for row in ROWS:
        for name, value in place.items():
            row = Row(*(text.replace(f"{{{name}}}", value) for text in row))
        room_rows.append(row)
    return tuple(room_rows)


def _c5(results: Results, rules: Claims) -> Evidence | None:
    """The span of unstable latents, chosen without the truth, is the planted one in every seed; the blocks' atoms are not found, free ones are."""
    if "recovery" not in results.summary:
        return None
    figures = results.summary["recovery"]
    missing: dict[str, Any] = {"value": None, "low": None, "high": None, "null": 0.0}
    place = lambda start: next((e for key, e in figures.items() if key.startswith(start)), missing)
    names = list(dict.fromkeys(key.split(",")[0] for key in figures if key.startswith("block") and not key.startswith("blocks,")))
    free, blocks = place("free, latents: atoms found at"), [place(f"{name}, latents: atoms found at") for name in names]
    spans = [place(f"blocks, subspace: top plane, overlap {what}") for what in ("between seeds", "with the planted one")]
    needed = [free, *blocks, *spans]
    if not blocks or any(e["value"] is None for e in needed):
        return Evidence("–", (), "the world has no block of lower rank, nothing beside it, or no unstable latents")
    atoms = [f"{name} {with_interval(e)} (chance {number(e['null'])})" for name, e in zip(names, blocks, strict=True)]
    figures_text = (
        f"atoms found: free {with_interval(free)}, {', '.join(atoms)}; top plane of unstable latents, chosen without the truth, overlaps between seeds by "
        f"{with_interval(spans[0])} (strongest null {number(spans[0]['null'])}) and with the planted one by {with_interval(spans[1])} ({number(spans[1]['null'])})"
    )
    seeds, withheld = results.summary["stability"]["seeds"], ""
    if len(seeds) < rules.min_seeds:
        withheld = f"{len(seeds)} seeds, config.claims.min_seeds={rules.min_seeds}"
    elif any(e["null"] > rules.c1_chance for e in blocks):
        withheld = f"atoms of a block are found by chance more often than {rules.c1_chance}"
    parts = [Part("free atoms found", (free,), rules.c5_span)]
    parts += [Part(f"span {i}", (e,), max(rules.c5_span, e["null"])) for i, e in enumerate(spans)]
    parts += [Part(f"{name} found", (e,), rules.c5_found, must_be_below=True) for name, e in zip(names, blocks, strict=True)]
    rule = f"rule: intervals of spans above {rules.c5_span} and their nulls, of free atoms found above {rules.c5_span}, of block atoms found below {rules.c5_found}"
    return Evidence(figures_text, tuple(parts), withheld, lambda holds, sides: rule)


CLAIMS = (
    Statement(
        "C5", "A planted low-rank block is recovered as a subspace and not as individual latents.",
        "wants a world of known atoms: configs/synthetic.py", _c5,
    ),
)  # fmt: skip
