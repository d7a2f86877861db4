"""Gated SAE: which features fire and how strongly are told apart (Rajamanoharan et al. 2024, "Improving Dictionary Learning with
Gated Sparse Autoencoders", eq. 6–8)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes import autoencoder
from saes.autoencoder import Knobs, LossParts
from saes.config import SAEConfig
from saes.dictionary import Dictionary, Leaf


class Params(flax.struct.PyTreeNode):
    """Encoder and decoder as in `autoencoder.Params`; biases of gate and magnitude, and the log of the magnitude's scale, (F,) each."""

    w_enc_DF: Leaf
    b_gate_F: Leaf
    b_mag_F: Leaf
    r_mag_F: Leaf
    w_dec_FD: Leaf
    b_dec_D: Leaf


def init(key: jax.Array, config: SAEConfig, b_dec_D: Float[Array, " D"]) -> Params:
    shared = autoencoder.init(key, config.n_features, b_dec_D)
    zeros = lambda: jnp.zeros(config.n_features)
    return Params(shared.w_enc_DF, zeros(), zeros(), zeros(), shared.w_dec_FD, shared.b_dec_D)


def encode(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"]) -> Float[Array, "B F"]:
    """Magnitudes where the gate is open."""
    del config, knobs
    return _gate_and_codes(params, x_BD)[1]


def _gate_and_codes(params: Params, x_BD: Array) -> tuple[Array, Array]:
    along_BF = (x_BD - params.b_dec_D) @ params.w_enc_DF
    gate_BF = along_BF + params.b_gate_F
    magnitude_BF = jax.nn.relu(jnp.exp(params.r_mag_F) * along_BF + params.b_mag_F)
    return gate_BF, jnp.where(gate_BF > 0, magnitude_BF, 0.0)


def loss(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"], dead_F: Bool[Array, " F"]) -> tuple[Array, LossParts]:
    """Reconstruction error + λ Σ ReLU(π)‖d‖ + the error of reconstructing from ReLU(π) with a frozen decoder, which trains the gate π."""
    del config, dead_F
    gate_BF, z_BF = _gate_and_codes(params, x_BD)
    error_BD = x_BD - (z_BF @ params.w_dec_FD + params.b_dec_D)
    open_BF = jax.nn.relu(gate_BF)
    penalty = jnp.mean(open_BF @ jnp.linalg.norm(params.w_dec_FD, axis=-1))
    frozen: Any = jax.lax.stop_gradient((params.w_dec_FD, params.b_dec_D))
    by_gate = autoencoder.mean_square(x_BD - (open_BF @ frozen[0] + frozen[1]))
    parts = autoencoder.parts(x_BD, error_BD, z_BF, jnp.any(z_BF > 0, axis=0), penalty)
    return parts.squared_error + knobs.sparsity * penalty + by_gate, parts


def to_dictionary(params: Params, scale: float, k: int, threshold: Leaf) -> Dictionary:
    """For raw activations, where training saw `scale`·x."""
    del k, threshold
    return Dictionary(
        **autoencoder.in_raw_units(params, scale),
        b_enc_F=params.b_gate_F / scale,
        r_mag_F=params.r_mag_F,
        b_mag_F=params.b_mag_F / scale,
        architecture="gated",
    )


def from_dictionary(dictionary: Dictionary, scale: float) -> Params:
    """Parameters from which training goes on: `to_dictionary` of them is the dictionary."""
    of = autoencoder.from_raw_units(dictionary, scale)
    return Params(of.w_enc_DF, of.b_enc_F, dictionary.b_mag_F * scale, dictionary.r_mag_F, of.w_dec_FD, of.b_dec_D)
