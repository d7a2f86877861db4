"""The one place where devices become a mesh."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """All devices along `seed`; `data` and `model` have width 1 until a run needs them."""
    return jax.make_mesh((jax.device_count(), 1, 1), ("seed", "data", "model"), axis_types=(AxisType.Auto,) * 3)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def over_seeds(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("seed"))
