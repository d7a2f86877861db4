"""Second moments of an SAE's activations and of what it leaves of the tokens, from one pass.

The reconstruction is linear in the activations, so these say exactly what removing any set of features after the activation does to the
error (`stability/function.py`), and what a decoder fitted again to those that are left would reach, without another pass for every set.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from saes import spread
from saes.dictionary import Dictionary, encode, residual
from saes.spread import Spread


class Moments(NamedTuple):
    """Sums over tokens x (D) of activations z (F) and the residual r = x − x̂ (D); NumPy, float64.

    Attributes:
      x: of the tokens, how many there are and how far they spread.
      error: Σ ‖r‖².
      r_sum_D: Σ r.
      firings_F: tokens on which each feature fires.
      z_sum_F: Σ z.
      zz_FF: Σ z zᵀ.
      zr_FD: Σ z rᵀ.
    """

    x: Spread
    error: float
    r_sum_D: np.ndarray
    firings_F: np.ndarray
    z_sum_F: np.ndarray
    zz_FF: np.ndarray
    zr_FD: np.ndarray

    @property
    def rows(self) -> int:
        return self.x.rows

    @property
    def variance(self) -> float:
        """Σ ‖x − x̄‖², x̄ the mean of the tokens."""
        return self.x.variance


def measure(dictionary: Dictionary, batches: Iterable[np.ndarray]) -> Moments:
    """Of one SAE.

    Args:
      batches: float32 (B, D); the last may be shorter. Sums within a batch are float32, over batches float64; those of features that are nearly
        constant are of what they differ from their mean in the first batch.

    Raises:
      ValueError: no tokens.
    """
    on_device, x, most, shift_F = jax.device_put(dictionary), None, 0, None
    sums: dict[str, np.ndarray] = {}
    for x_BD in batches:
        most = max(most, len(x_BD))
        padded, length = np.pad(x_BD, ((0, most - len(x_BD)), (0, 0))), np.int32(len(x_BD))
        shift_F = _nearly_constant(on_device, padded, length) if shift_F is None else shift_F
        for name, part in jax.device_get(_of_batch(on_device, padded, length, shift_F)).items():
            if name in sums:
                sums[name] += part
            else:
                sums[name] = part.astype(np.float64)
        x = spread.with_rows(x, x_BD)
    if x is None:
        raise ValueError("no activations to take moments of")
    _shift_back(sums, np.asarray(shift_F, np.float64), x.rows)
    error = float(sums.pop("error"))
    return Moments(x=x, error=error, **sums)


def added(one: Moments, other: Moments) -> Moments:
    """Of both sets of tokens together."""
    pairs = {name: getattr(one, name) + getattr(other, name) for name in Moments._fields if name != "x"}
    return Moments(x=spread.added(one.x, other.x), **pairs)


@jax.jit
def _nearly_constant(dictionary: Dictionary, x_BD: Float[Array, "B D"], length: Array) -> Float[Array, " F"]:
    """The mean activation of features that vary less than that; 0 of the others, most of which are 0 on most tokens."""
    real_B1 = (jnp.arange(x_BD.shape[0]) < length)[:, None]
    z_BF = jnp.where(real_B1, encode(dictionary, x_BD), 0.0)
    mean_F = z_BF.sum(0) / length
    return jnp.where(jnp.where(real_B1, jnp.square(z_BF - mean_F), 0.0).sum(0) < length * jnp.square(mean_F), mean_F, 0.0)


@jax.jit
def _of_batch(dictionary: Dictionary, x_BD: Float[Array, "B D"], length: Array, shift_F: Float[Array, " F"]) -> dict[str, Array]:
    """Sums over the first `length` rows, of z less the shift."""
    real_B1 = (jnp.arange(x_BD.shape[0]) < length)[:, None]
    z_BF = encode(dictionary, x_BD)
    r_BD = jnp.where(real_B1, residual(dictionary, x_BD, z_BF), 0.0)
    left_BF = jnp.where(real_B1, z_BF - shift_F, 0.0)
    return {
        "error": jnp.square(r_BD).sum(),
        "r_sum_D": r_BD.sum(0),
        "firings_F": (real_B1 & (z_BF > 0)).sum(0),
        "z_sum_F": left_BF.sum(0),
        "zz_FF": left_BF.T @ left_BF,
        "zr_FD": left_BF.T @ r_BD,
    }


def _shift_back(sums: dict[str, np.ndarray], shift_F: np.ndarray, rows: int) -> None:
    """From sums of z − c those of z, in float64 and in place."""
    (at,) = np.nonzero(shift_F)
    c, left_F = shift_F[at], sums["z_sum_F"].copy()
    sums["zz_FF"][at] += np.outer(c, left_F)
    sums["zz_FF"][:, at] += np.outer(left_F, c)
    sums["zz_FF"][np.ix_(at, at)] += rows * np.outer(c, c)
    sums["zr_FD"][at] += np.outer(c, sums["r_sum_D"])
    sums["z_sum_F"][at] += rows * c


def refitted_explained_variance(fit: Moments, test: Moments, dictionary: Dictionary, kept_M: np.ndarray) -> float:
    """Explained variance when only the features `kept_M` (indices) are left and decoder rows and bias are fitted to them again by least squares.

    Fitted on one set of tokens and judged on another, in units of the latter's variance: features that hardly fire cannot be fitted for show.
    """
    # About the means, to which the bias is fitted exactly.
    second, cross = (list(x) for x in zip(*(_centred(m, dictionary, kept_M) for m in (fit, test)), strict=True))
    ridged, diagonal = second.pop(0), np.diag_indices(len(kept_M))
    ridged[diagonal] += 1e-6 * (np.trace(ridged) / max(len(ridged), 1) or 1.0)  # a feature that never fires has no row to fit
    theta_MD = scipy.linalg.solve(ridged, cross[0], assume_a="pos", overwrite_a=True) if len(kept_M) else cross[0]
    z_apart_M = (test.z_sum_F / test.rows - fit.z_sum_F / fit.rows)[kept_M]
    apart_D = test.x.mean_D - fit.x.mean_D - z_apart_M @ theta_MD
    error = test.variance - 2.0 * float((theta_MD * cross[1]).sum()) + float((theta_MD * (second[0] @ theta_MD)).sum())
    return float(1.0 - spread.share(error + test.rows * float(np.square(apart_D).sum()), test.variance))


def _centred(m: Moments, dictionary: Dictionary, kept_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Σ (z − z̄)(z − z̄)ᵀ, Σ (z − z̄)(x − x̄)ᵀ) of the kept activations; x = r + z W_dec + b_dec."""
    mean_F = m.z_sum_F / m.rows
    zz_MF = m.zz_FF[kept_M] - np.outer(m.z_sum_F[kept_M], mean_F)
    zr_MD = m.zr_FD[kept_M] - np.outer(mean_F[kept_M], m.r_sum_D)
    return zz_MF[:, kept_M], zr_MD + zz_MF @ np.asarray(dictionary.w_dec_FD, np.float64)
