"""The page of a study of pools, and the table that ends its run."""

from etils import epath

from experiments.pooling import pool_charts
from experiments.pooling.pools import SINGLE
from experiments.pooling.products import ALL, COMPARED, EXPLAINED, LIVE, LONG, N_LIVE
from reports import headline, page
from reports.claims import Claim
from reports.page import StudyFacts
from reports.results import Results
from reports.text import number, with_interval

TEMPLATE = "experiments.pooling:pool.html.jinja"
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

PRODUCT_COLUMNS = {
    ALL: "p̂ between, all features",
    LIVE: "p̂ between, live ones",
    N_LIVE: "live features",
    EXPLAINED: "explained variance",
    LONG: "p̂ against SAEs trained longer",
}


def write_pool_page(folder: epath.Path, results: Results, claim: Claim, study: StudyFacts) -> list[epath.Path]:
    """The page of a study of pools, likewise."""
    s = results.summary["pooled"]
    names = {
        key: name
        for key, name in POOL_COLUMNS.items()
        if any(method.get(key, {}).get("value") is not None for method in s["methods"].values())
    }
    figure_text = lambda e, key: number(e["value"]) if key in ("features", "live", "l0") else with_interval(e)
    text = lambda method, key: figure_text(method[key], key) if key in method and method[key]["value"] is not None else "–"
    order = sorted(s["methods"], key=lambda name: (list(pool_charts.COLOURS).index(pool_charts.family(name)), name != "single SAE"))
    rows = [{"method": name, "texts": [text(s["methods"][name], key) for key in names]} for name in order]
    differences = [
        {"method": name, "texts": [text(s["less a single SAE"][name], key) for key in ("p", "between", "explained")]}
        for name in order
        if name in s["less a single SAE"]
    ]
    independent = s["independent products"]
    product_text = lambda e, key: number(e["value"]) if key == N_LIVE else with_interval(e) if e["value"] is not None else "–"
    product_rows = lambda by_method, columns: [
        {"method": name, "texts": [product_text(by_method[name][key], key) for key in columns]} for name in order if name in by_method
    ]
    products = [row | {"count": independent["products"][row["method"]]} for row in product_rows(independent["methods"], PRODUCT_COLUMNS)]
    less = product_rows(independent["less"], COMPARED)
    figures = pool_charts.all_figures(results)
    return page.write(
        folder, TEMPLATE, figures, study, claim=claim, names=list(names.values()), rows=rows, differences=differences, summary=s,
        products=products, product_names=list(PRODUCT_COLUMNS.values()), less=less, less_names=[PRODUCT_COLUMNS[key] for key in COMPARED],
    )  # fmt: skip


def show(results: Results) -> None:
    """Prints what pools are worth, the claim, and the page's path."""
    s = results.summary["pooled"]
    headers = {"p": "p̂ against fresh seeds", "between": "p̂ between groups", "explained": "explained variance"}
    table = [("", *headers.values())]
    table += [(name, *(with_interval(method[key]) for key in headers)) for name, method in s["methods"].items()]
    headline.columns(table)
    independent = s["independent products"]
    columns = (ALL, LIVE, EXPLAINED)
    table = [("independent products", *(PRODUCT_COLUMNS[key] for key in columns))]
    for name in dict.fromkeys((s["headline"], *independent["competitors"], SINGLE)):
        if name in independent["methods"]:
            table.append(
                (f"{name} ({independent['products'][name]})", *(with_interval(independent["methods"][name][key]) for key in columns))
            )
    print()
    headline.columns(table)
    if results.has("report/summary.json"):
        claim = results.json("report/summary.json")["claims"]["C6"]
        print(f"\nC6: {claim['holds']}: {claim['because']}")
        headline.show_page(results)
