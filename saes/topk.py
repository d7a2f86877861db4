"""TopK SAE with an auxiliary loss on dead features (Gao et al. 2024, "Scaling and evaluating sparse autoencoders")."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes import autoencoder, sparse
from saes.autoencoder import Knobs, LossParts, Params
from saes.config import SAEConfig
from saes.dead import auxiliary_loss_of
from saes.dictionary import Dictionary, Leaf
from saes.selection import largest, top_k_mask


def init(key: jax.Array, config: SAEConfig, b_dec_D: Float[Array, " D"]) -> Params:
    return autoencoder.init(key, config.n_features, b_dec_D)


def encode(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"]) -> Float[Array, "B F"]:
    """The `knobs.k` largest pre-activations of every token, clipped at 0."""
    pre_BF = autoencoder.pre_activations(params, x_BD)
    return jnp.where(top_k_mask(pre_BF, config.k, knobs.k), jax.nn.relu(pre_BF), 0.0)


def loss(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"], dead_F: Bool[Array, " F"]) -> tuple[Array, LossParts]:
    """Reconstruction error plus `aux_weight` times what dead features leave of the residual (`saes/dead.py`)."""
    pre_BF = jax.lax.stop_gradient(autoencoder.pre_activations(params, x_BD))
    largest_BK, index_BK = largest(pre_BF, config.k)
    pre_BK = sparse.encode_at(params, x_BD, largest_BK, index_BK)
    z_BK = jnp.where(jnp.arange(config.k) < knobs.k, jax.nn.relu(pre_BK), 0.0)
    error_BD = x_BD - sparse.decode_at(params.w_dec_FD, z_BK, index_BK) - params.b_dec_D
    aux = auxiliary_loss_of(params, config, x_BD, pre_BF, error_BD, dead_F)
    fired_F = jnp.zeros(dead_F.shape, bool).at[index_BK.reshape(-1)].max((z_BK > 0).reshape(-1))
    parts = autoencoder.parts(x_BD, error_BD, z_BK, fired_F, aux)
    return parts.squared_error + config.aux_weight * aux, parts


def to_dictionary(params: Params, scale: float, k: int, threshold: Leaf) -> Dictionary:
    """For raw activations x, where training saw `scale`·x: biases are divided by the scale, weights stay."""
    del threshold
    return Dictionary(
        **autoencoder.in_raw_units(params, scale),
        b_enc_F=params.b_enc_F / scale,
        architecture="topk",
        k=k,
    )


def from_dictionary(dictionary: Dictionary, scale: float) -> Params:
    """Parameters from which training goes on: `to_dictionary` of them is the dictionary."""
    return autoencoder.from_raw_units(dictionary, scale)
