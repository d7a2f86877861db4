"""The auxiliary loss that revives dead features (AuxK; Gao et al. 2024, "Scaling and evaluating sparse autoencoders", A.2).

Under a vmap over seeds a `cond` becomes a select that runs both branches.  Nothing is dead most of the time, and then little: so value
and gradients are computed behind a `custom_vmap` whose rule asks once for the whole group whether any seed has dead features, and
whether any has more of them than may help.  Which of the ways a seed takes depends on its own dead features alone, and so do its bits.

Units matter.  The main error is summed over D dimensions; Gao et al.'s code divides both errors by the variance of what they are held
against, so `aux_units="variance"` weighs the share of the residual in units of the data's variance.  The formula in their paper adds
the two errors as they are (`"error"`): the better the SAE, the smaller the second, until Adam's second moment, a memory of the days
when a feature fired, keeps a dead feature still for the length of a run (`configs/synthetic.py` has figures of both).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes.autoencoder import Params, mean_square
from saes.config import SAEConfig
from saes.selection import top_k_mask


def auxiliary_loss_of(params: Params, config: SAEConfig, x_BD: Array, pre_BF: Array, error_BD: Array, dead_F: Array) -> Array:
    """In the units of the main error, on the error that a batch left; nothing is computed where it has no weight."""
    if config.aux_weight == 0:
        return jnp.float32(0.0)
    pre_BF, residual_BD = jax.lax.stop_gradient((pre_BF, error_BD))
    share = auxiliary_loss(params, x_BD, pre_BF, residual_BD, dead_F, config.dead_features_used(x_BD.shape[1]))
    against_BD = x_BD if config.aux_units == "variance" else residual_BD
    return share * mean_square(against_BD - jnp.mean(against_BD, axis=0))  # a weight: how the mean is rounded does not matter


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def auxiliary_loss(
    params: Params,
    x_BD: Float[Array, "B D"],
    pre_BF: Float[Array, "B F"],
    residual_BD: Float[Array, "B D"],
    dead_F: Bool[Array, " F"],
    aux_k: int,
) -> Float[Array, ""]:
    """‖ê − r‖² / ‖r − r̄‖² with ê decoded (without b_dec) from the `aux_k` largest pre-activations of dead features.

    0 where nothing is dead or the residual does not vary.  A function of the parameters alone: `pre_BF` is what they make of `x_BD`, and
    `residual_BD` is a constant.
    """
    return _value_and_gradients(aux_k)(params, x_BD, pre_BF, residual_BD, dead_F)[0]


def _forward(params: Params, x_BD: Array, pre_BF: Array, residual_BD: Array, dead_F: Array, aux_k: int) -> tuple[Array, Any]:
    return _value_and_gradients(aux_k)(params, x_BD, pre_BF, residual_BD, dead_F)


def _backward(aux_k: int, gradients: Params, cotangent: Array) -> tuple[Any, ...]:
    del aux_k
    return jax.tree.map(lambda g: cotangent * g, gradients), None, None, None, None


auxiliary_loss.defvjp(_forward, _backward)


@functools.cache
def _value_and_gradients(aux_k: int) -> Callable[..., tuple[Array, Params]]:
    def by_selection(params: Params, x_BD: Array, pre_BF: Array, residual_BD: Array, dead_F: Array) -> tuple[Array, Params]:
        """Any number of dead features."""
        chosen_BF = top_k_mask(jnp.where(dead_F, pre_BF, -jnp.inf), aux_k) & dead_F
        return _of_chosen(params, x_BD, pre_BF, residual_BD, chosen_BF)

    def by_column(params: Params, x_BD: Array, pre_BF: Array, residual_BD: Array, dead_F: Array) -> tuple[Array, Params]:
        """At most `aux_k` dead features: all help, and their columns are all that is needed."""
        (index_M,) = jnp.nonzero(dead_F, size=aux_k, fill_value=0)
        there_M = jnp.arange(aux_k) < jnp.sum(dead_F)
        own = params.replace(w_enc_DF=params.w_enc_DF[:, index_M], b_enc_F=params.b_enc_F[index_M], w_dec_FD=params.w_dec_FD[index_M])
        pre_BM = pre_BF[:, index_M]
        value, g = _of_chosen(own, x_BD, pre_BM, residual_BD, jnp.broadcast_to(there_M, pre_BM.shape))
        # Places of what is not there hold zeros, so that adding them changes no bit.
        return value, g.replace(
            w_enc_DF=jnp.zeros_like(params.w_enc_DF).at[:, index_M].add(g.w_enc_DF),
            b_enc_F=jnp.zeros_like(params.b_enc_F).at[index_M].add(g.b_enc_F),
            w_dec_FD=jnp.zeros_like(params.w_dec_FD).at[index_M].add(g.w_dec_FD),
        )

    def nothing(params: Params, *_: Array) -> tuple[Array, Params]:
        return jnp.zeros(params.b_enc_F.shape[:-1]), jax.tree.map(jnp.zeros_like, params)

    def of_group(params: Params, *args: Array) -> tuple[Array, Params]:
        count_S = jnp.sum(args[-1], axis=-1)
        few = jax.lax.cond(jnp.any((count_S > 0) & (count_S <= aux_k)), jax.vmap(by_column), nothing, params, *args)
        many = jax.lax.cond(jnp.any(count_S > aux_k), jax.vmap(by_selection), nothing, params, *args)

        def select(few: Array, many: Array) -> Array:
            of = lambda condition_S: condition_S.reshape(-1, *[1] * (few.ndim - 1))
            return jnp.where(of(count_S > aux_k), many, jnp.where(of(count_S > 0), few, 0.0))

        return jax.tree.map(select, few, many)

    @jax.custom_batching.custom_vmap
    def found(*args: Any) -> tuple[Array, Params]:
        return jax.tree.map(lambda a: a[0], of_group(*jax.tree.map(lambda a: a[None], args)))

    @found.def_vmap
    def of_lanes(axis_size: int, in_batched: Any, *args: Any) -> tuple[Any, Any]:
        spread = lambda a, batched: a if batched else jnp.broadcast_to(a, (axis_size, *a.shape))
        out = of_group(*jax.tree.map(spread, args, tuple(in_batched)))
        return out, jax.tree.map(lambda _: True, out)

    return found


def _of_chosen(params: Params, x_BD: Array, pre_BF: Array, residual_BD: Array, chosen_BF: Array) -> tuple[Array, Params]:
    """Value and gradients, where only the chosen features may help."""
    scale = mean_square(residual_BD - jnp.mean(residual_BD, axis=0))
    usable = jnp.any(chosen_BF) & (scale > 0)

    def share(w_dec_FD: Array, pre_BF: Array) -> Array:
        z_BF = jnp.where(chosen_BF, jax.nn.relu(pre_BF), 0.0)
        # The denominator is guarded before the division: replacing NaN behind it would leave NaN in the gradient.
        return mean_square(z_BF @ w_dec_FD - residual_BD) / jnp.where(usable, scale, 1.0)

    value, (w_dec_FD, of_pre_BF) = jax.value_and_grad(share, argnums=(0, 1))(params.w_dec_FD, pre_BF)
    b_enc_F = jnp.sum(of_pre_BF, axis=0)
    gradients = Params(
        w_enc_DF=(x_BD - params.b_dec_D).T @ of_pre_BF, b_enc_F=b_enc_F, w_dec_FD=w_dec_FD, b_dec_D=-params.w_enc_DF @ b_enc_F
    )
    return jax.tree.map(lambda a: jnp.where(usable, a, 0.0), (value, gradients))
