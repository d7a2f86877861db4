"""Seeds in one vmap against groups in turn, and ways to find the top k: in turn, in one run.

python -m benchmarks.step [--seeds=8 --features=512 --batch=512]
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from configs import common
from launch.config import validated
from launch.mesh import make_mesh
from saes.dictionary import top_k_mask
from saes.step import init_seeds, make_train_steps, plan_seeds

_SEEDS = flags.DEFINE_integer("seeds", 8, "SAEs trained together.")
_FEATURES = flags.DEFINE_integer("features", 512, "Dictionary size.")
_BATCH = flags.DEFINE_integer("batch", 512, "Activations a step.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Measurements of each, in turn.")
WIDTH, STEPS = 128, 16


def in_turn(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one warm-up, measured a, b, c, a, b, c, …"""
    for run in contestants.values():
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(s)) for name, s in seconds.items()}


def report(title: str, seconds: dict[str, float], per: int) -> None:
    best = min(seconds.values())
    print(f"\n{title} ({jax.devices()[0].device_kind})")
    for name, s in seconds.items():
        print(f"  {name:28} {1e3 * s / per:8.2f} ms   {s / best:5.2f} × the fastest")


def training_step(lanes: int) -> Callable[[], Any]:
    study = validated(common.study())
    sae = dataclasses.replace(study.sae, n_features=_FEATURES.value)
    train = dataclasses.replace(study.train, batch_size=_BATCH.value)
    plan = plan_seeds(tuple(range(_SEEDS.value)), jax.device_count(), jax.devices()[0].platform, lanes)
    mesh = make_mesh()
    batches = jax.random.normal(jax.random.key(0), (STEPS, _BATCH.value, WIDTH))
    run = make_train_steps(plan, sae, train, mesh)
    holder = [init_seeds(plan, sae, train, jnp.zeros(WIDTH), mesh)]

    def once() -> Any:
        holder[0], metrics = run(holder[0], batches)
        return metrics

    return once


def bit_search_mask(values: jax.Array, k: int) -> jax.Array:
    """Mask of the k largest by finding the k-th value bit by bit (positive floats order as integers)."""
    keys = jnp.maximum(jax.lax.bitcast_convert_type(values, jnp.int32), 0)

    def one_bit(b: Any, low: jax.Array) -> jax.Array:
        candidate = low | (jnp.int32(1) << (30 - b))
        return jnp.where(jnp.sum(keys >= candidate[:, None], -1) >= k, candidate, low)

    return keys >= jax.lax.fori_loop(0, 31, one_bit, jnp.zeros(values.shape[0], jnp.int32))[:, None]


def main(argv: list[str]) -> None:
    del argv
    widths = sorted({2, 4, _SEEDS.value})
    steps = {f"{_SEEDS.value} seeds, {w} in a vmap": training_step(w) for w in widths if _SEEDS.value % w == 0}
    report("one training step of all seeds", in_turn(steps, _ROUNDS.value), STEPS)
    values = jax.random.normal(jax.random.key(0), (_SEEDS.value, _BATCH.value, _FEATURES.value))
    masks = {
        "lax.top_k, indices to mask": functools.partial(jax.jit(jax.vmap(lambda v: top_k_mask(v, 16))), values),
        "k-th value by bit search": functools.partial(jax.jit(jax.vmap(lambda v: bit_search_mask(v, 16))), values),
        "k-th value of lax.top_k": functools.partial(jax.jit(jax.vmap(lambda v: v >= jax.lax.top_k(v, 16)[0][:, -1:])), values),
        "k-th value of sort": functools.partial(jax.jit(jax.vmap(lambda v: v >= jnp.sort(v, -1)[:, -16:-15])), values),
    }
    report("mask of the 16 largest, all seeds", in_turn(masks, _ROUNDS.value), 1)


if __name__ == "__main__":
    app.run(main)
