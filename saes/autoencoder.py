"""What the variants share: four arrays, unit decoder rows, and what a loss tells the step."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes.dictionary import Dictionary, Leaf


class Params(flax.struct.PyTreeNode):
    """Encoder (D, F), (F,) and decoder (F, D), (D,), or all with a leading seed axis."""

    w_enc_DF: Leaf
    b_enc_F: Leaf
    w_dec_FD: Leaf
    b_dec_D: Leaf


class Knobs(flax.struct.PyTreeNode):
    """What is traced, so that it may differ between the SAEs of one vmap.

    Attributes:
      lr: peak learning rate.
      k: target L0, at most `SAEConfig.k`, which sets shapes.
      sparsity: coefficient of the penalty; in training the controller's, before it the one to begin with.
      decoder_rate: factor on the learning rate of decoder rows, of all or (F, 1) of each: 1, or 0, which holds them where they start.
    """

    lr: Leaf
    k: Leaf
    sparsity: Leaf
    decoder_rate: Leaf


class LossParts(NamedTuple):
    """What a step needs besides the loss.

    Attributes:
      squared_error: Σ_d (x−x̂)², mean over the batch.
      penalty: auxiliary or sparsity loss, before its weight.
      variance: Σ_d (x−x̄)², mean over the batch, x̄ the batch mean; 0 where its rows are all alike.
      l0: active features a token, mean over the batch.
      fired_F: which features fired in this batch.
      smallest: the smallest activation, from which a threshold for inference is learned; 0 if none fired.
    """

    squared_error: Float[Array, ""]
    penalty: Float[Array, ""]
    variance: Float[Array, ""]
    l0: Float[Array, ""]
    fired_F: Bool[Array, " F"]
    smallest: Float[Array, ""]


def init(key: jax.Array, n_features: int, b_dec_D: Float[Array, " D"]) -> Params:
    """Uniform unit rows, the encoder their transpose; `b_dec_D` (geometric median of the data) is shared by all seeds."""
    w_dec_FD = unit_rows(jax.random.normal(key, (n_features, b_dec_D.shape[0])))
    return Params(w_enc_DF=w_dec_FD.T.copy(), b_enc_F=jnp.zeros(n_features), w_dec_FD=w_dec_FD, b_dec_D=b_dec_D)


def pre_activations(params: Params, x_BD: Float[Array, "B D"]) -> Float[Array, "B F"]:
    return (x_BD - params.b_dec_D) @ params.w_enc_DF + params.b_enc_F


def decode(params: Params, z_BF: Float[Array, "B F"]) -> Float[Array, "B D"]:
    return z_BF @ params.w_dec_FD + params.b_dec_D


def in_raw_units(params: Any, scale: float) -> dict[str, Leaf]:
    """What every variant's `Dictionary` for raw activations has in common, where training saw `scale`·x: biases are divided by the
    scale, weights stay."""
    return {"w_enc_DF": params.w_enc_DF, "w_dec_FD": params.w_dec_FD, "b_dec_D": params.b_dec_D / scale}


def parts(x_BD: Array, error_BD: Array, z: Array, fired_F: Array, penalty: Array) -> LossParts:
    """What every variant reports of a batch: errors of its reconstruction and its activations, (B, F) or only those that may be above 0."""
    fires = z > 0
    smallest = jnp.min(jnp.where(fires, z, jnp.inf))
    return LossParts(
        squared_error=mean_square(error_BD),
        penalty=penalty,
        variance=variance(x_BD),
        l0=jnp.mean(jnp.sum(fires, axis=-1, dtype=jnp.float32)),
        fired_F=fired_F,
        smallest=jnp.where(jnp.isfinite(smallest), smallest, 0.0),
    )


def mean_square(error_BD: Float[Array, "B D"]) -> Float[Array, ""]:
    """Squared norm of the rows, mean over the batch."""
    return jnp.mean(jnp.sum(jnp.square(error_BD), axis=-1))


def variance(x_BD: Float[Array, "B D"]) -> Float[Array, ""]:
    """Squared distance of the rows from their mean, mean over the batch; by how much the mean itself is rounded is taken off again."""
    left_BD = x_BD - jnp.mean(x_BD, axis=0)
    return jnp.maximum(mean_square(left_BD) - jnp.sum(jnp.square(jnp.mean(left_BD, axis=0))), 0.0)


def unit_rows(w_FD: Float[Array, "F D"]) -> Float[Array, "F D"]:
    return w_FD / jnp.linalg.norm(w_FD, axis=-1, keepdims=True)


def remove_parallel_gradient(gradient_FD: Float[Array, "F D"], w_dec_FD: Float[Array, "F D"]) -> Float[Array, "F D"]:
    """Takes out of each unit row's gradient the part along the row, which renormalisation would undo."""
    return gradient_FD - jnp.sum(gradient_FD * w_dec_FD, axis=-1, keepdims=True) * w_dec_FD


def from_raw_units(dictionary: Dictionary, scale: float) -> Params:
    """Of a `Dictionary` for raw activations the four arrays that do the same in training, which sees `scale`·x: the inverse of `to_dictionary` where
    that is no more than these."""
    return Params(
        w_enc_DF=dictionary.w_enc_DF,
        b_enc_F=dictionary.b_enc_F * scale,
        w_dec_FD=dictionary.w_dec_FD,
        b_dec_D=dictionary.b_dec_D * scale,
    )
