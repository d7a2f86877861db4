"""Matryoshka SAE: BatchTopK codes of which every prefix of features must reconstruct too (Bussmann et al. 2025, "Learning
Multi-Level Features with Matryoshka Sparse Autoencoders")."""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes import autoencoder, batchtopk
from saes.autoencoder import Knobs, LossParts, Params
from saes.config import SAEConfig
from saes.dead import auxiliary_loss_of

init = batchtopk.init
encode = batchtopk.encode
to_dictionary, from_dictionary = batchtopk.to_dictionary, batchtopk.from_dictionary


def loss(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"], dead_F: Bool[Array, " F"]) -> tuple[Array, LossParts]:
    """Sum over the nested prefixes of their reconstruction errors, plus the auxiliary loss on what the whole leaves over."""
    pre_BF = autoencoder.pre_activations(params, x_BD)
    z_BF = batchtopk.keep_largest(pre_BF, knobs.k)
    error_BD = x_BD - params.b_dec_D
    total = jnp.float32(0.0)
    for first, last in itertools.pairwise((0, *config.prefixes())):
        error_BD = error_BD - z_BF[:, first:last] @ params.w_dec_FD[first:last]
        total = total + autoencoder.mean_square(error_BD)
    aux = auxiliary_loss_of(params, config, x_BD, pre_BF, error_BD, dead_F)
    parts = autoencoder.parts(x_BD, error_BD, z_BF, jnp.any(z_BF > 0, axis=0), aux)
    return total + config.aux_weight * aux, parts
