"""Stage: the page with figures, claims and examples, from what the other stages wrote."""

from typing import Any

import numpy as np
from etils import epath

from activations.store import ActivationStore
from interpret.contexts import ContextReader
from reports import claims, page
from reports.results import Results
from storage import files


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    folder = workdir / "report"
    results = Results(workdir)
    if "verdicts" in config.stages:
        return page.write_grid_page(folder, results, config, "Latents and subspaces in worlds of known atoms")
    decided = claims.decide(results, config.claims)
    s = results.summary["stability"]
    on = f"{s['saes']['of']}, {len(s['seeds'])} {s['saes']['kind']} SAEs, F={s['saes']['n_features']}"
    files.write_bytes(folder / "claims.md", claims.as_markdown(decided, on).encode())
    files.write_json(
        folder / "summary.json", {"claims": {c.name: {"holds": c.holds, "because": c.because, "measured": c.measured} for c in decided}}
    )
    examples = _examples(results, workdir, config.report) if "activations" in config.stages else []
    outputs = page.write_page(folder, results, decided, examples, config, "Which features reappear across seeds")
    return [*outputs, folder / "claims.md", folder / "summary.json"]


def _examples(results: Results, workdir: epath.Path, c: Any) -> list[page.Example]:
    """Live stable and unstable features drawn at random (not chosen for looks), each with its top contexts."""
    store = ActivationStore(workdir / "activations" / "eval")
    reader = ContextReader(store.load(), files.read_json(workdir / "activations" / "vocabulary.json"), store.manifest["documents"])
    features = results.table("stability/features.parquet")
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
