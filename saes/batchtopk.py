"""BatchTopK SAE: the K·B largest activations of a batch of B tokens (Bussmann et al. 2024, "BatchTopK Sparse Autoencoders").

A token may use more features than another.  For inference, where there is no batch, the smallest activation kept is averaged along
training and becomes a threshold: the dictionary is a JumpReLU with one threshold for all features.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes import autoencoder
from saes.autoencoder import Knobs, LossParts, Params
from saes.config import SAEConfig
from saes.dead import auxiliary_loss_of
from saes.dictionary import Dictionary, Leaf
from saes.selection import kth_largest


def init(key: jax.Array, config: SAEConfig, b_dec_D: Float[Array, " D"]) -> Params:
    return autoencoder.init(key, config.n_features, b_dec_D)


def encode(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"]) -> Float[Array, "B F"]:
    """The `knobs.k`·B largest activations of the batch; more where several equal the last of them (equal tokens)."""
    del config
    return keep_largest(autoencoder.pre_activations(params, x_BD), knobs.k)


def keep_largest(pre_BF: Float[Array, "B F"], k: Array) -> Float[Array, "B F"]:
    """ReLU(pre), all but the k·B largest set to 0."""
    positive_BF = jax.nn.relu(pre_BF)
    smallest = kth_largest(positive_BF, k * pre_BF.shape[0])
    return jnp.where(positive_BF >= smallest, positive_BF, 0.0)


def loss(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"], dead_F: Bool[Array, " F"]) -> tuple[Array, LossParts]:
    """Reconstruction error plus `aux_weight` times what dead features leave of the residual (`saes/dead.py`)."""
    pre_BF = autoencoder.pre_activations(params, x_BD)
    z_BF = keep_largest(pre_BF, knobs.k)
    error_BD = x_BD - autoencoder.decode(params, z_BF)
    aux = auxiliary_loss_of(params, config, x_BD, pre_BF, error_BD, dead_F)
    parts = autoencoder.parts(x_BD, error_BD, z_BF, jnp.any(z_BF > 0, axis=0), aux)
    return parts.squared_error + config.aux_weight * aux, parts


def to_dictionary(params: Params, scale: float, k: int, threshold: Leaf) -> Dictionary:
    """JumpReLU with the threshold learned along training, for raw activations (training saw `scale`·x)."""
    del k
    return Dictionary(
        **autoencoder.in_raw_units(params, scale),
        b_enc_F=params.b_enc_F / scale,
        threshold_F=(threshold[..., None] + 0.0 * params.b_enc_F) / scale,
        architecture="jumprelu",
    )


def from_dictionary(dictionary: Dictionary, scale: float) -> Params:
    """Parameters from which training goes on: `to_dictionary` of them is the dictionary, but for the threshold, which training learns."""
    return autoencoder.from_raw_units(dictionary, scale)
