"""Correlation of activations between features of different SAEs, over tokens that pass once.

All pairs would be F × G numbers; each feature is held against its few most similar ones by decoder.  Sums of one batch are taken in float32
on the device and added up in float64.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Candidates(NamedTuple):
    """Features of one SAE to hold against each feature of another.

    Attributes:
      anchor, other: places of the two SAEs.
      index_FM: features of `other`, for every one of `anchor`, int32.
    """

    anchor: int
    other: int
    index_FM: Array


def candidate_correlations(
    batches: Iterable[np.ndarray],
    encode: Callable[[Array], list[Array]],
    candidates: list[Candidates],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pearson correlations (F, M) of every anchor's features with their candidates, and as a null the same with the other SAE's tokens
    shifted by half a batch.

    Args:
      batches: float32 (B, D) activations.
      encode: features (B, F) of every SAE, in order.
      candidates: who is compared.

    Returns:
      (correlations, shifted), one array an entry of `candidates`; NaN where one of two features never fires, or always alike.

    Raises:
      ValueError: no tokens.
    """
    sums: list[np.ndarray] = []
    rows = 0

    @jax.jit
    def of_batch(x_BD: Array) -> list[Array]:
        z = [z_BF.T for z_BF in encode(x_BD)]
        moments = [jnp.stack([z_FB.sum(1), jnp.square(z_FB).sum(1)]) for z_FB in z]
        products = []
        for c in candidates:
            shifted_GB = jnp.roll(z[c.other], x_BD.shape[0] // 2, axis=1)
            products.append(jnp.stack([_products(z[c.anchor], other, c.index_FM) for other in (z[c.other], shifted_GB)]))
        return moments + products

    for x in batches:
        partial = [np.asarray(a, np.float64) for a in jax.device_get(of_batch(jax.device_put(x)))]
        sums = [a + b for a, b in zip(sums, partial, strict=True)] if sums else partial
        rows += len(x)
    if not rows:
        raise ValueError("no activations to correlate over")
    moments, products = sums[: len(sums) - len(candidates)], sums[len(sums) - len(candidates) :]
    found = []
    for c, both in zip(candidates, products, strict=True):
        (sum_F, square_F), (sum_G, square_G) = moments[c.anchor], moments[c.other]
        index = np.asarray(c.index_FM)
        covariance = both - (sum_F[:, None] * sum_G[index]) / rows
        variance = (square_F - sum_F**2 / rows)[:, None] * (square_G - sum_G**2 / rows)[index]
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(np.where(variance > 0, np.clip(covariance / np.sqrt(variance), -1.0, 1.0), np.nan))
    return [r[0] for r in found], [r[1] for r in found]


def _products(z_FB: Float[Array, "F B"], other_GB: Float[Array, "G B"], index_FM: Int[Array, "F M"]) -> Float[Array, "F M"]:
    """Σ over tokens of each feature's activation times each candidate's."""
    return jax.lax.map(lambda index_F: jnp.sum(z_FB * other_GB[index_F], axis=1), index_FM.T).T
