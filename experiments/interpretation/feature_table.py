"""The page's table of features, to be sorted and searched: what is known of each, with the contexts in which it is most active."""

from collections.abc import Callable
from typing import Any, NamedTuple

from interpret.contexts import Context
from reports.results import Results
from reports.text import number

MOST_LISTED = 5000  # features that the page holds; of more an even part over seeds and features
DIGITS = 4  # significant, of what is sorted


class Column(NamedTuple):
    """A column of the table: its name for people, and where its values lie (file, column)."""

    name: str
    file: str
    column: str


COLUMNS = (
    Column("label", "stability/features.parquet", "label"),
    Column("p̂", "stability/features.parquet", "p"),
    Column("firing rate", "stability/features.parquet", "firing_rate"),
    Column("effect per firing", "function/features.parquet", "marginal_per_firing"),
    Column("CE per firing", "splice/features.parquet", "ce_per_firing"),
    Column("surface form", "statistics/features.parquet", "surface_score"),
    Column("top token", "statistics/features.parquet", "top_token"),
    Column("why unstable", "diagnosis/features.parquet", "reason"),
    Column("kind", "explanations/features.parquet", "kind"),
)
# What a row shows when it is opened: name → (file, column).
DETAILS = {
    "explanation": ("explanations/features.parquet", "explanation"),
    "detection (balanced accuracy)": ("explanations/features.parquet", "detection"),
    "best predictor of firing": ("statistics/features.parquet", "predictor"),
    "its F1 on other contexts": ("statistics/features.parquet", "f1"),
    "effect per token": ("function/features.parquet", "marginal_per_token"),
    "Shapley value": ("function/features.parquet", "shapley"),
    "share of activation on the top token": ("statistics/features.parquet", "top_token_share"),
    "fall in shuffled contexts": ("statistics/features.parquet", "fall"),
    "token entropy (nats)": ("statistics/features.parquet", "token_entropy"),
    "of as many random tokens": ("statistics/features.parquet", "token_entropy_null"),
    "burstiness (1: none)": ("statistics/features.parquet", "dispersion"),
    "mean activation where it fires": ("stability/features.parquet", "mean_activation"),
    "largest activation": ("stability/features.parquet", "max_activation"),
    "on held-out tokens": ("stability/features.parquet", "stratum"),
    "cosine with itself at half of training": ("diagnosis/features.parquet", "drift"),
}
Place = tuple[int, int]


def listed_places(results: Results) -> list[Place]:
    """(seed, feature) of those that the page holds."""
    columns = results.columns("stability/features.parquet", ("seed", "feature"))
    places = list(zip(columns["seed"].tolist(), columns["feature"].tolist(), strict=True))
    return places[:: max(1, -(-len(places) // MOST_LISTED))]


def table(results: Results, places: list[Place], contexts_of: Callable[[Place], list[tuple[float, Context]]]) -> dict[str, Any]:
    """Columns, rows, and what each row shows when it is opened; plain text and numbers, to be put into a page as JSON."""
    wanted_places = set(places)
    files = {c.file for c in COLUMNS} | {file for file, _ in DETAILS.values()}
    of_file = {file: _by_place(results, file, wanted_places) for file in files if results.has(file)}
    there = [c for c in COLUMNS if c.file in of_file and any(c.column in r for r in of_file[c.file].values())]
    rows, opened = [], []
    for place in places:
        get = lambda file, column, place=place: of_file.get(file, {}).get(place, {}).get(column)
        rows.append([*place, *(_plain(get(c.file, c.column)) for c in there)])
        details = [
            [name, _text(value)]
            for name, (file, column) in DETAILS.items()
            if (value := get(file, column)) not in (None, "") and value == value
        ]
        details += _of_diagnosis(of_file.get("diagnosis/features.parquet", {}).get(place))
        opened.append({"details": details, "contexts": [[f"{v:.2f}", *c] for v, c in contexts_of(place)]})
    every = len(results.columns("stability/features.parquet", ("seed",))["seed"])
    return {"columns": ["seed", "feature", *(c.name for c in there)], "rows": rows, "opened": opened, "left_out": every - len(places)}


def _by_place(results: Results, file: str, wanted_places: set[Place]) -> dict[Place, dict[str, Any]]:
    columns = [c.column for c in COLUMNS if c.file == file] + [column for f, column in DETAILS.values() if f == file]
    if file.startswith("diagnosis/"):
        columns += [
            "combination_weights",
            "combination_features",
            "combination_share",
            "combination_seed",
            "split_seeds",
            "split_by_chance",
            "entry",
            "energy_inside",
        ]
    table = results.columns(file, ("seed", "feature", *columns))
    places = list(zip(table["seed"].tolist(), table["feature"].tolist(), strict=True))
    rows = [(i, place) for i, place in enumerate(places) if place in wanted_places]
    return {place: {name: values[i] for name, values in table.items() if name not in ("seed", "feature")} for i, place in rows}


def _of_diagnosis(r: dict[str, Any] | None) -> list[list[str]]:
    """What speaks for the reason of an unstable feature."""
    if r is None:
        return []
    facts = []
    if r["combination_seed"] >= 0:
        combination = " ".join(f"{w:+.2f}·{f}" for w, f in zip(r["combination_weights"], r["combination_features"], strict=True))
        facts.append(
            [
                "best combination of three in another seed",
                f"{r['combination_share']:.2f} of it: {combination} of seed {r['combination_seed']}",
            ]
        )
    facts.append(
        ["seeds in which a combination holds enough", f"{r['split_seeds']:.0%} (by chance in its subspace: {r['split_by_chance']:.2f})"]
    )
    facts.append(["local subspace", f"{r['entry']}, which holds {r['energy_inside']:.2f} of it" if r["entry"] >= 0 else "none"])
    return facts


def _plain(value: Any) -> Any:
    """For JSON, and for sorting: short numbers, text as it is, nothing as None."""
    if value is None or value != value:
        return None
    if isinstance(value, str):
        return value
    return float(f"{float(value):.{DIGITS}g}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else number(float(value))
