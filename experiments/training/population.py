"""Which SAEs are trained: every seed in every cell of the sweep, and what each of them is given. Worked out once and passed on."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from activations.stream import Stream
from experiments.data.corpora import Text
from experiments.data.harvesting import Harvesting
from experiments.data.own_arrays import OwnRows
from experiments.data.seeds import Seeds
from experiments.data.sources import Sampling, Source
from experiments.fields import check, config, field
from experiments.stage import Task
from saes.config import SAEConfig, TrainConfig
from saes.variants import variant


@config("train")
class Rounds:
    """How many SAEs are trained at a time, and what is kept of them."""

    lanes: int = field(
        default=0, doc="SAEs in one vmap, the groups in turn; 0: 2 on CPU, as many as memory holds on an accelerator", ge=0, how=True
    )
    seeds_at_once: int = field(
        default=0, doc="SAEs trained at a time, the others after them with the same result; 0: as many as memory holds", ge=0, how=True
    )
    checkpoint_every: int = field(default=800, doc="steps; a multiple of steps_per_dispatch", gt=0, how=True)
    export_sparsify: bool = field(default=False, doc="True: also in sparsify's format, below train/sparsify (topk alone)")

    def check(self) -> None:
        for name in ("lanes", "seeds_at_once"):
            check(getattr(self, name) != 1, f"train.{name}", getattr(self, name), "0 (chosen by the device's memory) or at least 2")


@config("sweep")
class Sweep:
    """Values along the vmapped axis; every combination is trained with all seeds."""

    lr: tuple[float, ...] = field(default=(), doc="peak learning rates; (): train.lr", gt=0, distinct=True)
    k: tuple[int, ...] = field(default=(), doc="active features a token, at most sae.k; (): sae.k", gt=0, distinct=True)
    sparsity: tuple[float, ...] = field(
        default=(), doc="fixed penalty coefficients, with sae.control_rate=0 and sae.control_gain=0; (): sae.sparsity", gt=0, distinct=True
    )

    def __bool__(self) -> bool:
        return bool(self.lr or self.k or self.sparsity)


class Cell(NamedTuple):
    """One combination of the swept values.

    Attributes:
      name: its folder below `train/cells`; "" where nothing is swept.
      lr, k, sparsity: as `saes.autoencoder.Knobs`.
      world: its place among the source's worlds.
      n_features: features that its dictionaries have; 0: all of the config's.
      start: how its SAEs begin; "": as initialised.
    """

    name: str
    lr: float
    k: int
    sparsity: float
    world: int = 0
    n_features: int = 0
    start: str = ""


class Member(NamedTuple):
    """One SAE.

    Attributes:
      cell: its place among the cells.
      seed: what tells it apart in its cell.
      init_seed: of its initialisation.
      order_seed: of the order of its activations.
      half: of the documents that it sees, None: all.
      world: whose tokens it sees.
    """

    cell: int
    seed: int
    init_seed: int
    order_seed: int
    half: int | None
    world: int = 0


@dataclasses.dataclass(frozen=True)
class Population:
    """The SAEs of one training.

    Attributes:
      sae, train: of all of them; what differs is in the cells.
      rounds: how many are trained at a time.
      cells: in order.
      members: all SAEs, cell by cell, in each in the order of the seeds.
      differ_in: what the SAEs of a cell differ in, for people.
      dataset: what SAELens' metadata say of the text.
    """

    sae: SAEConfig
    train: TrainConfig
    rounds: Rounds
    cells: tuple[Cell, ...]
    members: tuple[Member, ...]
    differ_in: str
    dataset: Mapping[str, Any]


def of_study(task: Task) -> Population:
    """All that a config asks for."""
    sae, train = task.section(SAEConfig), task.section(TrainConfig)
    return make_population(
        sae,
        train,
        task.section(Rounds),
        task.section(Seeds),
        task.section(Sampling).halves,
        sweep_cells(sae, train, task.section(Sweep)),
        dataset(task),
    )


def make_population(
    sae: SAEConfig, train: TrainConfig, rounds: Rounds, seeds: Seeds, halves: bool, cells: Sequence[Cell], dataset: Mapping[str, Any]
) -> Population:
    """The seeds in every cell.

    Args:
      halves: SAEs at even places see one half of the documents, the others the other.
    """
    members = tuple(
        Member(
            cell=index,
            seed=seed,
            init_seed=seed if seeds.init_seed < 0 else seeds.init_seed,
            order_seed=seed if seeds.data_seed < 0 else seeds.data_seed,
            half=place % 2 if halves else None,
            world=cell.world,
        )
        for index, cell in enumerate(cells)
        for place, seed in enumerate(seeds.list)
    )
    differ = ["initialisation"] * (seeds.init_seed < 0) + ["order of activations"] * (seeds.data_seed < 0)
    differ_in = " and ".join(differ + ["half of the documents"] * halves) or "nothing"
    return Population(sae, train, rounds, tuple(cells), members, differ_in, dataset)


def sweep_cells(sae: SAEConfig, train: TrainConfig, sweep: Sweep) -> tuple[Cell, ...]:
    """The product of a sweep, a swept-out field standing for its single value."""
    lrs = sweep.lr or (train.peak_lr(sae.n_features),)
    ks = sweep.k or (sae.k,)
    sparsities = sweep.sparsity or (sae.sparsity or variant(sae.variant).sparsity,)
    cells = []
    for lr, k, sparsity in itertools.product(lrs, ks, sparsities):
        values = {"lr": (sweep.lr, lr), "k": (sweep.k, k), "sparsity": (sweep.sparsity, sparsity)}
        cells.append(Cell("-".join(f"{name}={value}" for name, (is_given, value) in values.items() if is_given), lr, k, sparsity))
    return tuple(cells)


def one_cell(sae: SAEConfig, train: TrainConfig) -> tuple[Cell, ...]:
    """That of a training in which nothing is swept."""
    return sweep_cells(sae, train, Sweep())


def dataset(task: Task) -> dict[str, Any]:
    """What SAELens' metadata say of the text that the SAEs of a config saw."""
    written, own, read = task.maybe(Text), task.maybe(OwnRows), task.maybe(Harvesting)
    if written is None or own is None or read is None:
        return {"dataset_path": "synthetic"}
    if own.activations:
        return {"dataset_path": own.activations}
    return {"dataset_path": written.text or "Python standard library", "context_size": read.context_length, "prepend_bos": True}


def streams(source: Source, members: Sequence[Member]) -> list[Stream]:
    """One stream a member; those who see the same share one object."""
    by_order: dict[tuple[int, int | None, int], Stream] = {}
    for m in members:
        if (m.order_seed, m.half, m.world) not in by_order:
            by_order[m.order_seed, m.half, m.world] = source.stream(m.order_seed, m.half, m.world)
    return [by_order[m.order_seed, m.half, m.world] for m in members]
