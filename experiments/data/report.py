"""What a reader must know of where SAEs are from."""

from reports.claims import Claims, Statement
from reports.headline import Row
from reports.results import Results

CLAIMS: tuple[Statement, ...] = ()


def rows(results: Results) -> tuple[Row, ...]:
    """None."""
    del results
    return ()


def remarks(results: Results, rules: Claims) -> list[str]:
    """What the files of compared SAEs do not tell."""
    del rules
    if results.has("collect/summary.json") and (unknown := results.json("collect/summary.json")["not_compared"]):
        return [f"Whether the SAEs are of the same activations is told by their files alone, and not all of it: {'; '.join(unknown)}."]
    return []
