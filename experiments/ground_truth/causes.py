"""Stage: atlas and diagnosis of every world of a grid, scored against what was planted there.

<cell>/{stability,atlas,diagnosis}/   what the stages of these names make of the cell's SAEs, which they know nothing else of
atlas.parquet       a row per planted block: the entry of the atlas that is nearest, its rank and overlap
features.parquet    a row per unstable latent: what the diagnosis says, what is true, and whether that is clear
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from safetensors.numpy import load

from experiments import registry
from experiments.data import dictionary_list
from experiments.data.dictionary_list import External
from experiments.data.seeds import Seeds
from experiments.data.sources import Sampling
from experiments.fields import check
from experiments.ground_truth import grid
from experiments.ground_truth.cells import RANDOM, Grid, GridCell, TunedOn, groups
from experiments.stage import SUMMARY, Outputs, Stage, Task
from experiments.subspaces.diagnosis import Diagnosis
from runtime import interrupts
from saes.config import SAEConfig, TrainConfig
from stability import similarity
from stability.diagnosis import AMBIGUOUS, REASONS, SPLIT, UNEXPLAINED, confusion
from stability.subspaces import span_overlap
from storage import files
from storage.tables import read_table
from synthetic.causes import Causes, true_causes
from synthetic.config import WorldConfig
from synthetic.generator import Truth, make_truth

STAGE = Stage(
    config=Causes,
    reads=(Grid, TunedOn, Diagnosis, WorldConfig, SAEConfig, TrainConfig, Sampling, Seeds),
    needs=("grid",),
    children=("stability", "atlas", "diagnosis"),
)


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    seeds = task.section(Seeds)
    check(len(seeds.list) >= 4, "seeds", seeds.seeds, "at least 4: 'causes' compares two halves of 2")
    tuned_on, names = task.section(TunedOn).tuned_on, list(task.section(Grid).cells)
    check(set(tuned_on) <= set(names), "tuned_on", tuned_on, f"some of the cells {names}")


ATLAS = ("cell", "scored", "block", "rank", "entries", "blocks", "entry", "found_rank", "overlap", "span_agreement", "null")
FEATURES = ("cell", "scored", "seed", "feature", "found", "true", "clear", "block")


class OfCell(NamedTuple):
    """Of one world: rows of both tables, and entries that the atlas found in each draw of its null."""

    atlas: dict[str, list[Any]]
    features: dict[str, list[Any]]
    null_entries: list[int]


def run(task: Task, out: Outputs) -> None:
    of_atlas: dict[str, list[Any]] = {name: [] for name in ATLAS}
    of_features: dict[str, list[Any]] = {name: [] for name in FEATURES}
    null_entries: dict[str, list[int]] = {}
    for i, group in enumerate(groups(task)):
        for cell in group.cells:
            interrupts.raise_if_stop_requested("causes: finished worlds are kept")
            print(f"causes: {cell.name}")
            one = out.part(cell.name, functools.partial(_of_cell, task, i, cell))
            null_entries[cell.name] = one.null_entries
            for whole, of_cell in ((of_atlas, one.atlas), (of_features, one.features)):
                for name, values in of_cell.items():
                    whole[name] += values
    summary = _summary(of_atlas, of_features) | {"entries_in_null_draws": null_entries}
    out.summary(summary)
    _print(summary)
    out.table("atlas", of_atlas)
    out.table("features", of_features)


def _of_cell(task: Task, group: int, cell: GridCell) -> OfCell:
    """What stability, atlas and diagnosis make of a cell's SAEs, which they know nothing else of, held against its truth."""
    folder = task.folder / cell.name
    listing = grid.home(task, group, cell.name, RANDOM) / dictionary_list.NAME
    settings = task.settings.replaced(cell.world, cell.sae, cell.train, External(dictionaries=str(listing)))
    for name in STAGE.children:
        registry.run_child(task, name, folder, settings.only(*STAGE.children))
    truth, scored = make_truth(cell.world), cell.name not in task.section(TunedOn).tuned_on
    columns = OfCell(
        {name: [] for name in ATLAS},
        {name: [] for name in FEATURES},
        files.read_json(folder / "atlas" / SUMMARY).get("entries_in_null_draws", []),
    )
    _score_atlas(columns.atlas, folder, cell, scored, truth)
    _score_features(columns.features, task, listing, folder, cell, scored, truth)
    return columns


def _add(columns: dict[str, list[Any]], row: tuple[Any, ...]) -> None:
    for column, value in zip(columns.values(), row, strict=True):
        column.append(value)


def _score_atlas(columns: dict[str, list[Any]], folder: epath.Path, cell: GridCell, scored: bool, truth: Truth) -> None:
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
        figures = (
            (e, planes[e].shape[1], overlaps[e], float(entries["span_agreement"][e]), float(entries["span_agreement_null"][e]))
            if overlaps
            else (-1, 0, None, None, None)
        )
        _add(columns, (cell.name, scored, b, basis_DR.shape[1], len(planes), len(blocks), *figures))


def _score_features(
    columns: dict[str, list[Any]], task: Task, listing: epath.Path, folder: epath.Path, cell: GridCell, scored: bool, truth: Truth
) -> None:
    table = read_table(folder / "diagnosis" / "features.parquet")
    saes = dictionary_list.load(listing)
    place = {seed: s for s, seed in enumerate(saes.seeds)}
    seeds, features = table["seed"].tolist(), table["feature"].astype(int)
    unit_SFD = np.asarray(similarity.unit_rows(saes.w_dec_SFD))
    unit_ND = unit_SFD[[place[seed] for seed in seeds], features]
    moving_N = np.nan_to_num(table["drift"], nan=1.0) < similarity.least_cosine(task.section(Diagnosis).settled)
    true = true_causes(truth, unit_ND, table["stratum"], moving_N, task.section(Causes))
    for row in zip(seeds, features.tolist(), table["reason"], true.reason_N, true.clear_N.tolist(), true.block_N.tolist(), strict=True):
        _add(columns, (cell.name, scored, *row))


def _summary(of_atlas: dict[str, list[Any]], of_features: dict[str, list[Any]]) -> dict[str, Any]:
    """Over the cells that nothing was tuned on; how many are right is counted among those with a cause to be guessed: neither dead nor rare nor, without another
    cause, still moving, which are seen."""
    scored, clear = np.array(of_features["scored"], bool), np.array(of_features["clear"], bool)
    true, diagnosis = np.array(of_features["true"]), np.array(of_features["found"])
    tables = {"clear": confusion(true[scored & clear], diagnosis[scored & clear]), "all": confusion(true[scored], diagnosis[scored])}
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
