"""Best signed cosine between the rows of dictionaries, without ever holding an F × F matrix."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyArray = jax.Array | np.ndarray


class BestMatch(NamedTuple):
    """For every row of one dictionary its most similar row of another; any leading axes.

    Attributes:
      cosine: of that row, in [-1, 1].
      partner: its index, int32; the lowest of equals.
    """

    cosine: Array
    partner: Array


def unit_rows(w_FD: Float[AnyArray, "*S F D"]) -> Float[Array, "*S F D"]:
    """Rows divided by their norm. Rows of zeros stay zeros and are similar (cosine 0) to nothing."""
    w_FD = jnp.asarray(w_FD)
    norm = jnp.linalg.norm(w_FD, axis=-1, keepdims=True)
    return jnp.where(norm > 0, w_FD / jnp.where(norm > 0, norm, 1.0), 0.0)


@functools.partial(jax.jit, static_argnames="block_size")
def best_match(a_FD: Float[AnyArray, "F D"], b_GD: Float[AnyArray, "G D"], *, block_size: int = 1024) -> tuple[BestMatch, BestMatch]:
    """Best matches of `a`'s rows in `b` and of `b`'s rows in `a`, from one product computed a block of `a` at a time.

    Args:
      a_FD, b_GD: unit rows (`unit_rows`).
      block_size: rows of `a` per block; extra memory is block_size × G floats.

    Returns:
      (a in b, b in a).
    """
    f, g = a_FD.shape[0], b_GD.shape[0]
    block = min(block_size, f)
    padding = -f % block
    blocks = jnp.pad(a_FD, ((0, padding), (0, 0))).reshape(-1, block, a_FD.shape[1])
    starts = jnp.arange(blocks.shape[0], dtype=jnp.int32) * block

    def one_block(best_of_b: BestMatch, inputs: tuple[Array, Array]) -> tuple[BestMatch, BestMatch]:
        rows, start = inputs
        cosine = jnp.matmul(rows, b_GD.T, precision=jax.lax.Precision.HIGHEST)
        a_in_b = BestMatch(jnp.max(cosine, axis=1), jnp.argmax(cosine, axis=1).astype(jnp.int32))
        real = (start + jnp.arange(block) < f)[:, None]
        cosine = jnp.where(real, cosine, -jnp.inf)
        here = BestMatch(jnp.max(cosine, axis=0), start + jnp.argmax(cosine, axis=0).astype(jnp.int32))
        better = here.cosine > best_of_b.cosine
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), here, best_of_b), a_in_b

    start = BestMatch(jnp.full(g, -jnp.inf), jnp.zeros(g, jnp.int32))
    b_in_a, a_in_b = jax.lax.scan(one_block, start, (blocks, starts))
    a_in_b = jax.tree.map(lambda x: x.reshape(-1)[:f], a_in_b)
    clip = lambda m: m._replace(cosine=jnp.clip(m.cosine, -1.0, 1.0))
    return clip(a_in_b), clip(b_in_a)


def all_pairs(w_dec_SFD: Float[AnyArray, "S F D"], *, block_size: int = 1024) -> BestMatch:
    """Best matches for every ordered pair (anchor, other), shapes (S, S, F); the diagonal is cosine NaN, partner -1.

    Raises:
      ValueError: fewer than two dictionaries, or rows that are not finite.
    """
    s, f, _ = w_dec_SFD.shape
    if s < 2:
        raise ValueError(f"{s} dictionary: stability compares at least 2")
    if not bool(jnp.isfinite(w_dec_SFD).all()):
        raise ValueError("a dictionary holds NaN or infinity; leave that seed out")
    unit_SFD = unit_rows(w_dec_SFD)
    first, second = (jnp.asarray(i) for i in zip(*((i, j) for i in range(s) for j in range(i + 1, s)), strict=True))
    there_PF, back_PF = _pairs(unit_SFD, first, second, block_size)
    cosine = jnp.full((s, s, f), jnp.nan).at[first, second].set(there_PF.cosine).at[second, first].set(back_PF.cosine)
    partner = jnp.full((s, s, f), -1, jnp.int32)
    partner = partner.at[first, second].set(there_PF.partner).at[second, first].set(back_PF.partner)
    return BestMatch(cosine, partner)


@functools.partial(jax.jit, static_argnames="block_size")
def _pairs(unit_SFD: Array, first_P: Array, second_P: Array, block_size: int) -> tuple[BestMatch, BestMatch]:
    """`best_match` of dictionary `first` and `second`, pair after pair."""
    return jax.lax.map(lambda ij: best_match(unit_SFD[ij[0]], unit_SFD[ij[1]], block_size=block_size), (first_P, second_P))
