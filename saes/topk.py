"""TopK SAE with an auxiliary loss on dead features (Gao et al. 2024, "Scaling and evaluating sparse autoencoders").

Inputs are scaled so that E‖x‖ = √D; `to_dictionary` folds the scale in.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes.config import SAEConfig
from saes.dictionary import Dictionary, Leaf, top_k_mask


class Params(flax.struct.PyTreeNode):
    """Encoder (D, F), (F,) and decoder (F, D), (D,), or all with a leading seed axis; decoder rows have unit norm."""

    w_enc_DF: Leaf
    b_enc_F: Leaf
    w_dec_FD: Leaf
    b_dec_D: Leaf


class LossParts(NamedTuple):
    """What a step needs besides the loss.

    Attributes:
      squared_error: Σ_d (x−x̂)², mean over the batch.
      aux: auxiliary loss before its weight, 0 while nothing is dead.
      variance: Σ_d (x−x̄)², mean over the batch, x̄ the batch mean.
      l0: active features a token, mean over the batch.
      fired_F: which features fired in this batch.
    """

    squared_error: Float[Array, ""]
    aux: Float[Array, ""]
    variance: Float[Array, ""]
    l0: Float[Array, ""]
    fired_F: Bool[Array, " F"]


def init(key: jax.Array, config: SAEConfig, b_dec_D: Float[Array, " D"]) -> Params:
    """Uniform unit rows, the encoder their transpose; `b_dec_D` (geometric median of the data) is shared by all seeds."""
    w_dec_FD = jax.random.normal(key, (config.n_features, b_dec_D.shape[0]))
    w_dec_FD = w_dec_FD / jnp.linalg.norm(w_dec_FD, axis=-1, keepdims=True)
    return Params(w_enc_DF=w_dec_FD.T.copy(), b_enc_F=jnp.zeros(config.n_features), w_dec_FD=w_dec_FD, b_dec_D=b_dec_D)


def loss(params: Params, config: SAEConfig, x_BD: Float[Array, "B D"], dead_F: Bool[Array, " F"]) -> tuple[Array, LossParts]:
    """Reconstruction error plus `aux_weight` times the dead features' error on the residual."""
    pre_BF = (x_BD - params.b_dec_D) @ params.w_enc_DF + params.b_enc_F
    z_BF = jnp.where(top_k_mask(pre_BF, config.k), jax.nn.relu(pre_BF), 0.0)
    error_BD = x_BD - (z_BF @ params.w_dec_FD + params.b_dec_D)
    squared_error = jnp.mean(jnp.sum(jnp.square(error_BD), axis=-1))
    aux = _aux_loss(params, config, pre_BF, jax.lax.stop_gradient(error_BD), dead_F)
    parts = LossParts(
        squared_error=squared_error,
        aux=aux,
        variance=_mean_square_deviation(x_BD),
        l0=jnp.mean(jnp.sum(z_BF > 0, axis=-1, dtype=jnp.float32)),
        fired_F=jnp.any(z_BF > 0, axis=0),
    )
    return squared_error + config.aux_weight * aux, parts


def _aux_loss(params: Params, config: SAEConfig, pre_BF: Array, residual_BD: Array, dead_F: Array) -> Array:
    """‖ê − r‖² / ‖r − r̄‖² with ê decoded (without b_dec) from the largest `aux_k` pre-activations of dead features.

    The denominator is guarded before the division: replacing NaN behind it would leave NaN in the gradient.
    """
    aux_k = config.aux_k or min(residual_BD.shape[-1] // 2, config.n_features)
    dead_pre_BF = jnp.where(dead_F, pre_BF, -jnp.inf)
    z_BF = jnp.where(top_k_mask(dead_pre_BF, aux_k) & dead_F, jax.nn.relu(pre_BF), 0.0)
    error = jnp.mean(jnp.sum(jnp.square(z_BF @ params.w_dec_FD - residual_BD), axis=-1))
    scale = _mean_square_deviation(residual_BD)
    usable = jnp.any(dead_F) & (scale > 0)
    return jnp.where(usable, error / jnp.where(usable, scale, 1.0), 0.0)


def _mean_square_deviation(x_BD: Array) -> Array:
    return jnp.mean(jnp.sum(jnp.square(x_BD - jnp.mean(x_BD, axis=0)), axis=-1))


def remove_parallel_gradient(grads: Params, params: Params) -> Params:
    """Takes out of each decoder row's gradient the part along the row, which renormalisation would undo."""
    along_F1 = jnp.sum(grads.w_dec_FD * params.w_dec_FD, axis=-1, keepdims=True)
    return grads.replace(w_dec_FD=grads.w_dec_FD - along_F1 * params.w_dec_FD)


def renormalise(params: Params) -> Params:
    """Decoder rows back to unit norm."""
    return params.replace(w_dec_FD=params.w_dec_FD / jnp.linalg.norm(params.w_dec_FD, axis=-1, keepdims=True))


def to_dictionary(params: Params, config: SAEConfig, scale: float) -> Dictionary:
    """For raw activations x, where training saw `scale`·x: biases are divided by the scale, weights stay."""
    return Dictionary(
        w_enc_DF=params.w_enc_DF,
        b_enc_F=params.b_enc_F / scale,
        w_dec_FD=params.w_dec_FD,
        b_dec_D=params.b_dec_D / scale,
        architecture="topk",
        k=config.k,
    )
