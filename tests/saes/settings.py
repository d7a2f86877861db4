"""Small settings for tests, from the defaults that users get."""

from typing import Any

import jax
import jax.numpy as jnp

from saes import variants
from saes.autoencoder import Knobs
from saes.config import SAEConfig, TrainConfig

D = 12
VARIANTS = tuple(sorted(variants.VARIANTS))


def sae(**changes: Any) -> SAEConfig:
    small = {"n_features": 48, "k": 4, "dead_after_tokens": 64, "prefix_fractions": (0.25, 0.25, 0.5)}
    return SAEConfig(**(small | changes))


def train(**changes: Any) -> TrainConfig:
    small = {"tokens": 640, "batch_size": 16, "warmup_fraction": 0.1, "steps_per_dispatch": 4, "snapshots": 4}
    return TrainConfig(**(small | changes))


def knobs(k: int = 4, sparsity: float = 0.5, lr: float = 3e-3) -> Knobs:
    return Knobs(lr=jnp.float32(lr), k=jnp.int32(k), sparsity=jnp.float32(sparsity), decoder_rate=jnp.float32(1.0))


def batches(n: int = 4, seed: int = 0, width: int = D) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (n, 16, width))


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((1, 1, 1), ("seed", "data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
