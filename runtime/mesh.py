"""The one place where devices become a mesh."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """All devices along `seed`, for training SAEs."""
    return jax.make_mesh((jax.device_count(), 1, 1), ("seed", "data", "model"), axis_types=(AxisType.Auto,) * 3)


def make_language_mesh(model_parallel: int) -> Mesh:
    """This host's devices, for language models: `model_parallel` of them share a copy, batches are cut over the copies.

    Raises:
      ValueError: the devices cannot be divided so.
    """
    devices = jax.local_devices()
    if len(devices) % model_parallel:
        raise ValueError(f"config.lm.model_parallel={model_parallel}: must divide this host's {len(devices)} devices")
    shape = (1, len(devices) // model_parallel, model_parallel)
    return jax.make_mesh(shape, ("seed", "data", "model"), axis_types=(AxisType.Auto,) * 3, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def over_seeds(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("seed"))
