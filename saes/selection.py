"""Exact selection of the largest values, and the value that separates them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def top_k_mask(values_BF: Float[Array, "B F"], k: int, of_them: Int[Array, ""] | None = None) -> Bool[Array, "B F"]:
    """True at the k largest of every row, exactly k also under ties (the lower index wins).

    A mask keeps the gradient elementwise; the transpose of a gather would be a scatter, slow and unordered on a GPU.

    Args:
      of_them: traced; only so many of the k, the largest.
    """
    _, index_BK = jax.lax.top_k(jax.lax.stop_gradient(values_BF), k)
    chosen = True if of_them is None else jnp.broadcast_to(jnp.arange(k) < of_them, index_BK.shape)
    rows_B1 = jnp.arange(values_BF.shape[0])[:, None]
    return jnp.zeros(values_BF.shape, bool).at[rows_B1, index_BK].set(chosen, unique_indices=True)


def kth_largest(values: Float[Array, "..."], k: Int[Array, ""]) -> Float[Array, ""]:
    """The k-th largest of all values, k traced and at least 1; values below 0 count as 0.

    Bit by bit (floats that are not negative order as their bits do): 31 passes over the array without sorting it, which on CPU
    and GPU is much slower for the k of a whole batch (`benchmarks/step.py`).
    """
    bits = jnp.maximum(jax.lax.bitcast_convert_type(jax.lax.stop_gradient(values), jnp.int32), 0)

    def one_bit(i: Array, low: Array) -> Array:
        candidate = low | (jnp.int32(1) << (30 - i))
        return jnp.where(jnp.sum(bits >= candidate, dtype=jnp.int32) >= k, candidate, low)

    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 31, one_bit, jnp.int32(0)), jnp.float32)
