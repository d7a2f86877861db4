"""A world of atoms, some in general position and some crowded into blocks of low rank."""

import dataclasses


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
      block_magnitude: factor on the codes of blocks.
      orthogonal: free atoms are orthogonal to the blocks; else anywhere.
      zipf: exponent of the firing law inside a group, weight of its i-th atom ∝ i^−zipf; 0: uniform.
      code_low, code_high: codes are uniform between them.
      code_correlation: share of a code that all atoms of a token have in common.
      coactivation: probability that the right neighbour (2j+1) of an active atom (2j) is active with it, beyond chance.
      noise: standard deviation in every dimension.
      seed: of atoms; tokens are keyed by the order's seed and their place.
    """

    width: int
    free_atoms: int
    free_active: int
    blocks: int
    block_rank: int
    block_atoms: int
    block_active: int
    block_magnitude: float
    orthogonal: bool
    zipf: float
    code_low: float
    code_high: float
    code_correlation: float
    coactivation: float
    noise: float
    seed: int

    def __post_init__(self):
        def check(ok: bool, field: str, rule: str) -> None:
            if not ok:
                raise ValueError(f"config.synthetic.{field}={getattr(self, field)!r}: {rule}")

        check(self.width >= 2, "width", "at least 2")
        for field in ("free_atoms", "free_active", "blocks", "block_rank", "block_atoms", "block_active", "noise", "zipf", "seed"):
            check(getattr(self, field) >= 0, field, "must not be negative")
        check(self.free_active <= self.free_atoms, "free_active", f"at most free_atoms={self.free_atoms}")
        check(self.block_active <= self.block_atoms, "block_active", f"at most block_atoms={self.block_atoms}")
        check(self.free_active + self.blocks * self.block_active > 0, "free_active", "no atom is ever active: raise it or block_active")
        taken = self.blocks * self.block_rank
        check(taken <= self.width, "block_rank", f"{self.blocks} blocks of it do not fit into width {self.width}")
        check(
            not (self.orthogonal and self.free_atoms and self.blocks) or (0 < taken < self.width), "orthogonal",
            "blocks leave no room for free atoms beside them; False puts free atoms anywhere",
        )  # fmt: skip
        check(0 < self.code_low <= self.code_high, "code_low", f"above 0 and at most code_high={self.code_high}")
        check(self.block_magnitude > 0, "block_magnitude", "must be above 0")
        for field in ("code_correlation", "coactivation"):
            check(0 <= getattr(self, field) <= 1, field, "between 0 and 1")

    @property
    def rank(self) -> int:
        """Dimensions of a block."""
        return self.block_rank or self.width

    def groups(self) -> list[tuple[int, int]]:
        """(first, last) atom of every group, the free ones first (left out where there are none)."""
        sizes = [self.free_atoms] + [self.block_atoms] * self.blocks
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return [(end - size, end) for end, size in zip(ends, sizes, strict=True)]
