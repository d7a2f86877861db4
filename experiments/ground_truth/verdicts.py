"""Stage: every cell of a grid against its truth, and why its latents differ between seeds.

cells.parquet       a row per cell, start, group, level and figure, with interval over seeds and chance
verdicts.parquet    a row per cell: coordinates, the figures that decide, the verdict
contrasts.parquet   figures of one cell less those of another
seeds.parquet       the reference cell's figures as they would be with fewer seeds
block_3d.parquet    latents and atoms of a block of rank 3 in its own coordinates, where a cell has one
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.data import dictionary_list
from experiments.data.seeds import Seeds
from experiments.data.sources import Sampling
from experiments.fields import check
from experiments.ground_truth import grid
from experiments.ground_truth import recovery as of_cell
from experiments.ground_truth.cells import HELD, RANDOM, TRUTH, Contrasts, Grid, GridCell, all_cells, cell_name, groups
from experiments.ground_truth.recovery import LATENT, SUBSPACE
from experiments.reappearance.labels import LabelRule
from experiments.stage import Outputs, Stage, Task
from runtime import interrupts
from saes.config import SAEConfig, TrainConfig
from saes.evaluation import evaluate_each, explained_inside
from stability import aggregates, reappearance, similarity
from stability.aggregates import pair_mean, seed_mean
from stability.estimates import Estimate
from synthetic import recovery
from synthetic.config import Recovery, WorldConfig
from synthetic.generator import Truth
from synthetic.oracle import given_of_groups
from synthetic.verdicts import verdict

STAGE = Stage(config=Recovery, reads=(Grid, Contrasts, LabelRule, WorldConfig, SAEConfig, TrainConfig, Sampling, Seeds), needs=("grid",))

BATCH = 1024
SEED_COUNTS = (2, 4, 8, 16, 32)


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    c, names = task.section(Contrasts), list(task.section(Grid).cells)
    for contrast in c.contrasts:
        check(set(contrast[1:]) <= set(names), "contrasts", contrast, f"(what differs, cell, cell) of {names}")
    check(c.reference in ("", *names), "reference", c.reference, f"one of the cells {names}, or '' for none")


class Trained(NamedTuple):
    """The SAEs of one cell and start.

    Attributes:
      unit_SFD: decoder rows, zeros where dead.
      alive_SF: fires on held-out tokens.
      explained_variance_S: of them.
      inside_S: of them inside the first block's span (everything, where the block has full rank).
    """

    unit_SFD: np.ndarray
    alive_SF: np.ndarray
    explained_variance_S: np.ndarray
    inside_S: np.ndarray

    def first(self, start: int, count: int) -> "Trained":
        """Some of the seeds alone."""
        return Trained(*(a[start : start + count] for a in self))


def run(task: Task, out: Outputs) -> None:
    starts, reference, every = task.section(Grid).starts, task.section(Contrasts).reference, all_cells(task)
    trained, truths = _load(task)
    cells: dict[str, list[Any]] = {n: [] for n in ("cell", "start", "group", "level", "figure", "value", "low", "high", "null", "unit")}
    rows: dict[str, list[Any]] = {"cell": [], "verdict": [], **{axis: [] for axis in _axes(every)}}
    decided = {}
    for cell in every:
        interrupts.raise_if_stop_requested("verdicts: nothing is lost")
        figures_by_start = {}
        for start in starts:
            one = trained[cell.name, start]
            figures_by_start[start] = of_cell.measure(
                task.section(Recovery), task.section(LabelRule), cell.world, one.unit_SFD, one.alive_SF
            )
            of_seeds = functools.partial(seed_mean, one.explained_variance_S)
            figures_by_start[start]["all", LATENT, "explained variance"] = _knife(task, of_seeds, "share", null=0.0)
            of_block = functools.partial(seed_mean, one.inside_S)
            figures_by_start[start][of_cell.group_names(cell.world.blocks)[1], SUBSPACE, "explained variance inside"] = _knife(
                task, of_block, "share", null=0.0
            )
            for (group, level, figure), e in figures_by_start[start].items():
                record = (cell.name, start, group, level, figure, e.value, e.low, e.high, e.null, e.unit)
                for column, value in zip(cells, record, strict=True):
                    cells[column].append(value)
        figures = _deciding(task, cell, {s: trained[cell.name, s] for s in starts}, figures_by_start, truths[cell.name])
        decided[cell.name] = figures
        for axis in _axes(every):
            rows[axis].append(dict(cell.coordinates).get(axis))
        rows["cell"].append(cell.name)
        deciding = {name: figures[name] for name in ("p", "kept", "gain", "worth", "leaving") if name in figures}
        cell_verdict = (
            verdict(**deciding, found=figures["atoms found"], latents=figures["latents"].value or 0.0, tie=task.section(Recovery).tie)
            if "leaving" in deciding
            else "undecided"
        )
        rows["verdict"].append(cell_verdict)
        for name, e in figures.items():
            for part in ("value", "low", "high", "null"):
                rows.setdefault(f"{name}, {part}" if part != "value" else name, []).append(getattr(e, part))
    contrasts = _contrasts(task, trained, truths)
    out.table("cells", cells)
    out.table("verdicts", rows)
    if reference:
        fewer = _fewer_seeds(task, trained[reference, RANDOM], truths[reference])
        out.table("seeds", fewer)
    if contrasts["what"]:
        out.table("contrasts", contrasts)
    in_3d = _block_in_3d(task.section(Seeds), every, trained, truths)
    if in_3d:
        out.table("block_3d", in_3d)
    summary = {
        name: {"verdict": v} | {k: e.as_dict() for k, e in decided[name].items()}
        for name, v in zip(rows["cell"], rows["verdict"], strict=True)
    }
    out.summary({"cells": summary, "contrasts": _records(contrasts)})
    _print(summary, _records(contrasts))


def _axes(every: Sequence[GridCell]) -> list[str]:
    return list(dict.fromkeys(axis for cell in every for axis, _ in cell.coordinates))


def _load(task: Task) -> tuple[dict[tuple[str, str], Trained], dict[str, Truth]]:
    trained, truths = {}, {}
    for i, group in enumerate(groups(task)):
        source = group.source(task)
        for world, cell in enumerate(group.cells):
            truths[cell.name] = source.truths[world]
            x_ND = source.held_out(world)
            for start in task.section(Grid).starts:
                saes = dictionary_list.load(grid.home(task, i, cell.name, start) / dictionary_list.NAME)
                evaluation = evaluate_each(saes.dictionaries, functools.partial(_batches, x_ND), 1)
                alive_SF = evaluation.firings_SF > 0
                unit_SFD = np.where(alive_SF[..., None], similarity.unit_rows(saes.w_dec_SFD), 0.0).astype(np.float32)
                inside_S = explained_inside(saes.dictionaries, x_ND, source.truths[world].bases[0])
                trained[cell.name, start] = Trained(unit_SFD, alive_SF, evaluation.explained_variance_S, inside_S)
    return trained, truths


def _batches(x_ND: np.ndarray) -> list[np.ndarray]:
    return [x_ND[n : n + BATCH] for n in range(0, len(x_ND), BATCH)]


def _knife(task: Task, statistic: Callable[..., float], unit: str, null: float | None = None, **others: Any) -> Estimate:
    return aggregates.jackknifed(
        statistic, len(task.section(Seeds).list), task.section(LabelRule).confidence, null=null, unit=unit, **others
    )


def _deciding(
    task: Task, cell: GridCell, saes_by_start: dict[str, Trained], figures_by_start: dict[str, Any], truth: Truth
) -> dict[str, Estimate]:
    """The first block's figures from random starts, and what SAEs from the truth add."""
    c = task.section(Recovery)
    name = of_cell.group_names(cell.world.blocks)[1]
    random = figures_by_start[RANDOM]
    out = {
        "latents": random[name, LATENT, "latents"],
        "p": random[name, LATENT, f"p̂ at {c.found:g}"],
        "p loose": random[name, LATENT, f"p̂ at {c.theta:g}"],
        "atoms found": random[name, LATENT, f"atoms found at {c.found:g}"],
        "span overlap, seeds": random[name, SUBSPACE, "top plane, overlap between seeds, all its latents"],
        "span overlap, planted": random[name, SUBSPACE, "top plane, overlap with the planted one, all its latents"],
        "free p": random["free", LATENT, f"p̂ at {c.found:g}"],
        "explained variance": random["all", LATENT, "explained variance"],
        "explained variance inside": random[name, SUBSPACE, "explained variance inside"],
    }
    if TRUTH in saes_by_start:
        held_SG = recovery.atom_recovery(truth, saes_by_start[TRUTH].unit_SFD, c.found).found_SG[:, 1]
        n_given = given_of_groups(truth, cell.world.energies, cell.sae.n_features)[1]  # a smaller dictionary starts at a part of the atoms
        kept_S = held_SG * cell.world.block_atoms / n_given if n_given else np.full(len(held_SG), np.nan)
        out["kept"] = _knife(task, functools.partial(seed_mean, np.minimum(kept_S, 1.0)), "share of atoms started at", bounds=(0.0, 1.0))
        for name, start, less in (("gain", TRUTH, RANDOM), ("worth", HELD, RANDOM), ("leaving", TRUTH, HELD)):
            difference_S = saes_by_start[start].inside_S - saes_by_start[less].inside_S
            out[name] = _knife(task, functools.partial(seed_mean, difference_S), "explained variance inside the block", null=0.0)
    return out


