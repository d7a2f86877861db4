"""Which SAEs a config asks for: every seed in every cell of the sweep, and what each of them is given."""

import itertools
from typing import Any, NamedTuple

from saes.variants import variant

RANDOM, TRUTH, HELD = "random", "truth", "held truth"
STARTS = (RANDOM, TRUTH, HELD)  # HELD: as TRUTH, and decoder rows stay there


class Cell(NamedTuple):
    """One combination of the swept values.

    Attributes:
      name: its folder below `train/cells`; "" where nothing is swept.
      lr, k, sparsity: as `saes.autoencoder.Knobs`.
      world: its place among the source's worlds.
      n_features: features that its dictionaries have; 0: all of the config's.
      start: one of `STARTS`.
    """

    name: str
    lr: float
    k: int
    sparsity: float
    world: int = 0
    n_features: int = 0
    start: str = RANDOM


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


def cells(config: Any) -> list[Cell]:
    """The product of `config.sweep`, a swept-out field standing for its single value; of a grid its cells, from every start."""
    own = variant(config.sae.variant).sparsity
    if hasattr(config, "cells"):
        return [
            Cell(
                cell_name(c.name, start), c.train.peak_lr(c.sae.n_features), c.sae.k, c.sae.sparsity or own, world, c.sae.n_features, start
            )
            for world, c in enumerate(config.cells)
            for start in config.starts
        ]
    sweep = config.sweep
    lrs = sweep.lr or (config.train.peak_lr(config.sae.n_features),)
    ks = sweep.k or (config.sae.k,)
    sparsities = sweep.sparsity or (config.sae.sparsity or own,)
    found = []
    for lr, k, sparsity in itertools.product(lrs, ks, sparsities):
        swept = {"lr": (sweep.lr, lr), "k": (sweep.k, k), "sparsity": (sweep.sparsity, sparsity)}
        name = ",".join(f"{field}={value}" for field, (values, value) in swept.items() if values)
        found.append(Cell(name, lr, k, sparsity))
    return found


def cell_name(name: str, start: str) -> str:
    """Of a cell of a grid and a start."""
    return f"{name} from {start}"


def members(config: Any) -> list[Member]:
    """All SAEs, cell by cell, in each in the order of the seeds."""
    return [
        Member(
            cell=index,
            seed=seed,
            init_seed=seed if config.init_seed < 0 else config.init_seed,
            order_seed=seed if config.data_seed < 0 else config.data_seed,
            half=place % 2 if config.train.halves else None,
            world=cell.world,
        )
        for index, cell in enumerate(cells(config))
        for place, seed in enumerate(config.seed_list)
    ]
