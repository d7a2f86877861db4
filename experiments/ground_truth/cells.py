"""The cells of a grid: small worlds, each with the SAEs trained on it, and which of them share a compiled program."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.data.seeds import Seeds
from experiments.data.sources import Sampling, SyntheticSource
from experiments.fields import check, config, field, fields_of, section_of
from experiments.settings import Settings
from experiments.stage import Task
from experiments.training import population
from experiments.training.population import Cell, Population, Rounds
from saes.config import SAEConfig, TrainConfig
from saes.variants import variant
from synthetic.config import WorldConfig, common_shape

RANDOM, TRUTH, HELD = "random", "truth", "held truth"
STARTS = (RANDOM, TRUTH, HELD)  # HELD: as TRUTH, and decoder rows stay there
FEATURES_STEP = 256  # cells whose dictionary sizes lie in the same so many share a program; the smaller are padded
_PLAIN = ("topk", "batchtopk")  # matryoshka's groups would follow the padded size
_SECTIONS = {"synthetic": WorldConfig, "sae": SAEConfig, "train": TrainConfig}


@config("")
class Grid:
    """Many small worlds, and from where the SAEs on them start."""

    cells: Mapping[str, Any] = field(
        default=(), doc="by name what a cell changes in synthetic, sae and train; 'at': its coordinates in a phase diagram", least=1
    )
    starts: tuple[str, ...] = field(
        default=STARTS,
        doc="truth: atoms as decoder rows, the encoder fitted to their codes; held truth: they stay",
        one_of=STARTS,
        distinct=True,
    )

    def check(self) -> None:
        names = list(self.cells)
        check(bool(names), "cells", names, "at least one")
        for name, change in self.cells.items():
            check(bool(re.fullmatch(r"[\w %+-]+", name)), "cells", name, "a name of letters, digits, blanks, %, + and -")
            check(isinstance(change, dict), f"cells.{name}", change, "a section of what the cell changes")
            if unknown := change.keys() - _SECTIONS.keys() - {"at"}:
                raise ValueError(f"config.cells.{name}.{min(unknown)} is no section: at, synthetic, sae or train")
            for part, value in change.items():
                check(isinstance(value, dict), f"cells.{name}.{part}", value, "a section")
            for axis, value in change.get("at", {}).items():
                check(isinstance(value, int | float), f"cells.{name}.at.{axis}", value, "a number")
        check(self.starts in ((RANDOM,), STARTS), "starts", self.starts, f"({RANDOM!r},) or {STARTS}")


@config("")
class Contrasts:
    """Which cells are held against each other. Their SAEs do not depend on it."""

    contrasts: tuple[tuple[str, str, str], ...] = field(
        default=(), doc="(what differs, cell, cell): figures of the first less those of the second"
    )
    reference: str = field(default="", doc="the cell shown with fewer seeds, and from all starts; '': none")


@config("")
class TunedOn:
    """Which cells decided how others are measured. Their SAEs do not depend on it either."""

    tuned_on: tuple[str, ...] = field(default=(), doc="cells on which the rules of atlas and diagnosis were chosen; they are not scored")


@dataclasses.dataclass(frozen=True)
class GridCell:
    """One world of a grid, with the SAEs trained on it; sections as in the study, with what the cell changes.

    Attributes:
      name: of its folder.
      coordinates: its coordinates in a phase diagram, () if it is in none.
    """

    name: str
    coordinates: tuple[tuple[str, float], ...]
    world: WorldConfig
    sae: SAEConfig
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that share one program: equal but for worlds, learning rate, K and dictionary size, which is that of the largest."""

    cells: tuple[GridCell, ...]
    sae: SAEConfig
    train: TrainConfig

    def source(self, task: Task) -> SyntheticSource:
        """Tokens of the cells' worlds."""
        return source_of(self.cells, task)

    def population(self, task: Task) -> Population:
        """Every seed in every cell, from every start."""
        own = variant(self.sae.variant).sparsity
        cells = [
            Cell(
                cell_name(c.name, start), c.train.peak_lr(c.sae.n_features), c.sae.k, c.sae.sparsity or own, world, c.sae.n_features, start
            )
            for world, c in enumerate(self.cells)
            for start in task.section(Grid).starts
        ]
        return population.make_population(
            self.sae, self.train, task.section(Rounds), task.section(Seeds), False, cells, {"dataset_path": "synthetic"}
        )


def all_cells(task: Task) -> tuple[GridCell, ...]:
    """Those of the config. Raises ValueError naming the field for one that cannot be trained or judged."""
    study = {"synthetic": task.section(WorldConfig), "sae": task.section(SAEConfig), "train": task.section(TrainConfig)}
    cells = []
    for name, change in task.section(Grid).cells.items():
        sections = {part: _changed(section, change.get(part, {}), f"cells.{name}.{part}") for part, section in study.items()}
        cell = GridCell(
            name,
            tuple((axis, float(value)) for axis, value in change.get("at", {}).items()),
            sections["synthetic"],
            sections["sae"],
            sections["train"],
        )
        check(cell.world.blocks > 0, "synthetic.blocks", cell.world.blocks, f"cell {name!r} has no block to judge")
        check(cell.sae.variant in _PLAIN, "sae.variant", cell.sae.variant, f"one of {_PLAIN}, whose encoders can be fitted to the truth")
        cells.append(cell)
    rows = task.section(Sampling).eval_rows
    check(rows <= 65_536, "train.eval_rows", rows, "at most 65536 in a grid")
    common_shape([c.world for c in cells])
    return tuple(cells)


def source_of(cells: Sequence[GridCell], task: Task) -> SyntheticSource:
    """Tokens of these worlds."""
    worlds = [c.world for c in cells]
    return SyntheticSource(
        worlds, task.section(Sampling), task.section(Seeds), f"{len(worlds)} synthetic worlds of width {worlds[0].width}"
    )


def groups(task: Task) -> list[Group]:
    """The cells of a config, in the order of their first."""
    by_program: dict[Any, list[GridCell]] = {}
    for cell in all_cells(task):
        same = [v for k, v in (vars(cell.sae) | vars(cell.train)).items() if k not in ("n_features", "k", "lr")]
        by_program.setdefault((-(-cell.sae.n_features // FEATURES_STEP), *same), []).append(cell)
    out = []
    for cells in by_program.values():
        features, k = (max(getattr(c.sae, name) for c in cells) for name in ("n_features", "k"))
        out.append(Group(tuple(cells), dataclasses.replace(cells[0].sae, n_features=features, k=k), cells[0].train))
    return out


def cell_name(name: str, start: str) -> str:
    """Of a cell of a grid and a start, as its folder is called."""
    return f"{name} from {start}"


def _changed(section: Any, changes: Mapping[str, Any], path: str) -> Any:
    names = {f.name for f in fields_of(type(section))}
    for name in changes:
        check(name in names, f"{path}.{name}", changes[name], f"no field of config.{section_of(type(section))}")
    return Settings([section], (), {path: {section_of(type(section)): changes}}).of_run(path)[type(section)]
