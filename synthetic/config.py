"""A world of atoms, some in general position and some crowded into blocks of low rank."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from experiments.fields import check, config, field


@config("synthetic")
class WorldConfig:
    """Every token is Σ_i a_i g_i + noise, with unit atoms g_i, of which a fixed number is active in every group.

    Groups are the free atoms (0) and the blocks (1, 2, …). Where a block's atoms are absent as many free atoms take their place, so that the number of
    active atoms stays the same: the firing rate of a block's atom is presence · active / atoms.
    """

    width: int = field(default=128, doc="of the activations", ge=2)
    free_atoms: int = field(default=256, doc="unit atoms in general position", ge=0)
    free_active: int = field(default=6, doc="of them in every token", ge=0)
    blocks: int = field(default=1, doc="planted subspaces, orthogonal to each other", ge=0)
    block_rank: int = field(default=24, doc="dimensions of each; 0: the whole space", ge=0)
    block_atoms: int = field(default=384, doc="unit atoms in each", ge=0)
    block_active: int = field(default=4, doc="of them in every token", ge=0)
    block_presence: float = field(default=1.0, doc="share of tokens that hold them; in the others free atoms take their place", gt=0, le=1)
    block_magnitude: float = field(default=0.7, doc="factor on their codes", gt=0)
    orthogonal: bool = field(default=True, doc="free atoms are orthogonal to the blocks; False: anywhere")
    zipf: float = field(default=0.0, doc="exponent of the firing law inside a group; 0: uniform", ge=0)
    code_law: str = field(default="uniform", doc="of codes; or 'half-normal'", one_of=("uniform", "half-normal"))
    code_low: float = field(default=0.5, doc="uniform codes lie between them", gt=0)
    code_high: float = field(default=1.5, doc="uniform codes lie between them", gt=0)
    code_correlation: float = field(default=0.0, doc="share of a code that all atoms of a token have in common", ge=0, le=1)
    coactivation: float = field(default=0.0, doc="probability that an active atom's neighbour is active with it", ge=0, le=1)
    noise: float = field(default=0.01, doc="standard deviation in every dimension", ge=0)
    tokens: int = field(default=0, doc="to train on, again and again; 0: always new ones", ge=0)
    seed: int = field(default=0, doc="of the atoms", ge=0)

    def check(self) -> None:
        says = lambda ok, field, rule: check(ok, f"synthetic.{field}", getattr(self, field), rule)
        says(self.free_active <= self.free_atoms, "free_active", f"at most free_atoms={self.free_atoms}")
        says(self.block_active <= self.block_atoms, "block_active", f"at most block_atoms={self.block_atoms}")
        says(self.free_active + self.blocks * self.block_active > 0, "free_active", "no atom is ever active: raise it or block_active")
        says(self.block_rank != 1, "block_rank", "0 (the whole space) or at least 2: in one dimension every direction is the same")
        says(self.blocks == 0 or self.block_atoms > 0, "block_atoms", f"none in {self.blocks} blocks: blocks=0 for a world without")
        taken = self.blocks * self.block_rank
        says(taken <= self.width, "block_rank", f"{self.blocks} blocks of it do not fit into width {self.width}")
        says(
            not (self.orthogonal and self.free_atoms and self.blocks) or (0 < taken < self.width), "orthogonal",
            "blocks leave no room for free atoms beside them; False puts free atoms anywhere",
        )  # fmt: skip
        says(self.code_low <= self.code_high, "code_low", f"above 0 and at most code_high={self.code_high}")
        says(
            self.block_presence == 1 or self.free_active + self.blocks * self.block_active <= self.free_atoms, "block_presence",
            f"free_atoms={self.free_atoms} are too few to take the place of absent blocks",
        )  # fmt: skip
        says(self.code_law == "uniform" or self.code_correlation == 0, "code_correlation", "0 for half-normal codes")

    @property
    def subject(self) -> str:
        """For people."""
        blocks = f"{self.blocks} block{'s' * (self.blocks != 1)} of {self.block_atoms} in rank {self.rank}"
        return f"a synthetic world of width {self.width}: {self.free_atoms} free atoms, {blocks}, seed {self.seed}"

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


@config("recovery")
class Recovery:
    """How what was learned is held against the truth."""

    found: float = field(default=0.9, doc="cosine from which an atom counts as found", gt=0, le=1)
    theta: float = field(default=0.7, doc="cosine from which latents of two seeds count as the same", gt=0, le=1)
    unstable_below: float = field(default=0.5, doc="latents with p̂ at theta below this are the unstable ones", gt=0, le=1)
    tie: float = field(default=0.005, doc="explained variances closer than this are equal (verdicts)", gt=0, lt=1)
