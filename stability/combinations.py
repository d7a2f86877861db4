"""Is a feature a combination of a few of another seed? Sparse regression of every decoder row on another dictionary's.

What one seed holds in one feature another may hold in two or three (split), or as a difference (absorbed: A with B in one feature, B in
another).  Then no single row is similar, and a combination of a few is.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from stability.similarity import AnyArray, unit_rows


class Combinations(NamedTuple):
    """The chosen rows of another dictionary, in the order in which they were chosen.

    Attributes:
      share_FM: of the row's squared norm that the first 1, 2, … M of them reconstruct together.
      index_FM: which rows they are, int32.
      weight_FM: with which all M are added, least squares on unit rows.
    """

    share_FM: Array
    index_FM: Int[Array, "F M"]
    weight_FM: Array


@functools.partial(jax.jit, static_argnames=("terms", "block_size"))
def best_combinations(a_FD: Float[AnyArray, "F D"], b_GD: Float[AnyArray, "G D"], terms: int = 3, *, block_size: int = 512) -> Combinations:
    """Orthogonal least squares (Chen, Billings & Luo 1989): the next row is the one that explains most together with those chosen before.

    Args:
      a_FD, b_GD: unit rows; rows of zeros are never worth choosing.
      terms: how many are chosen (M), at most G.
      block_size: rows of `a` at a time.

    Raises:
      ValueError: fewer than `terms` rows to choose from.
    """
    f, g = a_FD.shape[0], b_GD.shape[0]
    if not 1 <= terms <= g:
        raise ValueError(f"{terms} of {g} rows cannot be chosen")
    block = max(1, min(block_size, f))
    blocks = jnp.pad(a_FD, ((0, -f % block), (0, 0))).reshape(-1, block, a_FD.shape[1])
    dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def one_block(rows_BD: Array) -> Combinations:
        left_BG = dot(rows_BD, b_GD.T)  # cosine with what is not explained yet
        free_BG = jnp.broadcast_to(jnp.sum(jnp.square(b_GD), axis=1), left_BG.shape)  # squared norm outside those chosen
        shares: list[Array] = []
        indices: list[Array] = []
        axes: list[Array] = []
        share_B = jnp.zeros(rows_BD.shape[0])
        for _ in range(terms):
            gain_BG = jnp.where(free_BG > 1e-4, jnp.square(left_BG) / jnp.maximum(free_BG, 1e-4), 0.0)
            index_B = jnp.argmax(gain_BG, axis=1).astype(jnp.int32)
            share_B = share_B + jnp.take_along_axis(gain_BG, index_B[:, None], axis=1)[:, 0]
            axis_BD = b_GD[index_B]
            for q_BD in axes + axes:  # twice, or rounding leaves them less than orthogonal
                axis_BD = axis_BD - jnp.sum(axis_BD * q_BD, axis=1, keepdims=True) * q_BD
            axis_BD = unit_rows(axis_BD)
            along_BG = dot(axis_BD, b_GD.T)
            left_BG = left_BG - jnp.sum(rows_BD * axis_BD, axis=1, keepdims=True) * along_BG
            free_BG = free_BG - jnp.square(along_BG)
            axes.append(axis_BD)
            shares.append(share_B)
            indices.append(index_B)
        index_BM = jnp.stack(indices, axis=1)
        chosen_BMD = b_GD[index_BM]
        gram_BMM = jnp.einsum("bmd,bnd->bmn", chosen_BMD, chosen_BMD, precision=jax.lax.Precision.HIGHEST) + 1e-6 * jnp.eye(terms)
        target_BM = jnp.einsum("bmd,bd->bm", chosen_BMD, rows_BD, precision=jax.lax.Precision.HIGHEST)
        weight_BM = jnp.linalg.solve(gram_BMM, target_BM[..., None])[..., 0]
        return Combinations(jnp.clip(jnp.stack(shares, axis=1), 0.0, 1.0), index_BM, weight_BM)

    found = jax.lax.map(one_block, blocks)
    return Combinations(*(x.reshape(-1, terms)[:f] for x in found))


def chance_of_combination(share: float, rank: int, n_features: int, terms: int = 3, draws: int = 512) -> float:
    """P that the best combination of `terms` among `n_features` uniform directions of R^rank reconstructs that share of another; simulated.

    1 where `terms` directions span the space anyway.
    """
    if rank <= terms:
        return 1.0
    if n_features < terms:
        return 0.0
    rng = np.random.default_rng((rank, n_features, terms))
    a, b = (np.asarray(unit_rows(rng.normal(size=(n, rank)).astype(np.float32))) for n in (draws, n_features))
    return float(np.mean(np.asarray(best_combinations(a, b, terms).share_FM)[:, -1] >= share))
