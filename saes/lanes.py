"""Many SAEs at once: the one place where the seed axis is.

A lane is one SAE of a vmap.  The whole step, optimizer included, is inside the vmap, so that nothing couples the lanes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from saes.autoencoder import Knobs
from saes.config import SAEConfig, TrainConfig
from saes.step import TrainState, init_state, train_steps

SEEDS, SHARED = PartitionSpec("seed"), PartitionSpec()


class LanePlan(NamedTuple):
    """How SAEs lie on the devices.

    Attributes:
      members: index of the SAE in every lane; the last is repeated as a dummy to fill the groups.
      width: lanes in one vmap; a device works through its groups of so many in turn.
    """

    members: tuple[int, ...]
    width: int


def plan_lanes(count: int, n_devices: int, width: int) -> LanePlan:
    """Pads `count` SAEs so that every device holds the same number of whole groups of `width`.

    The kernels that XLA chooses, and with them the last bits, depend on the width of the vmap, and top-k amplifies last
    bits.  With groups of a fixed width an SAE's bits do not depend on how many others there are.

    Raises:
      ValueError: a width of 1, which XLA compiles otherwise than any other.
    """
    if width < 2:
        raise ValueError(f"a vmap of {width} SAE: a group is never a single one")
    per_device = -(-count // (n_devices * width)) * width
    return LanePlan(tuple(min(i, count - 1) for i in range(per_device * n_devices)), width)


def initial_keys(seeds: Any) -> jax.Array:
    """One key a lane: one root, folded with each seed (S,)."""
    root = jax.random.key(0, impl="threefry2x32")  # rbg would give every lane of a vmap the first lane's draws
    return jax.vmap(lambda seed: jax.random.fold_in(root, seed))(jnp.asarray(seeds, jnp.uint32))


def init_lanes(
    sae: SAEConfig,
    train: TrainConfig,
    mesh: jax.sharding.Mesh,
    keys_S: Any,
    knobs_S: Knobs,
    b_dec_SD: Float[Array, "S D"],
) -> TrainState:
    """States of all lanes, a leading axis over the mesh's `seed`."""
    return _initialiser(sae, train, mesh)((keys_S, knobs_S, b_dec_SD), None)


@functools.cache
def _initialiser(sae: SAEConfig, train: TrainConfig, mesh: jax.sharding.Mesh) -> Callable[..., TrainState]:
    """One lane after the other: threefry under a vmap takes XLA four times as long to compile on CPU, and there is nothing to gain."""

    def on_device(lanes: tuple[Any, Knobs, Array], nothing: Any) -> TrainState:
        del nothing
        return jax.lax.map(lambda lane: init_state(lane[0], sae, train, lane[1], lane[2]), lanes)

    return jax.jit(jax.shard_map(on_device, mesh=mesh, in_specs=(SEEDS, SHARED), out_specs=SEEDS, check_vma=False))


@functools.cache
def make_train_steps(
    plan: LanePlan, sae: SAEConfig, train: TrainConfig, mesh: jax.sharding.Mesh, own_batches: bool = False
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """(state with a leading lane axis, batches_NBD) → the same after N steps, metrics (S,). Donates the state.

    Args:
      own_batches: False: one (N, B, D) in memory for all lanes; True: (S, N, B, D).
    """
    run = _over_lanes(functools.partial(train_steps, sae, train), plan.width, mesh, own_batches)

    @functools.partial(jax.jit, donate_argnames="state")
    def steps(state: TrainState, batches: Array) -> tuple[TrainState, dict[str, Array]]:
        return run(state, batches)

    return steps


def _over_lanes(one: Callable[..., Any], width: int, mesh: jax.sharding.Mesh, own: bool) -> Callable[..., Any]:
    """`one(of the lane, batches)` over a leading axis: devices by `shard_map`, on each its groups in turn, a group by `vmap`.

    `shard_map` outside: no collective runs (`jit(vmap)` with sharded seeds would gather around top-k).
    """

    def on_device(per_lane: Any, batches: Any) -> Any:
        mapped = (per_lane, batches) if own else per_lane
        groups = jax.tree.map(lambda a: a.reshape(-1, width, *a.shape[1:]), mapped)
        on_group = lambda g: jax.vmap(one)(*g) if own else jax.vmap(one, in_axes=(0, None))(g, batches)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.lax.map(on_group, groups))

    return jax.shard_map(on_device, mesh=mesh, in_specs=(SEEDS, SEEDS if own else SHARED), out_specs=SEEDS, check_vma=False)
