"""Stage: the page with figures, claims and examples, from what the other stages wrote."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from experiments import registry
from experiments.data import sources
from experiments.data.dictionary_list import External
from experiments.data.own_arrays import OwnRows
from experiments.data.seeds import Seeds
from experiments.fields import check, config, field
from experiments.ground_truth.cells import Grid
from experiments.reappearance.labels import LabelRule
from experiments.stage import Outputs, Stage, Task
from experiments.subspaces.report import Subspace
from interpret.contexts import Context, ContextReader
from reports import claims
from reports.claims import Claim, Claims, Statement
from reports.headline import Row
from reports.results import Results
from saes.config import SAEConfig
from storage import files
from synthetic.config import Recovery, WorldConfig

if TYPE_CHECKING:
    from reports import page


@config("report")
class Report:
    """What the page shows."""

    examples: int = field(default=6, doc="stable and as many unstable features shown with contexts", gt=0)
    contexts: int = field(default=5, doc="contexts a feature", gt=0)
    table_contexts: int = field(default=3, doc="contexts a feature in the table of features", gt=0)
    context_tokens: int = field(default=14, doc="tokens before the highlighted one; half as many behind", gt=0)
    png_scale: float = field(default=2.0, doc="pixels per point of the PNG copies", gt=0)


STAGE = Stage(
    config=Report,
    reads=(Claims, LabelRule),
    optional=(Seeds, SAEConfig, Grid, Recovery, External, OwnRows, WorldConfig),
    uses=("*", "rows"),
)
PAGE_STAGES = ("stability", "verdicts", "arms", "pooled")  # stages without any of which there is nothing to show


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    stages = task.settings.stages
    check(
        any(name in stages for name in PAGE_STAGES),
        "stages",
        stages,
        f"'report' shows what one of {', '.join(map(repr, PAGE_STAGES))} writes",
    )


def run(task: Task, out: Outputs) -> None:
    from experiments.ground_truth import page as grid_page  # charts take a second to load
    from experiments.pooling import page as pool_page
    from experiments.seed_factorial import page as arms_page
    from reports import page

    c, rules, rule = task.section(Report), task.section(Claims), task.section(LabelRule)
    stages = task.settings.stages
    results = Results(task.root, stages)
    sae = task.maybe(SAEConfig)
    study = page.StudyFacts("", rule.theta, rule.confidence, c.png_scale, sae.variant if sae else "", sae.n_features if sae else 0)
    decided = claims.decide(statements(), results, rules)
    if "verdicts" in stages:
        recovery, title = task.section(Recovery), "Latents and subspaces in worlds of known atoms"
        study = study._replace(title=title, starts=task.section(Grid).starts, found_cosine=recovery.found, tie=recovery.tie)
        out.add(*grid_page.write_grid_page(task.folder, results, task.section(Seeds).list, study))
    elif "arms" in stages:
        out.add(
            *arms_page.write_arms_page(task.folder, results, task.section(Seeds).list, study._replace(title="Where instability comes from"))
        )
    elif "pooled" in stages:
        s, (claim,) = results.summary["pooled"], [claim for claim in decided if claim.name == "C6"]
        _write_claims(out, [claim], f"{s['of']}, {s['groups']} × {s['group']} {s['sae']['variant']} SAEs, F={s['sae']['n_features']}")
        study = study._replace(title="Pools of features of many seeds")
        out.add(*pool_page.write_pool_page(task.folder, results, claim, study))
    else:
        s = results.summary["stability"]
        _write_claims(out, decided, f"{s['saes']['of']}, {len(s['seeds'])} {s['saes']['kind']} SAEs, F={s['saes']['n_features']}")
        _write_page(task, out, results, decided, study._replace(title="Which features reappear across seeds"))


def statements() -> list[Statement]:
    """The claims of all rooms."""
    return [s for room in registry.modules("report") for s in room.CLAIMS]


def rows(results: Results) -> list[Row]:
    """The headline rows of all rooms."""
    return [row for room in registry.modules("report") for row in room.rows(results)]


def remarks(results: Results, rules: Claims) -> list[str]:
    """What a reader must know before believing the figures, of all rooms, and which stages found nothing to measure."""
    texts = [text for room in registry.modules("report") if hasattr(room, "remarks") for text in room.remarks(results, rules)]
    unmeasured = [(stage, s["not_measured"]) for stage, s in results.summary.items() if "not_measured" in s]
    return texts + [f"The stage {stage!r} did not measure: {because}." for stage, because in unmeasured]


def _write_page(task: Task, out: Outputs, results: Results, decided: list[Claim], study: "page.StudyFacts") -> None:
    from experiments.interpretation import feature_table
    from reports import page

    c, rules, seeds, external = task.section(Report), task.section(Claims), task.maybe(Seeds), task.maybe(External)
    store = sources.evaluation_store(task)
    reader = None if store is None else _reader(task, store)
    examples = [] if reader is None else _examples(results, reader, c)
    features = feature_table.table(results, feature_table.listed_places(results), _contexts(results, reader, c))
    own = "train" in task.settings.stages and not (external and external.dictionaries)
    trained = seeds.list if seeds is not None and own else ()
    charts = registry.modules("charts")
    last = [room for room in charts if room.__name__.startswith("experiments.training.")]  # how SAEs were trained, behind what they are
    figures = [figure for room in [*(r for r in charts if r not in last), *last] for figure in room.all_figures(results, trained)]
    notes = remarks(results, rules)
    subspaces = _subspaces(results, reader, c)
    out.add(*page.write_page(task.folder, results, figures, rows(results), notes, decided, examples, subspaces, features, study))


def _write_claims(out: Outputs, decided: list[Claim], subject: str) -> None:
    out.bytes("claims.md", claims.as_markdown(decided, subject).encode())
    out.summary({"claims": {c.name: {"holds": c.holds, "because": c.because, "measured": c.measured} for c in decided}})


def _reader(task: Task, folder: epath.Path) -> ContextReader | None:
    """Of the contexts of a store's rows; None where nobody knows the text of its tokens."""
    if not (folder.parent / "vocabulary.json").exists():
        return None
    store = sources.opened(task, folder)
    return ContextReader(store.load(), files.read_json(folder.parent / "vocabulary.json"), store.manifest["documents"])


