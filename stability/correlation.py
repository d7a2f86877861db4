"""Correlation of activations between features of different SAEs, over tokens that pass a few times.

All pairs would be F × G numbers; each feature is held against its few most similar ones by decoder.  Pairs of SAEs are taken some at a
time, so that memory does not grow with their number; sums of one batch are taken in float32 on the device and added up in float64. Sums are of
activations less a fixed number, for features that are nearly constant their mean in the first batch: what is subtracted in the end is small.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

PAIRS_AT_ONCE = 64


class Candidates(NamedTuple):
    """Features of one SAE to hold against each feature of another.

    Attributes:
      anchor, other: places of the two SAEs.
      index_FM: features of `other`, for every one of `anchor`, int32.
    """

    anchor: int
    other: int
    index_FM: Any


def candidate_correlations(
    batches: Callable[[], Iterable[np.ndarray]],
    encode: Callable[[int, Array], Array],
    candidates: Sequence[Candidates],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pearson correlations (F, M) of every anchor's features with their candidates, and as a null the same with the other SAE's tokens
    shifted by half a batch.

    Args:
      batches: makes the batches anew: float32 (B, D) activations.
      encode: (place of an SAE, activations) → its features (B, F).
      candidates: who is compared.

    Returns:
      (correlations, shifted), one array an entry of `candidates`; NaN where one of two features never fires, or always alike.

    Raises:
      ValueError: no tokens.
    """
    own: list[np.ndarray] = []
    shifted: list[np.ndarray] = []
    for first in range(0, len(candidates), PAIRS_AT_ONCE):
        for of_pair in _of_some(batches, encode, candidates[first : first + PAIRS_AT_ONCE]):
            own.append(of_pair[0])
            shifted.append(of_pair[1])
    return own, shifted


def _of_some(batches: Any, encode: Any, candidates: Sequence[Candidates]) -> list[np.ndarray]:
    """(2, F, M) of every pair: correlations, and with tokens shifted."""
    places = sorted({place for c in candidates for place in (c.anchor, c.other)})
    index = [jnp.asarray(c.index_FM) for c in candidates]
    shift: dict[int, Array] = {}
    moments: dict[int, Any] = dict.fromkeys(places, 0.0)
    least, most = dict.fromkeys(places, np.inf), dict.fromkeys(places, -np.inf)
    products: list[Any] = [0.0] * len(candidates)
    rows = 0
    for x in batches():
        x_BD = jnp.asarray(x)
        z = {place: encode(place, x_BD).T for place in places}
        shift = shift or {place: _nearly_constant(of) for place, of in z.items()}
        z = {place: of - shift[place][:, None] for place, of in z.items()}
        partial = jax.device_get(
            ([_moments(z[p]) for p in places], [_products(z[c.anchor], z[c.other], i) for c, i in zip(candidates, index, strict=True)])
        )
        for place, value in zip(places, partial[0], strict=True):
            moments[place] = moments[place] + value[:2].astype(np.float64)
            least[place], most[place] = np.minimum(least[place], value[2]), np.maximum(most[place], value[3])
        products = [total + value.astype(np.float64) for total, value in zip(products, partial[1], strict=True)]
        rows += len(x)
    if not rows:
        raise ValueError("no activations to correlate over")
    found = []
    for c, both in zip(candidates, products, strict=True):
        (sum_F, square_F), (sum_G, square_G) = moments[c.anchor], moments[c.other]
        at = np.asarray(c.index_FM)
        covariance = both - (sum_F[:, None] * sum_G[at]) / rows
        of_F, of_G = (np.maximum(square - total**2 / rows, 0.0) for total, square in ((sum_F, square_F), (sum_G, square_G)))
        varies_F, varies_G = ((most[place] > least[place]) for place in (c.anchor, c.other))
        variance = (of_F * varies_F)[:, None] * (of_G * varies_G)[at]
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(np.where(variance > 0, np.clip(covariance / np.sqrt(variance), -1.0, 1.0), np.nan))
    return found


@jax.jit
def _nearly_constant(z_FB: Float[Array, "F B"]) -> Float[Array, " F"]:
    """The mean activation of features that vary less than that; 0 of the others, most of which are 0 on most tokens."""
    mean_F = z_FB.mean(1)
    return jnp.where(jnp.square(z_FB - mean_F[:, None]).mean(1) < jnp.square(mean_F), mean_F, 0.0)


@jax.jit
def _moments(z_FB: Float[Array, "F B"]) -> Float[Array, "4 F"]:
    """Sum, sum of squares, smallest and largest over the tokens."""
    return jnp.stack([z_FB.sum(1), jnp.square(z_FB).sum(1), z_FB.min(1), z_FB.max(1)])


@jax.jit
def _products(z_FB: Float[Array, "F B"], other_GB: Float[Array, "G B"], index_FM: Int[Array, "F M"]) -> Float[Array, "2 F M"]:
    """Σ over tokens of each feature's activation times each candidate's, as they are and with the candidate's tokens shifted."""
    both = (other_GB, jnp.roll(other_GB, other_GB.shape[1] // 2, axis=1))
    of_one = lambda index_F: jnp.stack([jnp.sum(z_FB * of[index_F], axis=1) for of in both])
    return jnp.moveaxis(jax.lax.map(of_one, index_FM.T), 0, -1)
