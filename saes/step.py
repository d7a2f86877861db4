"""The update step of one seed, and the same over many seeds on a mesh.

Everything here is written for one seed; the seed axis appears in `seed_parallel` alone, with the whole step (optimizer
included) inside the vmap, so that nothing couples the seeds.
"""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from jax.sharding import PartitionSpec

from saes.config import SAEConfig, TrainConfig
from saes.variants import variant


@flax.struct.dataclass
class TrainState:
    """One seed in training.

    Attributes:
      params: the variant's parameters.
      opt_state: Adam's moments and the count of steps.
      idle_steps_F: steps since each feature last fired.
      frozen_at: step at which loss or gradient was not finite, from which on the seed stands still; -1: none.
      step: steps taken.
    """

    params: flax.struct.PyTreeNode
    opt_state: optax.OptState
    idle_steps_F: Int[Array, "*S F"]
    frozen_at: Int[Array, "*S"]
    step: Int[Array, "*S"]


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


def train_step(
    sae: SAEConfig, train: TrainConfig, state: TrainState, x_BD: Float[Array, "B D"]
) -> tuple[TrainState, dict[str, Array]]:
    """One update: backward, project, clip, Adam, renormalise; a step that is not finite leaves the seed as it was.

    Returns:
      The next state and scalar metrics of this batch: loss, explained_variance, l0, dead_fraction, gradient_norm, frozen_at.
    """
    v = variant(sae.variant)
    dead_F = state.idle_steps_F * x_BD.shape[0] >= sae.dead_after_tokens
    (loss, parts), grads = jax.value_and_grad(v.loss, has_aux=True)(state.params, sae, x_BD, dead_F)
    grads = v.remove_parallel_gradient(grads, state.params)
    gradient_norm = optax.global_norm(grads)
    updates, opt_state = make_optimizer(sae, train).update(grads, state.opt_state, state.params)
    params = v.renormalise(optax.apply_updates(state.params, updates))

    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm) & (state.frozen_at < 0)
    moved = state.replace(
        params=params, opt_state=opt_state, idle_steps_F=jnp.where(parts.fired_F, 0, state.idle_steps_F + 1)
    )
    next_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
    newly_frozen = ~finite & (state.frozen_at < 0)
    next_state = next_state.replace(
        step=state.step + 1, frozen_at=jnp.where(newly_frozen, state.step, next_state.frozen_at)
    )
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


def seed_parallel(sae: SAEConfig, train: TrainConfig, mesh: jax.sharding.Mesh) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """(state with a leading seed axis, batches_NBD shared by all) → the same after N steps, metrics (S,).

    `shard_map` outside `vmap`: each device runs its seeds with no collective (`jit(vmap)` with sharded seeds would gather
    around top-k).  The state is donated.
    """
    seeds, shared = PartitionSpec("seed"), PartitionSpec()
    per_device = jax.vmap(functools.partial(train_steps, sae, train), in_axes=(0, None))

    @functools.partial(jax.jit, donate_argnames="state")
    def steps(state: TrainState, batches_NBD: Array) -> tuple[TrainState, dict[str, Array]]:
        mapped = jax.shard_map(per_device, mesh=mesh, in_specs=(seeds, shared), out_specs=(seeds, seeds), check_vma=False)
        return mapped(state, batches_NBD)

    return steps


def lane_seeds(seeds: tuple[int, ...], n_devices: int) -> tuple[int, ...]:
    """The seeds to run, padded with repeats of the last so that every device holds equally many and at least two.

    A vmap of width 1 compiles to other kernels than wider ones and differs in the last bits, which top-k amplifies; with
    a dummy lane beside it a seed has the same bits alone as among many.
    """
    per_device = max(2, -(-len(seeds) // n_devices))
    return seeds + (seeds[-1],) * (per_device * n_devices - len(seeds))
