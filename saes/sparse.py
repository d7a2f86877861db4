"""Products with codes that are given as places and values, each platform in the way that suits it.

On CPU rows are gathered, and gradients added up one by one in the order of the batch: K/F of the work of products with codes full of
zeros.  Elsewhere those products are taken, since an accelerator multiplies fast and adds scattered terms in no fixed order.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from saes.autoencoder import Params


@jax.custom_vjp
def encode_at(params: Params, x_BD: Float[Array, "B D"], pre_BK: Float[Array, "B K"], index_BK: Int[Array, "B K"]) -> Float[Array, "B K"]:
    """`pre_BK`, the pre-activations of the features at `index_BK`, as a function of the encoder and b_dec; `x_BD` gets no gradient."""
    del params, x_BD, index_BK
    return pre_BK


def _encode_forward(params: Params, x_BD: Array, pre_BK: Array, index_BK: Array) -> tuple[Array, Any]:
    return pre_BK, (params, x_BD, index_BK)


def _encode_backward(saved: Any, gradient_BK: Array) -> tuple[Any, ...]:
    params, x_BD, index_BK = saved
    b_enc_F = sums_at(gradient_BK, index_BK, len(params.b_enc_F))
    gradients = Params(
        w_enc_DF=outer_sums(gradient_BK, index_BK, x_BD - params.b_dec_D, len(params.b_enc_F)).T,
        b_enc_F=b_enc_F,
        w_dec_FD=jnp.zeros_like(params.w_dec_FD),
        b_dec_D=-params.w_enc_DF @ b_enc_F,
    )
    return gradients, None, None, None


encode_at.defvjp(_encode_forward, _encode_backward)


@jax.custom_vjp
def decode_at(w_dec_FD: Float[Array, "F D"], z_BK: Float[Array, "B K"], index_BK: Int[Array, "B K"]) -> Float[Array, "B D"]:
    """Σ_k z_k · (row `index_k` of the decoder)."""
    return jax.lax.platform_dependent(
        w_dec_FD, z_BK, index_BK,
        cpu=lambda w_FD, z_BK, index_BK: jnp.einsum("bk,bkd->bd", z_BK, w_FD[index_BK]),
        default=lambda w_FD, z_BK, index_BK: spread(z_BK, index_BK, len(w_FD)) @ w_FD,
    )  # fmt: skip


def _decode_forward(w_dec_FD: Array, z_BK: Array, index_BK: Array) -> tuple[Array, Any]:
    return decode_at(w_dec_FD, z_BK, index_BK), (w_dec_FD, z_BK, index_BK)


def _decode_backward(saved: Any, gradient_BD: Array) -> tuple[Any, ...]:
    w_dec_FD, z_BK, index_BK = saved
    of_codes_BK = jax.lax.platform_dependent(
        gradient_BD, w_dec_FD, index_BK,
        cpu=lambda g_BD, w_FD, index_BK: jnp.einsum("bd,bkd->bk", g_BD, w_FD[index_BK]),
        default=lambda g_BD, w_FD, index_BK: jnp.take_along_axis(g_BD @ w_FD.T, index_BK, axis=1),
    )  # fmt: skip
    return outer_sums(z_BK, index_BK, gradient_BD, len(w_dec_FD)), of_codes_BK, None


decode_at.defvjp(_decode_forward, _decode_backward)


def spread(z_BK: Array, index_BK: Int[Array, "B K"], n_features: int) -> Array:
    """(B, F) zeros with the values at their places, which differ within a row."""
    rows_B1 = jnp.arange(len(z_BK))[:, None]
    return jnp.zeros((len(z_BK), n_features), z_BK.dtype).at[rows_B1, index_BK].set(z_BK, unique_indices=True)


def sums_at(z_BK: Float[Array, "B K"], index_BK: Int[Array, "B K"], n_features: int) -> Float[Array, " F"]:
    """The sum of what the tokens hold of each feature."""
    return jax.lax.platform_dependent(
        z_BK, index_BK,
        cpu=lambda z_BK, index_BK: jnp.zeros(n_features).at[index_BK.reshape(-1)].add(z_BK.reshape(-1)),
        default=lambda z_BK, index_BK: jnp.sum(spread(z_BK, index_BK, n_features), axis=0),
    )  # fmt: skip


def outer_sums(
    z_BK: Float[Array, "B K"], index_BK: Int[Array, "B K"], rows_BD: Float[Array, "B D"], n_features: int
) -> Float[Array, "F D"]:
    """Row f: the sum over tokens of what they hold of feature f, times their row."""

    def one_by_one(z_BK: Array, index_BK: Array, rows_BD: Array) -> Array:
        terms = (z_BK[..., None] * rows_BD[:, None]).reshape(-1, rows_BD.shape[1])
        return jnp.zeros((n_features, rows_BD.shape[1])).at[index_BK.reshape(-1)].add(terms)

    product = lambda z_BK, index_BK, rows_BD: spread(z_BK, index_BK, n_features).T @ rows_BD
    return jax.lax.platform_dependent(z_BK, index_BK, rows_BD, cpu=one_by_one, default=product)
