"""The page of a grid of worlds."""

from collections.abc import Sequence

from etils import epath

from experiments.ground_truth import grid_charts
from reports import page
from reports.page import StudyFacts
from reports.results import Results
from reports.text import number, with_interval

TEMPLATE = "experiments.ground_truth:grid.html.jinja"


def write_grid_page(folder: epath.Path, results: Results, seeds: Sequence[int], study: StudyFacts) -> list[epath.Path]:
    """The page of a grid of worlds, likewise."""
    summary = results.json("verdicts/summary.json")
    cells = []
    for name, c in summary["cells"].items():
        texts = [text for key in ("p", "atoms found", "span overlap, planted") for text in (with_interval(c[key]), number(c[key]["null"]))]
        starts = [with_interval(c[key]) if key in c else "–" for key in ("kept", "gain", "worth", "leaving")]
        cells.append({"name": name, "verdict": c["verdict"], "found": texts, "starts": starts})
    contrasts = [c | {"text": with_interval(c)} for c in summary["contrasts"]]
    figures = grid_charts.all_figures(results, study.found_cosine)
    return page.write(folder, TEMPLATE, figures, study, cells=cells, contrasts=contrasts, seeds=seeds)
