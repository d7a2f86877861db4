"""The update step of one SAE. How many run at once is the business of `saes/lanes.py` alone."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from saes import autoencoder, control
from saes.autoencoder import Knobs
from saes.config import SAEConfig, TrainConfig
from saes.dictionary import Leaf
from saes.variants import variant


class TrainState(flax.struct.PyTreeNode):
    """One SAE in training.

    Attributes:
      params: the variant's parameters.
      opt_state: Adam's moments and the count of steps.
      knobs: its learning rates, target L0 and first sparsity coefficient.
      control: sparsity coefficient and inference threshold as they are now.
      idle_steps_F: steps since each feature last fired, int32.
      frozen_at: step whose loss, gradient or outcome was not finite; the seed stands still as it was before it. -1: none.
      step: steps taken.
    """

    params: Any
    opt_state: Any
    knobs: Knobs
    control: control.Control
    idle_steps_F: Leaf
    frozen_at: Leaf
    step: Leaf


def learning_rate(train: TrainConfig) -> optax.Schedule:
    """As a share of the peak: linear warm-up (the first step already moves), constant, linear decay to zero."""
    warmup = max(1, min(train.warmup_steps, round(train.warmup_fraction * train.steps)))
    decay = max(1, round(train.decay_fraction * train.steps))
    parts = [
        optax.linear_schedule(1.0 / warmup, 1.0, warmup),
        optax.constant_schedule(1.0),
        optax.linear_schedule(1.0, 0.0, decay),
    ]
    return optax.join_schedules(parts, [warmup, train.steps - decay])


def make_optimizer(train: TrainConfig) -> optax.GradientTransformation:
    """Clipping and Adam, without the learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm), optax.scale_by_adam(b1=train.adam_b1, b2=train.adam_b2, eps=train.adam_eps)
    )


def init_state(key: jax.Array, sae: SAEConfig, train: TrainConfig, knobs: Knobs, b_dec_D: Float[Array, " D"]) -> TrainState:
    """The state of one SAE before its first step."""
    params = variant(sae.variant).init(key, sae, b_dec_D)
    return TrainState(
        params=params,
        opt_state=make_optimizer(train).init(params),
        knobs=knobs,
        control=control.init(knobs),
        idle_steps_F=jnp.zeros(sae.n_features, jnp.int32),
        frozen_at=jnp.int32(-1),
        step=jnp.int32(0),
    )


def train_step(sae: SAEConfig, train: TrainConfig, state: TrainState, x_BD: Float[Array, "B D"]) -> tuple[TrainState, dict[str, Array]]:
    """One update: backward, project, clip, Adam, renormalise; a step that is not finite leaves the SAE as it was.

    Returns:
      The next state and scalar metrics of this batch: loss, explained_variance (NaN where its rows are all alike), l0, dead_fraction, gradient_norm, sparsity, frozen_at.
    """
    v = variant(sae.variant)
    progress = jnp.minimum(1.0, state.step / max(1, round(sae.sparsity_warmup_fraction * train.steps)))
    knobs = state.knobs.replace(sparsity=control.sparsity(state.control, sae, progress) if v.penalised else jnp.float32(0.0))
    dead_F = state.idle_steps_F >= -(-sae.dead_after_tokens // x_BD.shape[0])  # in steps: tokens would overflow at 2 billion
    (loss, parts), grads = jax.value_and_grad(v.loss, has_aux=True)(state.params, sae, knobs, x_BD, dead_F)
    if v.unit_rows:
        grads = grads.replace(w_dec_FD=autoencoder.remove_parallel_gradient(grads.w_dec_FD, state.params.w_dec_FD))
    gradient_norm = optax.tree.norm(grads)
    updates, opt_state = make_optimizer(train).update(grads, state.opt_state, state.params)
    rate = state.knobs.lr * learning_rate(train)(state.step)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    params = params.replace(w_dec_FD=state.params.w_dec_FD - state.knobs.decoder_rate * rate * updates.w_dec_FD)
    if v.unit_rows:
        params = params.replace(w_dec_FD=autoencoder.unit_rows(params.w_dec_FD))

    moved = state.replace(
        params=params,
        opt_state=opt_state,
        control=control.update(state.control, sae, state.knobs, parts, progress),
        idle_steps_F=jnp.where(parts.fired_F, 0, state.idle_steps_F + 1),
    )
    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm) & _all_finite(params) & (state.frozen_at < 0)
    if v.unit_rows:  # a row so long that its norm is infinite comes out as zeros
        finite &= jnp.all(jnp.any(params.w_dec_FD != 0, axis=-1))
    next_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
    newly_frozen = ~finite & (state.frozen_at < 0)
    next_state = next_state.replace(step=state.step + 1, frozen_at=jnp.where(newly_frozen, state.step, next_state.frozen_at))
    metrics = {
        "loss": loss,
        "explained_variance": 1.0 - parts.squared_error / jnp.where(parts.variance > 0, parts.variance, jnp.nan),
        "l0": parts.l0,
        "dead_fraction": jnp.mean(dead_F, dtype=jnp.float32),
        "gradient_norm": gradient_norm,
        "sparsity": knobs.sparsity,
        "frozen_at": next_state.frozen_at,
    }
    return next_state, metrics


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def train_steps(
    sae: SAEConfig, train: TrainConfig, state: TrainState, batches_NBD: Float[Array, "N B D"]
) -> tuple[TrainState, dict[str, Array]]:
    """`train_step` over N batches in one scan; metrics of the last."""
    state, metrics = jax.lax.scan(functools.partial(train_step, sae, train), state, batches_NBD)
    return state, {name: values[-1] for name, values in metrics.items()}
