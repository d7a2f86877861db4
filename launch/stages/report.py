"""Stage: the page with figures, claims and examples, from what the other stages wrote."""

from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from activations.store import ActivationStore
from interpret.contexts import Context, ContextReader
from launch import sources
from reports import claims, feature_table, page
from reports.results import Results
from storage import files


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    folder = workdir / "report"
    results = Results(workdir, config.stages)
    if "verdicts" in config.stages:
        return page.write_grid_page(folder, results, config, "Latents and subspaces in worlds of known atoms")
    if "arms" in config.stages:
        return page.write_arms_page(folder, results, config, "Where instability comes from")
    if "pooled" in config.stages:
        claim = claims.of_pools(results, config.claims)
        s = results.summary["pooled"]
        on = f"{s['of']}, 2 × {s['group']} {s['sae']['variant']} SAEs, F={s['sae']['n_features']}"
        files.write_bytes(folder / "claims.md", claims.as_markdown([claim], on).encode())
        files.write_json(
            folder / "summary.json", {"claims": {claim.name: {"holds": claim.holds, "because": claim.because, "measured": claim.measured}}}
        )
        return [
            *page.write_pool_page(folder, results, claim, config, "Pools of features of many seeds"),
            folder / "claims.md",
            folder / "summary.json",
        ]
    decided = claims.decide(results, config.claims)
    s = results.summary["stability"]
    on = f"{s['saes']['of']}, {len(s['seeds'])} {s['saes']['kind']} SAEs, F={s['saes']['n_features']}"
    files.write_bytes(folder / "claims.md", claims.as_markdown(decided, on).encode())
    files.write_json(
        folder / "summary.json", {"claims": {c.name: {"holds": c.holds, "because": c.because, "measured": c.measured} for c in decided}}
    )
    store = sources.evaluation_store(config, workdir) if hasattr(config, "source") else None
    reader = None if store is None else _reader(store)
    examples = [] if reader is None else _examples(results, reader, config.report)
    subspaces = _subspaces(results, reader, config.report)
    features = feature_table.table(results, feature_table.listed(results), _contexts(results, reader, config.report))
    outputs = page.write_page(folder, results, decided, examples, subspaces, features, config, "Which features reappear across seeds")
    return [*outputs, folder / "claims.md", folder / "summary.json"]


def _reader(folder: epath.Path) -> ContextReader | None:
    """Of the contexts of a store's rows; None where nobody knows the text of its tokens."""
    if not (folder.parent / "vocabulary.json").exists():
        return None
    store = ActivationStore(folder)
    return ContextReader(store.load(), files.read_json(folder.parent / "vocabulary.json"), store.manifest["documents"])


def _subspaces(results: Results, reader: ContextReader | None, c: Any) -> list[page.Subspace]:
    """Every local subspace with its figures and the contexts of the tokens to which its features add most."""
    if not results.has("atlas/entries.parquet"):
        return []
    found = []
    for e in results.table("atlas/entries.parquet"):
        top = [(v, r) for v, r in zip(e.get("top_values") or [], e.get("top_rows") or [], strict=True) if v > 0][: c.contexts]
        contexts = [] if reader is None else [(v, reader.around(r, c.context_tokens, c.context_tokens // 2)) for v, r in top]
        found.append(page.Subspace(e, contexts))
    return found


def _contexts(results: Results, reader: ContextReader | None, c: Any) -> Callable[[tuple[int, int]], list[tuple[float, Context]]]:
    """The contexts in which a feature is most active, a token of each; of different contexts where the stage `statistics` has counted."""
    if reader is None:
        return lambda place: []
    name = "statistics/features.parquet" if results.has("statistics/features.parquet") else "stability/features.parquet"
    of = results.columns(name, ("seed", "feature", "top_rows", "top_values"))
    at = {place: i for i, place in enumerate(zip(of["seed"].tolist(), of["feature"].tolist(), strict=True))}

    def contexts(place: tuple[int, int]) -> list[tuple[float, Context]]:
        i = at[place]
        top = [(float(v), int(r)) for v, r in zip(of["top_values"][i], of["top_rows"][i], strict=True) if v > 0]
        return [(v, reader.around(r, c.context_tokens, c.context_tokens // 2)) for v, r in top[: c.table_contexts]]

    return contexts


def _examples(results: Results, reader: ContextReader, c: Any) -> list[page.Example]:
    """Live stable and unstable features drawn at random (not chosen for looks), each with its top contexts."""
    wanted = (
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
    features = results.table("stability/features.parquet", wanted)
    rng = np.random.default_rng(0)
    examples = []
    for label in ("stable", "unstable"):
        candidates = [f for f in features if f["label"] == label and f["stratum"] == "live"]
        for i in sorted(rng.permutation(len(candidates))[: c.examples]):
            f = candidates[i]
            top = [(v, r) for v, r in zip(f["top_values"], f["top_rows"], strict=True) if v > 0][: c.contexts]
            contexts = [(v, reader.around(r, c.context_tokens, c.context_tokens // 2)) for v, r in top]
            share = f"{f['reappearances']}/{f['comparisons']} [{f['p_low']:.2f}, {f['p_high']:.2f}]"
            examples.append(page.Example(f["seed"], f["feature"], label, share, f"{f['firing_rate']:.2%}", contexts))
    return examples
