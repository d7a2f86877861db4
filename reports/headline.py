"""The short table that ends a run."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reports.results import Results
from reports.text import number, with_interval


class Row(NamedTuple):
    """A headline figure: its path in the summary, its name, and the sentence that says what it means."""

    path: str
    name: str
    meaning: str


def measured_rows(results: Results, rows: Iterable[Row]) -> list[Row]:
    """Those whose figures a run has."""
    return [row for row in rows if row.path.split(".", 1)[1] in results.summary.get(row.path.split(".", 1)[0], {})]


def show(results: Results, rows: Iterable[Row], remarks: Iterable[str]) -> None:
    """Prints the figures that the stages made, what a reader must know first, and the page's path."""
    table = [("", "value [interval]", "null")]
    for row in measured_rows(results, rows):
        estimate = results.figure(row.path)
        table.append((row.name, with_interval(estimate), number(estimate["null"])))
    columns(table)
    for sentence in remarks:
        print(sentence)
    show_page(results)


def show_page(results: Results) -> None:
    """Prints where the page is, and which figures are newer than it."""
    if not results.has("report/index.html"):
        return
    page = results.workdir / "report" / "index.html"
    summaries = {stage: results.workdir / stage / "summary.json" for stage in results.summary if stage != "report"}
    newer = [stage for stage, path in summaries.items() if path.stat().mtime > page.stat().mtime]
    note = f", older than {', '.join(newer)}: run the stage 'report' too" if newer else ""
    print(f"\nreport: {page}{note}")


def columns(table: Sequence[Sequence[str]]) -> None:
    """Prints rows of text in columns."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    print()
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
