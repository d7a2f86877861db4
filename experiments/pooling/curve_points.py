"""Curves of pools: which points they have, and which of these are trained on."""

from typing import NamedTuple

from experiments.pooling import pools
from experiments.pooling.pools import FREE, Pooling, Recipe

SIZES, THETAS, FEATURES = "pooled SAEs", "θ of the pool", "features"
FIELDS = {SIZES: "sizes", THETAS: "thetas", FEATURES: "features"}  # of config.pool, and in names of files


class Point(NamedTuple):
    """A pool in which one thing is not as in the others.

    Attributes:
      variable: what is varied, of `FIELDS`.
      value: its value.
      recipe: how the pool is made.
      size: of how many SAEs.
    """

    variable: str
    value: float
    recipe: Recipe
    size: int

    @property
    def name(self) -> str:
        return f"{FIELDS[self.variable]}-{self.value:g}"


def points(c: Pooling, features: int, kind: str, *variables: str) -> list[Point]:
    """Of curves over some things, or over all.

    Args:
      features: of a single SAE.
    """
    base = pools.recipe(c, features, kind)
    every = [
        *(Point(SIZES, size, base, size) for size in c.sizes),
        *(Point(THETAS, theta, base._replace(theta=theta), c.group) for theta in c.thetas),
        *(
            Point(FEATURES, n, base._replace(features=n), c.group)
            for n in c.features or (features // 4, features // 2, features, 2 * features)
        ),
    ]
    return [p for p in every if not variables or p.variable in variables]


def tuned_kind(c: Pooling) -> str | None:
    """The kind whose curves are also of pools that were trained on: the headline's, where it is tuned."""
    way = c.headline_way
    return way.kind if c.curves and way.phase == FREE else None


def trained_on(c: Pooling, features: int) -> list[Point]:
    """Points that are trained on for their own sake: others are the kind itself, or larger than the SAEs, beside which they are trained."""
    kind = tuned_kind(c)
    if kind is None:
        return []
    return [p for p in points(c, features, kind) if not usual(c, features, p) and p.recipe.features <= features]


def usual(c: Pooling, features: int, p: Point) -> bool:
    """Whether nothing is varied at all."""
    return p.recipe == pools.recipe(c, features, p.recipe.kind) and p.size == c.group
