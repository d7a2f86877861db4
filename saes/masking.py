"""Reconstructions without some of the features: removed after the activation, or before the selection, when in topk others take their places."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from saes.dictionary import Dictionary, decode, encode, residual


def errors_of_choices(dictionary: Dictionary, batches: Iterable[np.ndarray], among_MF: np.ndarray) -> np.ndarray:
    """(M,) Σ ‖x − x̂‖² over all tokens, for M choices of the features that take part in the selection, all in one pass.

    Errors of a token are held against those of the first choice before they are added up, so that differences between choices are as exact where
    few features are missing.

    Args:
      batches: float32 (B, D); the last may be shorter.
      among_MF: bool.

    Raises:
      ValueError: no tokens.
    """
    on_device, among, total, most = jax.device_put(dictionary), jnp.asarray(among_MF, bool), np.zeros(len(among_MF)), 0
    for x in batches:
        most = max(most, len(x))
        first, more_M = jax.device_get(_of_batch(on_device, np.pad(x, ((0, most - len(x)), (0, 0))), np.int32(len(x)), among))
        total += float(first) + more_M.astype(np.float64)
    if not most:
        raise ValueError("no activations to mask features on")
    return total


@jax.jit
def _of_batch(dictionary: Dictionary, x_BD: Float[Array, "B D"], length: Array, among_MF: Bool[Array, "M F"]) -> tuple[Array, Array]:
    """(error of the first choice, by how much that of each is larger (M,)), sums over the first `length` tokens."""
    real_B = jnp.arange(x_BD.shape[0]) < length

    def one(among_F: Array) -> Array:
        error_B = jnp.square(residual(dictionary, x_BD, encode(dictionary, x_BD, among_F))).sum(-1)
        return jnp.where(real_B, error_B, 0.0)

    error_MB = jax.lax.map(one, among_MF)
    return error_MB[0].sum(), (error_MB - error_MB[0]).sum(1)


def reconstructions(
    dictionary: Dictionary,
    x_ND: Float[Array, "N D"],
    after_MF: Bool[Array, "M F"],
    filled_MD: Float[Array, "M D"],
    before_PF: Bool[Array, "P F"],
) -> Float[Array, "Q N D"]:
    """x̂ with the features that each mask names, of M masks applied after the activation and P before the selection: (M + P, N, D).

    Args:
      filled_MD: what is put in the place of the features that are removed after the activation, zeros or the mean of what they add.
    """
    z_NF = encode(dictionary, x_ND)
    after = jax.lax.map(lambda one: decode(dictionary, jnp.where(one[0], z_NF, 0.0)) + one[1], (after_MF, filled_MD))
    if not before_PF.shape[0]:
        return after
    return jnp.concatenate([after, jax.lax.map(lambda among_F: decode(dictionary, encode(dictionary, x_ND, among_F)), before_PF)])
