"""Variants, the auxiliary loss, widths of the vmap, and ways to find the top k: in turn, in one run.

python -m benchmarks.step [--seeds=8 --features=512 --batch=512]
"""

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.timing import in_turn
from runtime.mesh import make_mesh
from saes import capacity, selection
from saes.autoencoder import Knobs
from saes.config import SAEConfig, TrainConfig
from saes.lanes import init_lanes, initial_keys, make_train_steps, plan_lanes
from saes.selection import kth_largest, top_k_mask
from saes.variants import VARIANTS, variant

_SEEDS = flags.DEFINE_integer("seeds", 8, "SAEs trained together.")
_FEATURES = flags.DEFINE_integer("features", 512, "Dictionary size.")
_BATCH = flags.DEFINE_integer("batch", 512, "Activations a step.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Measurements of each, in turn.")
WIDTH, STEPS = 128, 16


def report(title: str, seconds: dict[str, float], per: int) -> None:
    best = min(seconds.values())
    print(f"\n{title} ({jax.devices()[0].device_kind})")
    for name, s in seconds.items():
        print(f"  {name:28} {1e3 * s / per:8.2f} ms   {s / best:5.2f} × the fastest")


def training_step(variant_name: str = "topk", width: int = 0, dead: float = 0.0, instead: Any = None) -> Callable[[], Any]:
    """One dispatch of all seeds.

    Args:
      dead: share of features that count as dead throughout.
      instead: (module, name, function) that takes the place of one of ours.
    """
    sae = SAEConfig(variant=variant_name, n_features=_FEATURES.value, dead_after_tokens=2**30)
    train = TrainConfig(batch_size=_BATCH.value)
    n_devices, platform = jax.device_count(), jax.devices()[0].platform
    width = width or capacity.choose(_SEEDS.value, sae, train, WIDTH, n_devices, platform, capacity.device_memory()).width
    plan = plan_lanes(_SEEDS.value, n_devices, width)
    mesh = make_mesh()
    batches = jax.random.normal(jax.random.key(0), (STEPS, _BATCH.value, WIDTH))
    run = make_train_steps.__wrapped__(plan, sae, train, mesh)
    n = len(plan.members)
    knobs = Knobs(
        lr=jnp.full(n, 1e-3),
        k=jnp.full(n, sae.k, jnp.int32),
        sparsity=jnp.full(n, variant(variant_name).sparsity),
        decoder_rate=jnp.ones(n),
    )
    state = init_lanes(sae, train, mesh, initial_keys(np.arange(n)), knobs, jnp.zeros((n, WIDTH)))
    if dead:
        these = slice(0, int(dead * sae.n_features))
        b_enc = state.params.b_enc_F.at[:, these].set(-1e6)  # never fires, and never will
        idle = state.idle_steps_F.at[:, these].set(2**30 // _BATCH.value)
        state = state.replace(params=state.params.replace(b_enc_F=b_enc), idle_steps_F=idle)
    if instead:
        # Traced and compiled here: JAX would find the inner functions traced already, and the stand-in would never be asked.
        jax.clear_caches()
        with mock.patch.object(*instead):
            run = run.lower(state, batches).compile()
        jax.clear_caches()
    holder = [state]

    def once() -> Any:
        holder[0], metrics = run(holder[0], batches)
        return metrics

    return once


def main(argv: list[str]) -> None:
    del argv
    steps = {name: training_step(name) for name in VARIANTS}
    report("one training step of all seeds, by variant, nothing dead", in_turn(steps, _ROUNDS.value), STEPS)
    # All of `saes/sparse.py` takes the way of accelerators; the selection, which has one argument, stays as it is.
    by_product = (jax.lax, "platform_dependent", lambda *args, cpu, default: cpu(*args) if len(args) == 1 else default(*args))
    ways = {
        "as it is": training_step(),
        "products with zeros": training_step(instead=by_product),
        "top k of XLA": training_step(instead=(selection, "_tournament", lambda *args: tuple(jax.lax.top_k(*args)))),
    }
    report("topk, nothing dead", in_turn(ways, _ROUNDS.value), STEPS)
    shares = {"nothing": 0.0, "a tenth of the features": 0.1, "a third of the features": 1 / 3}
    dead = {f"{what} dead": training_step(dead=share) for what, share in shares.items()}
    report("topk with its auxiliary loss", in_turn(dead, _ROUNDS.value), STEPS)
    widths = [w for w in sorted({2, 4, _SEEDS.value}) if _SEEDS.value % w == 0]
    lanes = {f"{_SEEDS.value} seeds, {w} in a vmap": training_step(width=w) for w in widths}
    report("topk, seeds in a vmap", in_turn(lanes, _ROUNDS.value), STEPS)
    values = jax.nn.relu(jax.random.normal(jax.random.key(0), (_SEEDS.value, _BATCH.value, _FEATURES.value)))
    masks = {
        "tournament, indices to mask": functools.partial(jax.jit(jax.vmap(lambda v: top_k_mask(v, 16))), values),
        "k-th value by bit search": functools.partial(jax.jit(jax.vmap(jax.vmap(lambda v: v >= kth_largest(v, 16)))), values),
        "k-th value of lax.top_k": functools.partial(jax.jit(jax.vmap(lambda v: v >= jax.lax.top_k(v, 16)[0][:, -1:])), values),
        "k-th value of sort": functools.partial(jax.jit(jax.vmap(lambda v: v >= jnp.sort(v, -1)[:, -16:-15])), values),
    }
    report("mask of the 16 largest of every row, all seeds", in_turn(masks, _ROUNDS.value), 1)
    k = 16 * _BATCH.value
    thresholds = {
        "k-th value by bit search": functools.partial(jax.jit(jax.vmap(lambda v: kth_largest(v, k))), values),
        "k-th value of lax.top_k": functools.partial(jax.jit(jax.vmap(lambda v: jax.lax.top_k(v.ravel(), k)[0][-1])), values),
        "k-th value of sort": functools.partial(jax.jit(jax.vmap(lambda v: jnp.sort(v.ravel())[-k])), values),
    }
    report("the 16·B-th largest of a batch, all seeds", in_turn(thresholds, _ROUNDS.value), 1)


if __name__ == "__main__":
    app.run(main)
