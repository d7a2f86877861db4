"""Stage: atlas and diagnosis of every world of a grid, scored against what was planted there.

<cell>/{stability,atlas,diagnosis}/   what the stages of these names make of the cell's SAEs, which they know nothing else of
atlas.parquet       a row per planted block: the entry of the atlas that is nearest, its rank and overlap
features.parquet    a row per unstable latent: what the diagnosis says, what is true, and whether that is clear
"""

import dataclasses
from typing import Any

import numpy as np
from etils import epath
from safetensors.numpy import load

from launch import dictionary_list, grid, signals
from launch.roster import RANDOM, cell_name
from launch.stages import atlas as atlas_stage
from launch.stages import diagnosis as diagnosis_stage
from launch.stages import stability as stability_stage
from stability import similarity
from stability.diagnosis import AMBIGUOUS, REASONS, SPLIT, UNEXPLAINED, confusion
from stability.subspaces import span_overlap
from storage import files
from storage.tables import read_table, write_table
from synthetic.causes import true_causes
from synthetic.generator import Truth, make_truth


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    folder = workdir / "causes"
    of_atlas: dict[str, list[Any]] = {
        name: []
        for name in ("cell", "scored", "block", "rank", "entries", "blocks", "entry", "found_rank", "overlap", "span_agreement", "null")
    }
    of_features: dict[str, list[Any]] = {name: [] for name in ("cell", "scored", "seed", "feature", "found", "true", "clear", "block")}
    null_entries: dict[str, list[int]] = {}
    for i, group in enumerate(grid.groups(config)):
        for cell in group.cells:
            signals.raise_if_stop_requested("causes: nothing is lost")
            print(f"causes: {cell.name}")
            listing = workdir / "grid" / f"group-{i}" / "train" / "cells" / cell_name(cell.name, RANDOM) / dictionary_list.NAME
            one = dataclasses.replace(
                config,
                cells=(cell,),
                synthetic=cell.synthetic,
                sae=cell.sae,
                train=cell.train,
                contrasts=(),
                reference="",
                tuned_on=(),
                stability=dataclasses.replace(config.stability, dictionaries=str(listing)),
            )
            for stage in (stability_stage, atlas_stage, diagnosis_stage):
                stage.run(one, folder / cell.name)
            truth = make_truth(cell.synthetic)
            scored = cell.name not in config.tuned_on
            null_entries[cell.name] = files.read_json(folder / cell.name / "atlas" / "summary.json").get("entries_in_null_draws", [])
            _score_atlas(of_atlas, folder / cell.name, cell, scored, truth)
            _score_features(of_features, config, one, folder / cell.name, cell, scored, truth)
    summary = _summary(of_atlas, of_features) | {"entries_in_null_draws": null_entries}
    files.write_json(folder / "summary.json", summary)
    _print(summary)
    return [
        folder / "summary.json",
        write_table(folder / "atlas.parquet", of_atlas),
        write_table(folder / "features.parquet", of_features),
    ]


def _add(columns: dict[str, list[Any]], row: tuple[Any, ...]) -> None:
    for column, value in zip(columns.values(), row, strict=True):
        column.append(value)


def _score_atlas(columns: dict[str, list[Any]], folder: epath.Path, cell: Any, scored: bool, truth: Truth) -> None:
    """A row per block of low rank; of a world without one, one row with its number of entries."""
    loaded = load((folder / "atlas" / "planes.safetensors").read_bytes())
    planes = [loaded[f"entry_{e}"].T for e in range(len(loaded))]
    entries = read_table(folder / "atlas" / "entries.parquet")
    blocks = [b for b in truth.bases if b.shape[1] < b.shape[0]]
    if not blocks:
        _add(columns, (cell.name, scored, 0, 0, len(planes), 0, -1, 0, None, None, None))
    for b, basis_DR in enumerate(blocks, start=1):
        overlaps = [span_overlap(plane, basis_DR) for plane in planes]
        e = int(np.argmax(overlaps)) if overlaps else -1
        found = (
            (e, planes[e].shape[1], overlaps[e], float(entries["span_agreement"][e]), float(entries["span_agreement_null"][e]))
            if overlaps
            else (-1, 0, None, None, None)
        )
        _add(columns, (cell.name, scored, b, basis_DR.shape[1], len(planes), len(blocks), *found))


