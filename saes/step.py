"""The update step of one seed, and the same over many seeds on a mesh.

Everything here is written for one seed; the seed axis appears in `_over_seeds` alone, with the whole step (optimizer
included) inside the vmap, so that nothing couples the seeds.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from saes.config import SAEConfig, TrainConfig
from saes.dictionary import Leaf
from saes.variants import variant


class TrainState(flax.struct.PyTreeNode):
    """One seed in training.

    Attributes:
      params: the variant's parameters.
      opt_state: Adam's moments and the count of steps.
      idle_steps_F: steps since each feature last fired, int32.
      frozen_at: step at which loss or gradient was not finite, from which on the seed stands still; -1: none.
      step: steps taken.
    """

    params: Any
    opt_state: Any
    idle_steps_F: Leaf
    frozen_at: Leaf
    step: Leaf


def learning_rate(sae: SAEConfig, train: TrainConfig) -> optax.Schedule:
    """Linear warm-up (the first step already moves), constant, linear decay to zero."""
    peak = train.lr or 2e-4 * (2**14 / sae.n_features) ** 0.5
    warmup = max(1, round(train.warmup_fraction * train.steps))
    decay = max(1, round(train.decay_fraction * train.steps))
    parts = [
        optax.linear_schedule(peak / warmup, peak, warmup),
        optax.constant_schedule(peak),
        optax.linear_schedule(peak, 0.0, decay),
    ]
    return optax.join_schedules(parts, [warmup, train.steps - decay])


def make_optimizer(sae: SAEConfig, train: TrainConfig) -> optax.GradientTransformation:
    adam = optax.adam(learning_rate(sae, train), b1=train.adam_b1, b2=train.adam_b2, eps=train.adam_eps)
    return optax.chain(optax.clip_by_global_norm(train.clip_norm), adam)


def init_state(key: jax.Array, sae: SAEConfig, train: TrainConfig, b_dec_D: Float[Array, " D"]) -> TrainState:
    """The state of one seed before its first step."""
    params = variant(sae.variant).init(key, sae, b_dec_D)
    return TrainState(
        params=params,
        opt_state=make_optimizer(sae, train).init(params),
        idle_steps_F=jnp.zeros(sae.n_features, jnp.int32),
        frozen_at=jnp.int32(-1),
        step=jnp.int32(0),
    )


def train_step(sae: SAEConfig, train: TrainConfig, state: TrainState, x_BD: Float[Array, "B D"]) -> tuple[TrainState, dict[str, Array]]:
    """One update: backward, project, clip, Adam, renormalise; a step that is not finite leaves the seed as it was.

    Returns:
      The next state and scalar metrics of this batch: loss, explained_variance, l0, dead_fraction, gradient_norm, frozen_at.
    """
    v = variant(sae.variant)
    dead_F = state.idle_steps_F * x_BD.shape[0] >= sae.dead_after_tokens
    (loss, parts), grads = jax.value_and_grad(v.loss, has_aux=True)(state.params, sae, x_BD, dead_F)
    grads = v.remove_parallel_gradient(grads, state.params)
    gradient_norm = optax.tree.norm(grads)
    updates, opt_state = make_optimizer(sae, train).update(grads, state.opt_state, state.params)
    params = v.renormalise(optax.apply_updates(state.params, updates))

    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm) & (state.frozen_at < 0)
    moved = state.replace(params=params, opt_state=opt_state, idle_steps_F=jnp.where(parts.fired_F, 0, state.idle_steps_F + 1))
    next_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
    newly_frozen = ~finite & (state.frozen_at < 0)
    next_state = next_state.replace(step=state.step + 1, frozen_at=jnp.where(newly_frozen, state.step, next_state.frozen_at))
    metrics = {
        "loss": loss,
        "explained_variance": 1.0 - parts.squared_error / parts.variance,
        "l0": parts.l0,
        "dead_fraction": jnp.mean(dead_F, dtype=jnp.float32),
        "gradient_norm": gradient_norm,
        "frozen_at": next_state.frozen_at,
    }
    return next_state, metrics


def train_steps(
    sae: SAEConfig, train: TrainConfig, state: TrainState, batches_NBD: Float[Array, "N B D"]
) -> tuple[TrainState, dict[str, Array]]:
    """`train_step` over N batches in one scan; metrics of the last."""
    state, metrics = jax.lax.scan(functools.partial(train_step, sae, train), state, batches_NBD)
    return state, {name: values[-1] for name, values in metrics.items()}


class SeedPlan(NamedTuple):
    """How seeds lie on the devices.

    Attributes:
      seeds: the seeds asked for, then dummies (repeats of the last) that fill the groups.
      lanes: seeds in one vmap; a device works through its groups of so many in turn.
    """

    seeds: tuple[int, ...]
    lanes: int


def plan_seeds(seeds: tuple[int, ...], n_devices: int, platform: str, lanes: int) -> SeedPlan:
    """Pads `seeds` so that every device holds the same number of whole groups.

    The kernels that XLA chooses, and with them the last bits, depend on the width of the vmap, and top-k amplifies last
    bits.  With groups of a fixed width a seed's bits do not depend on how many others there are.  A width of 1 is never
    used.

    Args:
      lanes: width of a group; 0: 2 on CPU (no width is faster there), elsewhere all seeds
        of a device in one group.
    """
    share = -(-len(seeds) // n_devices)
    lanes = lanes or (2 if platform == "cpu" else max(2, share))
    per_device = -(-share // lanes) * lanes
    return SeedPlan(seeds + (seeds[-1],) * (per_device * n_devices - len(seeds)), lanes)


def init_seeds(plan: SeedPlan, sae: SAEConfig, train: TrainConfig, b_dec_D: Float[Array, " D"], mesh: jax.sharding.Mesh) -> TrainState:
    """States of all lanes, a leading axis over the mesh's `seed`: one key, folded with each seed."""
    root = jax.random.key(0, impl="threefry2x32")  # rbg would give every lane of a vmap the first lane's draws
    keys_S = jax.vmap(lambda seed: jax.random.fold_in(root, seed))(jnp.asarray(plan.seeds, jnp.uint32))
    one = lambda key, b_dec_D: init_state(key, sae, train, b_dec_D)
    return jax.jit(_over_seeds(one, plan.lanes, mesh))(keys_S, b_dec_D)


