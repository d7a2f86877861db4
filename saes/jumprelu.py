"""JumpReLU SAE: a learned threshold for every feature (Rajamanoharan et al. 2024, "Jumping Ahead", eq. 9–12).

Jump and step have no gradient in the threshold; straight-through estimators with a rectangle of width ε stand for it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes import autoencoder
from saes.autoencoder import Knobs, LossParts
from saes.config import SAEConfig
from saes.dictionary import Dictionary, Leaf


class Params(autoencoder.Params):
    """Those of `autoencoder.Params` and log θ, (F,) or with a leading seed axis."""

    log_threshold_F: Leaf


def init(key: jax.Array, config: SAEConfig, b_dec_D: Float[Array, " D"]) -> Params:
    shared = autoencoder.init(key, config.n_features, b_dec_D)
    threshold = config.jump_threshold * b_dec_D.shape[0] ** 0.5
    return Params(**vars(shared), log_threshold_F=jnp.full(config.n_features, jnp.log(threshold)))


def encode(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"]) -> Float[Array, "B F"]:
    del knobs
    return jump(autoencoder.pre_activations(params, x_BD), jnp.exp(params.log_threshold_F), config.bandwidth(x_BD.shape[1]))


def loss(params: Params, config: SAEConfig, knobs: Knobs, x_BD: Float[Array, "B D"], dead_F: Bool[Array, " F"]) -> tuple[Array, LossParts]:
    """Reconstruction error + λ·L0 + `pre_act_weight`·Σ ReLU(θ − pre)‖d‖ over dead features (Conerly et al. 2025), which revives them."""
    threshold_F, bandwidth = jnp.exp(params.log_threshold_F), config.bandwidth(x_BD.shape[1])
    pre_BF = autoencoder.pre_activations(params, x_BD)
    z_BF = jump(pre_BF, threshold_F, bandwidth)
    error_BD = x_BD - autoencoder.decode(params, z_BF)
    l0 = jnp.mean(jnp.sum(step(pre_BF, threshold_F, bandwidth), axis=-1))
    short_BF = jnp.where(dead_F, jax.nn.relu(threshold_F - pre_BF), 0.0)
    revive = jnp.mean(short_BF @ jnp.linalg.norm(params.w_dec_FD, axis=-1))
    parts = autoencoder.parts(x_BD, error_BD, z_BF, jnp.any(z_BF > 0, axis=0), l0)
    return parts.squared_error + knobs.sparsity * l0 + config.pre_act_weight * revive, parts


@jax.custom_vjp
def jump(pre_BF: Float[Array, "B F"], threshold_F: Float[Array, " F"], bandwidth: Any) -> Float[Array, "B F"]:
    """pre where pre > θ, else 0; ∂/∂θ = −(θ/ε)·rect((pre − θ)/ε), ∂/∂pre = 1[pre > θ]."""
    del bandwidth
    return jnp.where(pre_BF > threshold_F, pre_BF, 0.0)


@jax.custom_vjp
def step(pre_BF: Float[Array, "B F"], threshold_F: Float[Array, " F"], bandwidth: Any) -> Float[Array, "B F"]:
    """1 where pre > θ; ∂/∂θ = −(1/ε)·rect((pre − θ)/ε), none in pre."""
    del bandwidth
    return (pre_BF > threshold_F).astype(pre_BF.dtype)


def _rectangle(pre_BF: Array, threshold_F: Array, bandwidth: Any) -> Array:
    return (jnp.abs(pre_BF - threshold_F) < bandwidth / 2) / bandwidth


def _jump_backward(saved: tuple[Array, Array, Any], cotangent_BF: Array) -> tuple[Array, Array, None]:
    pre_BF, threshold_F, bandwidth = saved
    to_threshold_F = -threshold_F * jnp.sum(_rectangle(pre_BF, threshold_F, bandwidth) * cotangent_BF, axis=0)
    return jnp.where(pre_BF > threshold_F, cotangent_BF, 0.0), to_threshold_F, None


def _step_backward(saved: tuple[Array, Array, Any], cotangent_BF: Array) -> tuple[Array, Array, None]:
    pre_BF, threshold_F, bandwidth = saved
    return jnp.zeros_like(pre_BF), -jnp.sum(_rectangle(pre_BF, threshold_F, bandwidth) * cotangent_BF, axis=0), None


jump.defvjp(lambda *args: (jump(*args), args), _jump_backward)
step.defvjp(lambda *args: (step(*args), args), _step_backward)


def to_dictionary(params: Params, scale: float, k: int, threshold: Leaf) -> Dictionary:
    """For raw activations, where training saw `scale`·x."""
    del k, threshold
    return Dictionary(
        **autoencoder.in_raw_units(params, scale),
        b_enc_F=params.b_enc_F / scale,
        threshold_F=jnp.exp(params.log_threshold_F) / scale,
        architecture="jumprelu",
    )


def from_dictionary(dictionary: Dictionary, scale: float) -> Params:
    """Parameters from which training goes on: `to_dictionary` of them is the dictionary."""
    threshold_F = jnp.maximum(jnp.asarray(dictionary.threshold_F) * scale, 1e-12)
    return Params(**vars(autoencoder.from_raw_units(dictionary, scale)), log_threshold_F=jnp.log(threshold_F))
