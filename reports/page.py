"""The page: one self-contained HTML file that works from disk, offline, and PNG copies of its figures."""

import json
from typing import Any, NamedTuple

import altair as alt
import jinja2
import vl_convert
from etils import epath

from interpret.contexts import Context
from reports import arms_figures, figures, grid_figures, headline
from reports.chart import Figure
from reports.claims import Claim
from reports.results import Results
from reports.text import number, with_interval
from storage import files


class Example(NamedTuple):
    """A feature with the contexts in which it fires most."""

    seed: int
    feature: int
    label: str
    p: str
    firing_rate: str
    contexts: list[tuple[float, Context]]


def write_page(
    folder: epath.Path, results: Results, claims: list[Claim], examples: list[Example], settings: Any, title: str
) -> list[epath.Path]:
    """Writes `index.html` and a PNG per figure into `folder`; returns the paths."""
    own = "train" in settings.stages and not settings.stability.dictionaries
    shown = figures.all_figures(results, settings.seed_list if own else ())
    rows = []
    for f in headline.figures_of(results):
        e = results.figure(f.path)
        n = f"{e['n']['number']:,} {e['n']['of']}"
        rows.append({"name": f.name, "value": with_interval(e), "null": number(e["null"]), "n": n, "unit": e["unit"], "meaning": f.meaning})
    return _write(
        folder,
        "page.html.jinja",
        shown,
        settings,
        title=title,
        rows=rows,
        remarks=headline.remarks(results, settings.claims),
        claims=claims,
        examples=examples,
        summary=results.summary["stability"],
    )


def write_grid_page(folder: epath.Path, results: Results, settings: Any, title: str) -> list[epath.Path]:
    """The page of a grid of worlds, likewise."""
    summary = results.json("verdicts/summary.json")
    cells = []
    for name, c in summary["cells"].items():
        found = [text for key in ("p", "atoms found", "span overlap, planted") for text in (with_interval(c[key]), number(c[key]["null"]))]
        starts = [with_interval(c[key]) if key in c else "–" for key in ("kept", "gain", "worth", "leaving")]
        cells.append({"name": name, "verdict": c["verdict"], "found": found, "starts": starts})
    contrasts = [c | {"text": with_interval(c)} for c in summary["contrasts"]]
    shown = grid_figures.all_figures(results, settings.recovery.found)
    return _write(folder, "grid.html.jinja", shown, settings, title=title, cells=cells, contrasts=contrasts, seeds=settings.seed_list)


def write_arms_page(folder: epath.Path, results: Results, settings: Any, title: str) -> list[epath.Path]:
    """The page of a seed factorial, likewise."""
    rows = [
        {
            "arm": r["arm"],
            "text": with_interval(r),
            "numbers": [number(r[key]) for key in ("null", "mmcs", "explained_variance", "l0", "dead_share")],
            "rise": "–" if r["rise"] is None else with_interval({"value": r["rise"], "low": r["rise_low"], "high": r["rise_high"]}),
            "note": r["note"],
        }
        for r in results.table("arms/arms.parquet")
    ]
    parts = [{"part": r["part"], "text": with_interval(r)} for r in results.table("arms/parts.parquet")]
    shown = arms_figures.all_figures(results)
    return _write(folder, "arms.html.jinja", shown, settings, title=title, rows=rows, parts=parts, seeds=settings.seed_list)


def _write(folder: epath.Path, template_name: str, shown: list[Figure], settings: Any, **values: Any) -> list[epath.Path]:
    outputs = []
    for figure in shown:
        path = folder / f"{figure.name}.png"
        files.write_bytes(
            path, vl_convert.vegalite_to_png(figure.chart.to_dict(), vl_version=_vega_lite(), scale=settings.report.png_scale)
        )
        outputs.append(path)
    html = template(template_name).render(
        vega=vl_convert.javascript_bundle(vl_version=_vega_lite()),  # type: ignore[call-arg]  # the stub lacks the default
        figures=[{"name": f.name, "title": f.title, "sentence": f.sentence, "spec": _script_json(f.chart.to_dict())} for f in shown],
        settings=settings,
        **values,
    )
    files.write_bytes(folder / "index.html", html.encode())
    return [folder / "index.html", *outputs]


def template(name: str = "page.html.jinja") -> jinja2.Template:
    """A page's template; whatever is put in is escaped."""
    loader = jinja2.PackageLoader("reports", "")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader).get_template(name)


def _vega_lite() -> str:
    """The Vega-Lite version that Altair writes for, as major.minor."""
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever strings it holds."""
    return json.dumps(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
