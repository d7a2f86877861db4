"""ReLU SAE with an L1 penalty weighted by decoder norms, decoder unconstrained (Conerly et al. 2024, "Update on how we train SAEs")."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes import autoencoder
from saes.autoencoder import Knobs, LossParts, Params
from saes.config import SAEConfig
from saes.dictionary import Dictionary, Leaf


def init(key: jax.Array, config: SAEConfig, b_dec_D: Float[Array, " D"]) -> Params:
    return autoencoder.init(key, config.n_features, b_dec_D)


def encode(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"]) -> Float[Array, "B F"]:
    del config, knobs
    return jax.nn.relu(autoencoder.pre_activations(params, x_BD))


def loss(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"], dead_F: Bool[Array, " F"]) -> tuple[Array, LossParts]:
    """Reconstruction error + λ Σ_i f_i ‖d_i‖."""
    del dead_F
    z_BF = encode(params, config, knobs, x_BD)
    error_BD = x_BD - autoencoder.decode(params, z_BF)
    penalty = jnp.mean(z_BF @ jnp.linalg.norm(params.w_dec_FD, axis=-1))
    parts = autoencoder.parts(x_BD, error_BD, z_BF, jnp.any(z_BF > 0, axis=0), penalty)
    return parts.squared_error + knobs.sparsity * penalty, parts


def to_dictionary(params: Params, scale: float, k: int, threshold: Leaf) -> Dictionary:
    """For raw activations (training saw `scale`·x), decoder rows made unit: activations are in units of the activations."""
    del k, threshold
    largest_F1 = jnp.max(jnp.abs(params.w_dec_FD), axis=-1, keepdims=True)
    largest_F1 = jnp.where(largest_F1 > 0, largest_F1, 1.0)  # first, so that squares neither overflow nor vanish
    norm_F = largest_F1[..., 0] * jnp.linalg.norm(params.w_dec_FD / largest_F1, axis=-1)
    norm_F = jnp.where(norm_F > 0, norm_F, 1.0)
    return Dictionary(
        w_enc_DF=params.w_enc_DF * norm_F[..., None, :],
        b_enc_F=params.b_enc_F * norm_F / scale,
        w_dec_FD=params.w_dec_FD / norm_F[..., None],
        b_dec_D=params.b_dec_D / scale,
        architecture="standard",
    )


def from_dictionary(dictionary: Dictionary, scale: float) -> Params:
    """Parameters from which training goes on: `to_dictionary` of them is the dictionary."""
    return autoencoder.from_raw_units(dictionary, scale)
