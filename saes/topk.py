"""TopK SAE with an auxiliary loss on dead features (Gao et al. 2024, "Scaling and evaluating sparse autoencoders")."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes import autoencoder
from saes.autoencoder import Knobs, LossParts, Params
from saes.config import SAEConfig
from saes.dead import auxiliary_loss
from saes.dictionary import Dictionary, Leaf
from saes.selection import top_k_mask


def init(key: jax.Array, config: SAEConfig, b_dec_D: Float[Array, " D"]) -> Params:
    return autoencoder.init(key, config.n_features, b_dec_D)


def encode(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"]) -> Float[Array, "B F"]:
    """The `knobs.k` largest pre-activations of every token, clipped at 0."""
    return _codes(autoencoder.pre_activations(params, x_BD), config, knobs)


def loss(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"], dead_F: Bool[Array, " F"]) -> tuple[Array, LossParts]:
    """Reconstruction error plus `aux_weight` times the dead features' error on the residual."""
    pre_BF = autoencoder.pre_activations(params, x_BD)
    z_BF = _codes(pre_BF, config, knobs)
    error_BD = x_BD - autoencoder.decode(params, z_BF)
    aux = auxiliary_loss(params.w_dec_FD, pre_BF, jax.lax.stop_gradient(error_BD), dead_F, config.dead_features_used(x_BD.shape[1]))
    parts = autoencoder.parts(x_BD, error_BD, z_BF, aux)
    return parts.squared_error + config.aux_weight * aux, parts


def _codes(pre_BF: Array, config: SAEConfig, knobs: Knobs) -> Array:
    return jnp.where(top_k_mask(pre_BF, config.k, knobs.k), jax.nn.relu(pre_BF), 0.0)


def to_dictionary(params: Params, scale: float, k: int, threshold: Leaf) -> Dictionary:
    """For raw activations x, where training saw `scale`·x: biases are divided by the scale, weights stay."""
    del threshold
    return Dictionary(
        **autoencoder.in_raw_units(params, scale),
        b_enc_F=params.b_enc_F / scale,
        architecture="topk",
        k=k,
    )
