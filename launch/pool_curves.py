"""Curves of pools: which points they have, and which of these are trained on."""

from typing import Any, NamedTuple

from launch import pools
from launch.pools import FREE, PHASES, Recipe

SIZES, THETAS, FEATURES = "pooled SAEs", "θ of the pool", "features"
FIELDS = {SIZES: "sizes", THETAS: "thetas", FEATURES: "features"}  # of config.pool, and in names of files


class Point(NamedTuple):
    """A pool in which one thing is not as in the others.

    Attributes:
      over: what is varied, of `FIELDS`.
      at: its value.
      recipe: how the pool is made.
      size: of how many SAEs.
    """

    over: str
    at: float
    recipe: Recipe
    size: int

    @property
    def name(self) -> str:
        return f"{FIELDS[self.over]}-{self.at:g}"


def points(config: Any, kind: str, *overs: str) -> list[Point]:
    """Of curves over some things, or over all."""
    c, base = config.pool, pools.recipe(config, kind)
    f = base.features
    every = [
        *(Point(SIZES, size, base, size) for size in c.sizes),
        *(Point(THETAS, theta, base._replace(theta=theta), c.group) for theta in c.thetas),
        *(Point(FEATURES, n, base._replace(features=n), c.group) for n in c.features or (f // 4, f // 2, f, 2 * f)),
    ]
    return [p for p in every if not overs or p.over in overs]


def tuned_kind(config: Any) -> str | None:
    """The kind whose curves are also of pools that were trained on: the headline's, where it is tuned."""
    kind, _, phase = config.pool.headline.partition(", ")
    return kind if config.pool.curves and phase == PHASES[FREE] else None


def trained_on(config: Any) -> list[Point]:
    """Points that are trained on for their own sake: others are the kind itself, or larger than the SAEs, beside which they are trained."""
    kind = tuned_kind(config)
    if kind is None:
        return []
    return [p for p in points(config, kind) if not usual(config, p) and p.recipe.features <= config.sae.n_features]


def usual(config: Any, p: Point) -> bool:
    """Whether nothing is varied at all."""
    return p.recipe == pools.recipe(config, p.recipe.kind) and p.size == config.pool.group
