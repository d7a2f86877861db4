"""A world of atoms, some in general position and some crowded into blocks of low rank."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """Every token is Σ_i a_i g_i + noise, with unit atoms g_i, of which a fixed number is active in every group.

    Groups are the free atoms (0) and the blocks (1, 2, …).

    Attributes:
      width: of the activations (D).
      free_atoms, free_active: atoms in general position, and how many of them a token holds.
      blocks: planted subspaces, orthogonal to each other.
      block_rank: dimensions of each; 0: the whole space.
      block_atoms, block_active: atoms in each, and how many of them a token holds.
      block_presence: share of tokens that hold a block's atoms; in the others as many free atoms take their place, so that the number
        of active atoms stays the same. The firing rate of a block's atom is presence · active / atoms.
      block_magnitude: factor on the codes of blocks.
      orthogonal: free atoms are orthogonal to the blocks; else anywhere.
      zipf: exponent of the firing law inside a group, weight of its i-th atom ∝ i^−zipf; 0: uniform.
      code_law: "uniform" between `code_low` and `code_high`, or "half-normal": |N(0, 1)|, which uses neither of them.
      code_low, code_high: bounds of uniform codes.
      code_correlation: share c of a code that all atoms of a token have in common; of uniform codes alone, whose variance it multiplies by
        c² + (1−c)².
      coactivation: probability that the right neighbour (2j+1) of an active atom (2j) is active with it, beyond chance.
      noise: standard deviation in every dimension.
      tokens: that there are to train on, gone over again and again in one order; 0: as many as are asked for.
      seed: of atoms; tokens are keyed by the order's seed and their place.
    """

    width: int
    free_atoms: int
    free_active: int
    blocks: int
    block_rank: int
    block_atoms: int
    block_active: int
    block_presence: float
    block_magnitude: float
    orthogonal: bool
    zipf: float
    code_law: str
    code_low: float
    code_high: float
    code_correlation: float
    coactivation: float
    noise: float
    tokens: int
    seed: int

    def __post_init__(self):
        def check(ok: bool, field: str, rule: str) -> None:
            if not ok:
                raise ValueError(f"config.synthetic.{field}={getattr(self, field)!r}: {rule}")

        check(self.width >= 2, "width", "at least 2")
        for field in (
            "free_atoms",
            "free_active",
            "blocks",
            "block_rank",
            "block_atoms",
            "block_active",
            "noise",
            "zipf",
            "tokens",
            "seed",
        ):
            check(getattr(self, field) >= 0, field, "must not be negative")
        check(self.free_active <= self.free_atoms, "free_active", f"at most free_atoms={self.free_atoms}")
        check(self.block_active <= self.block_atoms, "block_active", f"at most block_atoms={self.block_atoms}")
        check(self.free_active + self.blocks * self.block_active > 0, "free_active", "no atom is ever active: raise it or block_active")
        check(self.block_rank != 1, "block_rank", "0 (the whole space) or at least 2: in one dimension every direction is the same")
        check(self.blocks == 0 or self.block_atoms > 0, "block_atoms", f"none in {self.blocks} blocks: blocks=0 for a world without")
        taken = self.blocks * self.block_rank
        check(taken <= self.width, "block_rank", f"{self.blocks} blocks of it do not fit into width {self.width}")
        check(
            not (self.orthogonal and self.free_atoms and self.blocks) or (0 < taken < self.width), "orthogonal",
            "blocks leave no room for free atoms beside them; False puts free atoms anywhere",
        )  # fmt: skip
        check(self.code_law in ("uniform", "half-normal"), "code_law", "'uniform' or 'half-normal'")
        check(0 < self.code_low <= self.code_high, "code_low", f"above 0 and at most code_high={self.code_high}")
        check(0 < self.block_presence <= 1, "block_presence", "above 0 and at most 1")
        check(
            self.block_presence == 1 or self.free_active + self.blocks * self.block_active <= self.free_atoms, "block_presence",
            f"free_atoms={self.free_atoms} are too few to take the place of absent blocks",
        )  # fmt: skip
        check(self.block_magnitude > 0, "block_magnitude", "must be above 0")
        for field in ("code_correlation", "coactivation"):
            check(0 <= getattr(self, field) <= 1, field, "between 0 and 1")
        check(self.code_law == "uniform" or self.code_correlation == 0, "code_correlation", "0 for half-normal codes")

    @property
    def rank(self) -> int:
        """Dimensions of a block."""
        return self.block_rank or self.width

    @property
    def block_rate(self) -> float:
        """Mean firing rate of a block's atoms, without `coactivation`."""
        return self.block_presence * self.block_active / self.block_atoms if self.block_atoms else 0.0

    @property
    def energies(self) -> tuple[float, ...]:
        """Rate · magnitude² of an atom of each group, the free ones first: its share of the energy up to a factor, without `zipf`."""
        free = (self.free_active + (1 - self.block_presence) * self.blocks * self.block_active) / max(self.free_atoms, 1)
        return (free,) + (self.block_rate * self.block_magnitude**2,) * self.blocks

    @property
    def active(self) -> int:
        """Atoms active in a token, without `coactivation`."""
        return self.free_active + self.blocks * self.block_active

    def shape(self) -> "Shape":
        most_free = self.free_active if self.block_presence == 1 else self.active
        return Shape(
            width=self.width,
            atoms=(self.free_atoms,) + (self.block_atoms,) * self.blocks,
            most=(most_free,) + (self.block_active,) * self.blocks,
            neighbours=self.coactivation > 0,
            half_normal=self.code_law == "half-normal",
        )


class Shape(NamedTuple):
    """What a program that draws tokens is compiled for; worlds may be padded to a larger one.

    Attributes:
      width: of the activations.
      atoms: of every group, the free ones first.
      most: active atoms of every group that a token may hold.
      neighbours: whether any fire along with others.
      half_normal: the law of codes.
    """

    width: int
    atoms: tuple[int, ...]
    most: tuple[int, ...]
    neighbours: bool
    half_normal: bool

    def groups(self) -> list[tuple[int, int]]:
        """(first, last) atom of every group."""
        ends = list(itertools.accumulate(self.atoms))
        return [(end - size, end) for end, size in zip(ends, self.atoms, strict=True)]


def common_shape(worlds: Sequence[WorldConfig]) -> Shape:
    """The smallest that all fit into.

    Raises:
      ValueError: worlds of different width, number of blocks or law of codes.
    """
    shapes = [w.shape() for w in worlds]
    if len({(s.width, len(s.atoms), s.half_normal) for s in shapes}) > 1:
        raise ValueError("config.cells: synthetic.width, blocks and code_law must be the same in all cells")
    largest = lambda field: tuple(max(sizes) for sizes in zip(*(getattr(s, field) for s in shapes), strict=True))
    return Shape(shapes[0].width, largest("atoms"), largest("most"), any(s.neighbours for s in shapes), shapes[0].half_normal)


@dataclasses.dataclass(frozen=True)
class Recovery:
    """How what was learned is held against the truth; see `configs/common.py`."""

    found: float
    theta: float
    unstable_below: float
    tie: float

    def __post_init__(self):
        for field in ("found", "theta", "unstable_below"):
            if not 0 < getattr(self, field) <= 1:
                raise ValueError(f"config.recovery.{field}={getattr(self, field)}: above 0 and at most 1")
        if not 0 < self.tie < 1:
            raise ValueError(f"config.recovery.tie={self.tie}: between 0 and 1")