def _statistics(task: Task, one: Trained, truth: Truth) -> dict[str, Callable[[np.ndarray], float]]:
    """Figures of the first block as functions of seeds' weights."""
    cosine_SSF = similarity.all_pairs(one.unit_SFD, block_size=task.section(LabelRule).block_size).cosine
    among_SF = (recovery.group_of_latents(truth, one.unit_SFD) == 1) & one.alive_SF
    out: dict[str, Callable[[np.ndarray], float]] = {}
    for theta in (task.section(Recovery).found, task.section(Recovery).theta):
        of_pairs = aggregates.share_reappearing(reappearance.reappears(cosine_SSF, theta), among_SF)
        out[f"p̂ at {theta:g}"] = functools.partial(pair_mean, of_pairs)
    found_S = recovery.atom_recovery(truth, one.unit_SFD, task.section(Recovery).found).found_SG[:, 1]
    out["atoms found"] = functools.partial(seed_mean, found_S)
    out["unstable share"] = aggregates.label_share(
        reappearance.reappears(cosine_SSF, task.section(Recovery).theta), among_SF, task.section(LabelRule).epsilon, stable=False
    )
    return out


def _contrasts(task: Task, trained: dict[tuple[str, str], Trained], truths: dict[str, Truth]) -> dict[str, list[Any]]:
    """Differences between cells, and of the reference cell between starts; seeds are paired."""
    c = task.section(Contrasts)
    out: dict[str, list[Any]] = {n: [] for n in ("what", "of", "less", "figure", "value", "low", "high")}
    pairs = [(what, (a, RANDOM), (b, RANDOM)) for what, a, b in c.contrasts]
    if TRUTH in task.section(Grid).starts and c.reference:
        pairs.append(("the start", (c.reference, TRUTH), (c.reference, RANDOM)))
    for what, a, b in pairs:
        more, less = (_statistics(task, trained[place], truths[place[0]]) for place in (a, b))
        for figure in more:
            if figure == "unstable share":
                continue
            difference = lambda w, f=more[figure], g=less[figure]: f(w) - g(w)
            e = _knife(task, difference, "difference", null=0.0, bounds=(-1.0, 1.0))
            for column, value in zip(out, (what, cell_name(*a), cell_name(*b), figure, e.value, e.low, e.high), strict=True):
                out[column].append(value)
    return out