def _score_features(
    columns: dict[str, list[Any]], config: Any, one: Any, folder: epath.Path, cell: Any, scored: bool, truth: Truth
) -> None:
    table = read_table(folder / "diagnosis" / "features.parquet")
    listed = dictionary_list.load(epath.Path(one.stability.dictionaries))
    place = {seed: s for s, seed in enumerate(listed.seeds)}
    seeds, features = table["seed"].tolist(), table["feature"].astype(int)
    unit_SFD = np.asarray(similarity.unit_rows(listed.w_dec_SFD))
    unit_ND = unit_SFD[[place[seed] for seed in seeds], features]
    moving_N = np.nan_to_num(table["drift"], nan=1.0) < similarity.least_cosine(config.diagnosis.settled)
    true = true_causes(truth, unit_ND, table["stratum"], moving_N, config.causes)
    for row in zip(seeds, features.tolist(), table["reason"], true.reason_N, true.clear_N.tolist(), true.block_N.tolist(), strict=True):
        _add(columns, (cell.name, scored, *row))


def _summary(of_atlas: dict[str, list[Any]], of_features: dict[str, list[Any]]) -> dict[str, Any]:
    """Over the cells that nothing was tuned on; how many are right is counted among those with a cause to be guessed: neither dead nor rare nor, without another
    cause, still moving, which are seen."""
    scored, clear = np.array(of_features["scored"], bool), np.array(of_features["clear"], bool)
    true, found = np.array(of_features["true"]), np.array(of_features["found"])
    tables = {"clear": confusion(true[scored & clear], found[scored & clear]), "all": confusion(true[scored], found[scored])}
    hidden = [REASONS.index(reason) for reason in (SPLIT, AMBIGUOUS, UNEXPLAINED)]
    rows = [dict(zip(of_atlas, row, strict=True)) for row in zip(*of_atlas.values(), strict=True)]
    blocks = [r for r in rows if r["scored"] and r["block"]]
    good = [r for r in blocks if (r["overlap"] or 0) > 0.95 and abs(r["found_rank"] - r["rank"]) <= 1]
    return {
        "reasons": list(REASONS),
        "confusion": {name: table.tolist() for name, table in tables.items()},
        "right": {name: float(np.diag(t)[hidden].sum() / t[hidden].sum()) if t[hidden].sum() else None for name, t in tables.items()},
        "blocks": len(blocks),
        "blocks_found": len(good),
        "worlds": len({r["cell"] for r in blocks}),
        "worlds_with_right_number": len({r["cell"] for r in blocks if r["entries"] == r["blocks"]}),
        "entries_without_blocks": [r["entries"] for r in rows if not r["block"]],
    }


def _print(summary: dict[str, Any]) -> None:
    print(f"\nblocks found at overlap > 0.95 and rank ± 1: {summary['blocks_found']} of {summary['blocks']}; ", end="")
    print(f"right number of subspaces in {summary['worlds_with_right_number']} of {summary['worlds']} worlds; ", end="")
    print(f"subspaces in worlds without any: {summary['entries_without_blocks']}")
    for name, table in summary["confusion"].items():
        right = summary["right"][name]
        print(f"\n{name} cases, {'none' if right is None else f'{right:.1%}'} of those whose cause is not simply seen right (rows: true)")
        print(" " * 22 + "".join(f"{reason:>22}" for reason in summary["reasons"]))
        for reason, row in zip(summary["reasons"], table, strict=True):
            print(f"{reason:>22}" + "".join(f"{n:>22}" for n in row))
