"""The page: one self-contained HTML file that works from disk, offline, and PNG copies of its figures."""

import json
from typing import Any, NamedTuple

import altair as alt
import jinja2
from etils import epath

from interpret.contexts import Context
from reports import arms_figures, atlas_figures, figures, grid_figures, headline, pool_figures
from reports.chart import Figure
from reports.claims import Claim
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


class Subspace(NamedTuple):
    """A local subspace: its row of atlas/entries.parquet, and the contexts of the tokens to which its features add most."""

    entry: dict[str, Any]
    contexts: list[tuple[float, Context]]

    @property
    def name(self) -> str:
        return atlas_figures.name_of(self.entry)

    @property
    def sentences(self) -> str:
        e = self.entry
        text = (
            f"{number(e['features_per_seed'])} features a seed in {e['seeds']} seeds; found by two halves of the seeds with overlap {number(e['agreement_of_halves'])}. Spans overlap between seeds by "
            f"{number(e['span_agreement'])} (by chance {number(e['span_agreement_null'])}, p = {number(e['p_value'])}), p̂ of its features is {number(e['p'])} (by chance {number(e['p_by_chance'])})."
        )
        if e.get("energy") is not None:
            text += (
                f" It holds {number(e['energy'])} of the variance and is active on {number(e['firing_rate'])} of tokens; what its features add to a token agrees between seeds with cosine "
                f"{number(e['contribution_agreement'])} (with as many others of the other seed: {number(e['contribution_agreement_null'])}). Overlap with as many principal components: {number(e['overlap_with_components'])}."
            )
        return text


def write_page(
    folder: epath.Path,
    results: Results,
    claims: list[Claim],
    examples: list[Example],
    subspaces: list[Subspace],
    features: dict[str, Any],
    settings: Any,
    title: str,
) -> list[epath.Path]:
    """Writes `index.html` and a PNG per figure into `folder`; returns the paths.

    Args:
      features: as `feature_table.table` makes it.
    """
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
        subspaces=subspaces,
        summary=results.summary["stability"],
        features=features | {"json": _script_json({name: features[name] for name in ("columns", "rows", "opened")})},
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
    across = _across_arms(results)
    return _write(folder, "arms.html.jinja", shown, settings, title=title, rows=rows, parts=parts, across=across, seeds=settings.seed_list)


POOL_COLUMNS = {
    "features": "features",
    "l0": "L0",
    "p": "p̂ against fresh seeds",
    "stable": "in all of them",
    "between": "p̂ between",
    "explained": "explained variance",
    "ce recovered": "CE recovered",
    "live": "live features",
    "dead": "dead share",
    "found free": "free atoms found",
    "found block": "block atoms found",
}


def write_pool_page(folder: epath.Path, results: Results, claim: Claim, settings: Any, title: str) -> list[epath.Path]:
    """The page of a study of pools, likewise."""
    s = results.summary["pooled"]
    names = {
        key: name for key, name in POOL_COLUMNS.items() if any(of.get(key, {}).get("value") is not None for of in s["methods"].values())
    }
    said = lambda e, key: number(e["value"]) if key in ("features", "live", "l0") else with_interval(e)
    text = lambda of, key: said(of[key], key) if key in of and of[key]["value"] is not None else "–"
    order = sorted(s["methods"], key=lambda name: (list(pool_figures.COLOURS).index(pool_figures.family(name)), name != "single SAE"))
    rows = [{"method": name, "texts": [text(s["methods"][name], key) for key in names]} for name in order]
    differences = [
        {"method": name, "texts": [text(s["less a single SAE"][name], key) for key in ("p", "between", "explained")]}
        for name in order
        if name in s["less a single SAE"]
    ]
    shown = pool_figures.all_figures(results)
    return _write(
        folder, "pool.html.jinja", shown, settings, title=title, claim=claim, names=list(names.values()), rows=rows, differences=differences, summary=s
    )  # fmt: skip


def _across_arms(results: Results) -> list[dict[str, str]]:
    """Classifiers learned from one arm and judged on another, a row per pair."""
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for r in results.table("arms/transfer.parquet"):
        pairs.setdefault((r["trained_on"], r["judged_on"]), {})[r["predictor"]] = r
    return [
        {"trained_on": a, "judged_on": b}
        | {key: f"{number(of['decoder rows'][key])} ({number(of['nearest neighbour'][key])})" for key in ("auroc", "f1")}
        | {"prevalence": number(of["prevalence"]["f1"])}
        for (a, b), of in pairs.items()
    ]


def _write(folder: epath.Path, template_name: str, shown: list[Figure], settings: Any, **values: Any) -> list[epath.Path]:
    if vl_convert is None:
        print(_NO_CONVERTER)
    outputs = [] if vl_convert is None else [_png(folder, figure, settings.report.png_scale) for figure in shown]
    html = template(template_name).render(
        vega=_scripts(),
        figures=[{"name": f.name, "title": f.title, "sentence": f.sentence, "spec": _script_json(f.chart.to_dict())} for f in shown],
        settings=settings,
        **values,
    )
    files.write_bytes(folder / "index.html", html.encode())
    return [folder / "index.html", *outputs]


def _png(folder: epath.Path, figure: Figure, scale: float) -> epath.Path:
    """Returns where it lies."""
    path = folder / f"{figure.name}.png"
    files.write_bytes(path, vl_convert.vegalite_to_png(figure.chart.to_dict(), vl_version=_vega_lite(), scale=scale))
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
    loader = jinja2.PackageLoader("reports", "")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader).get_template(name)


def _vega_lite() -> str:
    """The Vega-Lite version that Altair writes for, as major.minor."""
    return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever strings it holds."""
    return json.dumps(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
