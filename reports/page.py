"""The page: one self-contained HTML file that works from disk, offline, and PNG copies of its figures."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import altair as alt
import jinja2
from etils import epath

from interpret.contexts import Context
from reports import headline
from reports.chart import Figure
from reports.claims import Claim
from reports.headline import Row
from reports.results import Results
from reports.text import number, with_interval
from storage import files

try:  # optional: without it the page works, but not offline, and there are no PNG copies
    import vl_convert
except ImportError:
    vl_convert = None  # type: ignore[assignment]

_FROM_THE_NET = "https://cdn.jsdelivr.net/npm/"
_NO_CONVERTER = (
    "report: vl-convert-python is not installed, so there are no PNG copies of figures, and the page fetches Vega from the net when it is opened "
    "(pip install 'vl-convert-python>=1.9')"
)


class Example(NamedTuple):
    """A feature with the contexts in which it fires most."""

    seed: int
    feature: int
    label: str
    p: str
    firing_rate: str
    contexts: list[tuple[float, Context]]


class StudyFacts(NamedTuple):
    """What a page says of the study.

    Attributes:
      title: of the page.
      theta, confidence: of matches and intervals.
      variant, n_features: of the SAEs, where a study trains them.
      starts, found_cosine, tie: of a grid of worlds.
      png_scale: pixels a point of the PNG copies.
    """

    title: str
    theta: float
    confidence: float
    png_scale: float
    variant: str = ""
    n_features: int = 0
    starts: tuple[str, ...] = ()
    found_cosine: float = 0.0
    tie: float = 0.0


def write_page(
    folder: epath.Path,
    results: Results,
    figures: list[Figure],
    headline_rows: Iterable[Row],
    remarks: list[str],
    claims: list[Claim],
    examples: list[Example],
    subspaces: Sequence[Any],
    features: dict[str, Any],
    study: StudyFacts,
) -> list[epath.Path]:
    """Writes `index.html` and a PNG per figure into `folder`; returns the paths.

    Args:
      subspaces: each with `name`, `sentences` and `contexts`.
      features: columns, rows and opened rows of the table of features.
    """
    rows = []
    for f in headline.measured_rows(results, headline_rows):
        e = results.figure(f.path)
        n = f"{e['n']['number']:,} {e['n']['of']}"
        rows.append({"name": f.name, "value": with_interval(e), "null": number(e["null"]), "n": n, "unit": e["unit"], "meaning": f.meaning})
    return write(
        folder,
        "page.html.jinja",
        figures,
        study,
        rows=rows,
        remarks=remarks,
        claims=claims,
        examples=examples,
        subspaces=subspaces,
        summary=results.summary["stability"],
        features=features | {"json": _script_json({name: features[name] for name in ("columns", "rows", "opened")})},
    )


def write(folder: epath.Path, template_name: str, charts: list[Figure], study: StudyFacts, **values: Any) -> list[epath.Path]:
    """Writes a page by its template, "package:file" or a file of this package, and a PNG per figure; returns the paths."""
    if vl_convert is None:
        print(_NO_CONVERTER)
    specs = [figure.chart.to_dict() for figure in charts]
    outputs = (
        [] if vl_convert is None else [_png(folder / f"{f.name}.png", spec, study.png_scale) for f, spec in zip(charts, specs, strict=True)]
    )
    html = template(template_name).render(
        vega=_scripts(),
        figures=[
            {"name": f.name, "title": f.title, "sentence": f.sentence, "spec": _script_json(spec)}
            for f, spec in zip(charts, specs, strict=True)
        ],
        study=study,
        title=study.title,
        **values,
    )
    files.write_bytes(folder / "index.html", html.encode())
    return [folder / "index.html", *outputs]


def _png(path: epath.Path, spec: dict[str, Any], scale: float) -> epath.Path:
    """Returns the path of the image that it writes."""
    files.write_bytes(path, vl_convert.vegalite_to_png(spec, vl_version=_vega_lite(), scale=scale))
    return path


def _scripts() -> str:
    """Script elements that bring Vega: whole, or fetched when the page is opened."""
    if vl_convert is not None:
        bundle = vl_convert.javascript_bundle(vl_version=_vega_lite())  # type: ignore[call-arg]  # the stub lacks the default
        return f"<script>{bundle}</script>"
    major = _vega_lite().split(".")[0]
    packages = (f"vega@{major}", f"vega-lite@{alt.SCHEMA_VERSION.lstrip('v')}", f"vega-embed@{int(major) + 1}")
    return "\n".join(f'<script src="{_FROM_THE_NET}{package}"></script>' for package in packages)


def template(name: str = "page.html.jinja") -> jinja2.Template:
    """A page's template; whatever is put in is escaped."""
    package, _, file = name.rpartition(":")
    loaders = [jinja2.PackageLoader(p, "") for p in ([package] if package else []) + ["reports"]]
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=jinja2.ChoiceLoader(loaders)).get_template(file)


def _vega_lite() -> str:
    """The Vega-Lite version that Altair writes for, as major.minor."""
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever strings it holds."""
    return json.dumps(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