def make_train_steps(
    plan: SeedPlan, sae: SAEConfig, train: TrainConfig, mesh: jax.sharding.Mesh
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """(state with a leading seed axis, batches_NBD shared by all) → the same after N steps, metrics (S,). Donates the state."""
    one = functools.partial(train_steps, sae, train)

    @functools.partial(jax.jit, donate_argnames="state")
    def steps(state: TrainState, batches_NBD: Array) -> tuple[TrainState, dict[str, Array]]:
        return _over_seeds(one, plan.lanes, mesh)(state, batches_NBD)

    return steps


def _over_seeds(one: Callable[..., Any], lanes: int, mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """`one(per seed, shared)` over a leading seed axis: devices by `shard_map`, on each its groups in turn, a group by `vmap`.

    `shard_map` outside: no collective runs (`jit(vmap)` with sharded seeds would gather around top-k).
    """

    def on_device(per_seed: Any, shared: Any) -> Any:
        groups = jax.tree.map(lambda a: a.reshape(-1, lanes, *a.shape[1:]), per_seed)
        out = jax.lax.map(lambda group: jax.vmap(one, in_axes=(0, None))(group, shared), groups)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), out)

    seeds, shared = PartitionSpec("seed"), PartitionSpec()
    return jax.shard_map(on_device, mesh=mesh, in_specs=(seeds, shared), out_specs=seeds, check_vma=False)