def _fewer_seeds(task: Task, one: Trained, truth: Truth) -> dict[str, list[Any]]:
    """Mean and range over disjoint sets of so many seeds."""
    s = len(one.unit_SFD)
    out: dict[str, list[Any]] = {n: [] for n in ("seeds", "sets", "figure", "value", "lowest", "highest")}
    for count in [n for n in SEED_COUNTS if n < s] + [s]:
        # Subsets and not weights: how many comparisons a label may miss follows from how many there are.
        of_sets = [_statistics(task, one.first(first, count), truth) for first in range(0, s - count + 1, count)]
        for figure in of_sets[0]:
            values = [statistics[figure](np.ones(count)) for statistics in of_sets]
            record = (count, len(values), figure, float(np.mean(values)), float(np.min(values)), float(np.max(values)))
            for column, value in zip(out, record, strict=True):
                out[column].append(value)
    return out


def _block_in_3d(
    seeds: Seeds, every: Sequence[GridCell], trained: dict[tuple[str, str], Trained], truths: dict[str, Truth]
) -> dict[str, list[Any]]:
    """The cell of rank 3 with the most atoms: what three seeds found in the block, unit vectors in its basis."""
    cells = [c for c in every if c.world.block_rank == 3 and c.world.blocks]
    if not cells:
        return {}
    cell = max(cells, key=lambda c: c.world.block_atoms)
    one, truth = trained[cell.name, RANDOM], truths[cell.name]
    group_SF = recovery.group_of_latents(truth, one.unit_SFD)
    out: dict[str, list[Any]] = {n: [] for n in ("cell", "what", "x", "y", "z")}
    points = [("atom", row @ truth.bases[0]) for row in truth.atoms_AD[truth.group_A == 1]]
    for s in range(min(3, len(one.unit_SFD))):
        points += [(f"latent of seed {seeds.list[s]}", row @ truth.bases[0]) for row in one.unit_SFD[s][group_SF[s] == 1]]
    for what, point in points:
        x, y, z = point / np.linalg.norm(point)  # of a latent its direction inside the block
        for column, value in zip(out, (cell.name, what, float(x), float(y), float(z)), strict=True):
            out[column].append(value)
    return out


def _records(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _print(summary: dict[str, Any], contrasts: list[dict[str, Any]]) -> None:
    text = lambda e: (
        "–" if e["value"] is None else f"{e['value']:.3f}" + ("" if e["low"] is None else f" [{e['low']:.3f}, {e['high']:.3f}]")
    )
    columns = ("p", "atoms found", "span overlap, planted", "kept", "gain", "worth", "leaving")
    print(f"\n{'cell':24} " + " ".join(f"{c:>24}" for c in columns) + "  verdict")
    for name, s in summary.items():
        print(f"{name:24} " + " ".join(f"{text(s[c]) if c in s else '–':>24}" for c in columns) + f"  {s['verdict']}")
    for c in contrasts:
        print(f"{c['what']}: {c['figure']} of {c['of']} less {c['less']}: {text(c)}")
