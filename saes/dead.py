"""The auxiliary loss that revives dead features (AuxK; Gao et al. 2024, "Scaling and evaluating sparse autoencoders", A.2).

Under a vmap over seeds a `cond` becomes a select that runs both branches.  Nothing is dead most of the time, so value and
gradients are computed behind a `custom_vmap` whose rule asks once for the whole group whether any seed has a dead feature;
where a seed has none they are exact zeros in both branches, so a seed's bits do not depend on its company.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes.autoencoder import mean_square
from saes.selection import top_k_mask


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def auxiliary_loss(
    w_dec_FD: Float[Array, "F D"], pre_BF: Float[Array, "B F"], residual_BD: Float[Array, "B D"], dead_F: Bool[Array, " F"], aux_k: int
) -> Float[Array, ""]:
    """‖ê − r‖² / ‖r − r̄‖² with ê decoded (without b_dec) from the `aux_k` largest pre-activations of dead features.

    0 where nothing is dead or the residual does not vary.  `residual_BD` is a constant: no gradient flows into it.
    """
    return _value_and_gradients(aux_k)(w_dec_FD, pre_BF, residual_BD, dead_F)[0]


def _forward(w_dec_FD: Array, pre_BF: Array, residual_BD: Array, dead_F: Array, aux_k: int) -> tuple[Array, Any]:
    value, gradients = _value_and_gradients(aux_k)(w_dec_FD, pre_BF, residual_BD, dead_F)
    return value, gradients


def _backward(aux_k: int, gradients: tuple[Array, Array], cotangent: Array) -> tuple[Any, ...]:
    del aux_k
    w_dec_FD, pre_BF = gradients
    return cotangent * w_dec_FD, cotangent * pre_BF, None, None


auxiliary_loss.defvjp(_forward, _backward)


@functools.cache
def _value_and_gradients(aux_k: int) -> Callable[..., tuple[Array, tuple[Array, Array]]]:
    def of_one(w_dec_FD: Array, pre_BF: Array, residual_BD: Array, dead_F: Array) -> tuple[Array, tuple[Array, Array]]:
        chosen_BF = top_k_mask(jnp.where(dead_F, pre_BF, -jnp.inf), aux_k) & dead_F
        scale = mean_square(residual_BD - jnp.mean(residual_BD, axis=0))
        usable = jnp.any(dead_F) & (scale > 0)

        def loss(w_dec_FD: Array, pre_BF: Array) -> Array:
            z_BF = jnp.where(chosen_BF, jax.nn.relu(pre_BF), 0.0)
            # The denominator is guarded before the division: replacing NaN behind it would leave NaN in the gradient.
            return mean_square(z_BF @ w_dec_FD - residual_BD) / jnp.where(usable, scale, 1.0)

        found = jax.value_and_grad(loss, argnums=(0, 1))(w_dec_FD, pre_BF)
        return jax.tree.map(lambda a: jnp.where(usable, a, 0.0), found)

    def nothing(w_dec: Array, pre: Array, residual: Array, dead: Array) -> tuple[Array, tuple[Array, Array]]:
        return jnp.zeros(dead.shape[:-1], w_dec.dtype), (jnp.zeros_like(w_dec), jnp.zeros_like(pre))

    @jax.custom_batching.custom_vmap
    def found(*args: Array) -> tuple[Array, tuple[Array, Array]]:
        return jax.lax.cond(jnp.any(args[-1]), of_one, nothing, *args)

    @found.def_vmap
    def of_group(axis_size: int, in_batched: list[bool], *args: Array) -> tuple[Any, Any]:
        every = [a if batched else jnp.broadcast_to(a, (axis_size, *a.shape)) for a, batched in zip(args, in_batched, strict=True)]
        return jax.lax.cond(jnp.any(every[-1]), jax.vmap(of_one), nothing, *every), (True, (True, True))

    return found
