"""Exact selection of the largest values, and the value that separates them."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def largest(values_BF: Float[Array, "B F"], k: int) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k largest of every row, the largest first, and their places; of equal ones the lower place first, as in `jax.lax.top_k`.

    XLA's top-k for CPU sorts row after row on one thread; there a tournament is two to four times as fast (`benchmarks/step.py`).
    Without gradient.  −inf may come back as the lowest finite number, −0 may rank as 0, and a row with NaN gives anything.
    """
    top_k = lambda values_BF: tuple(jax.lax.top_k(values_BF, k))
    return jax.lax.platform_dependent(jax.lax.stop_gradient(values_BF), cpu=lambda values_BF: _tournament(values_BF, k), default=top_k)


def _tournament(values_BF: Array, k: int) -> tuple[Array, Array]:
    """Groups of about √F keep their best; k times the best of these is taken, and its group looks for the next."""
    n, f = values_BF.shape
    width = 2 ** math.ceil(math.log2(f) / 2)
    groups = -(-f // width)
    # What has left or was never there is −inf, below all that may be taken.
    values_BF = jnp.maximum(values_BF, jnp.finfo(values_BF.dtype).min)
    values_BGW = jnp.pad(values_BF, ((0, 0), (0, groups * width - f)), constant_values=-jnp.inf).reshape(n, groups, width)
    group_G, place_W = jnp.arange(groups, dtype=jnp.int32), jnp.arange(width, dtype=jnp.int32)
    first = lambda found, places, none: jnp.min(jnp.where(found, places, none), axis=1, keepdims=True)

    def take(held: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """`best_BG`: of what is left in every group; `after_BG`: it stands behind this place, since its equals before are taken."""
        best_BG, after_BG = held
        best_B1 = jnp.max(best_BG, axis=1, keepdims=True)
        winner_B1 = first(best_BG == best_B1, group_G, groups - 1)
        own_BW = jnp.take_along_axis(values_BGW, winner_B1[:, :, None], axis=1)[:, 0]
        place_B1 = first((own_BW == best_B1) & (place_W > jnp.take_along_axis(after_BG, winner_B1, axis=1)), place_W, width - 1)
        left_BW = (own_BW < best_B1) | ((own_BW == best_B1) & (place_W > place_B1))
        next_B1 = jnp.max(jnp.where(left_BW, own_BW, -jnp.inf), axis=1, keepdims=True)
        won_BG = group_G == winner_B1
        after_BG = jnp.where(won_BG, jnp.where(next_B1 == best_B1, place_B1, -1), after_BG)
        return (jnp.where(won_BG, next_B1, best_BG), after_BG), (best_B1[:, 0], winner_B1[:, 0] * width + place_B1[:, 0])

    nothing_BG = jnp.full((n, groups), -1, jnp.int32)
    _, (value_KB, index_KB) = jax.lax.scan(take, (jnp.max(values_BGW, axis=2), nothing_BG), None, length=k)
    return value_KB.T, index_KB.T


def top_k_mask(values_BF: Float[Array, "B F"], k: int, of_them: Int[Array, ""] | None = None) -> Bool[Array, "B F"]:
    """True at the k largest of every row, exactly k also under ties (the lower index wins).

    A mask keeps the gradient elementwise; the transpose of a gather would be a scatter, slow and unordered on a GPU.

    Args:
      of_them: traced; only so many of the k, the largest.
    """
    _, index_BK = largest(values_BF, k)
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