def _subspaces(results: Results, reader: ContextReader | None, c: Report) -> list[Subspace]:
    """Every local subspace with its figures and the contexts of the tokens to which its features add most."""
    if not results.has("atlas/entries.parquet"):
        return []
    subspaces = []
    for e in results.table("atlas/entries.parquet"):
        top = [(v, r) for v, r in zip(e.get("top_values") or [], e.get("top_rows") or [], strict=True) if v > 0][: c.contexts]
        contexts = [] if reader is None else [(v, reader.context(r, c.context_tokens, c.context_tokens // 2)) for v, r in top]
        subspaces.append(Subspace(e, contexts))
    return subspaces


def _contexts(results: Results, reader: ContextReader | None, c: Report) -> Callable[[tuple[int, int]], list[tuple[float, Context]]]:
    """The contexts in which a feature is most active, a token of each; of different contexts where the stage `statistics` has counted."""
    if reader is None:
        return lambda place: []
    name = "statistics/features.parquet" if results.has("statistics/features.parquet") else "stability/features.parquet"
    columns = results.columns(name, ("seed", "feature", "top_rows", "top_values"))
    where = {place: i for i, place in enumerate(zip(columns["seed"].tolist(), columns["feature"].tolist(), strict=True))}

    def contexts(place: tuple[int, int]) -> list[tuple[float, Context]]:
        i = where[place]
        top = [(float(v), int(r)) for v, r in zip(columns["top_values"][i], columns["top_rows"][i], strict=True) if v > 0]
        return [(v, reader.context(r, c.context_tokens, c.context_tokens // 2)) for v, r in top[: c.table_contexts]]

    return contexts


def _examples(results: Results, reader: ContextReader, c: Report) -> "list[page.Example]":
    """Live stable and unstable features drawn at random (not chosen for looks), each with its top contexts."""
    columns = (
        "seed",
        "feature",
        "label",
        "stratum",
        "reappearances",
        "comparisons",
        "p_low",
        "p_high",
        "firing_rate",
        "top_rows",
        "top_values",
    )
    features = results.table("stability/features.parquet", columns)
    from reports import page

    rng = np.random.default_rng(0)
    examples = []
    for label in ("stable", "unstable"):
        candidates = [f for f in features if f["label"] == label and f["stratum"] == "live"]
        for i in sorted(rng.permutation(len(candidates))[: c.examples]):
            f = candidates[i]
            top = [(v, r) for v, r in zip(f["top_values"], f["top_rows"], strict=True) if v > 0][: c.contexts]
            contexts = [(v, reader.context(r, c.context_tokens, c.context_tokens // 2)) for v, r in top]
            share = f"{f['reappearances']}/{f['comparisons']} [{f['p_low']:.2f}, {f['p_high']:.2f}]"
            examples.append(page.Example(f["seed"], f["feature"], label, share, f"{f['firing_rate']:.2%}", contexts))
    return examples
