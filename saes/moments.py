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

from saes.dictionary import Dictionary, decode, encode


class Moments(NamedTuple):
    """Sums over tokens x (D) of activations z (F) and the residual r = x − x̂ (D); NumPy, float64.

    Attributes:
      rows: tokens.
      x_square: Σ ‖x‖².
      x_sum_D: Σ x.
      error: Σ ‖r‖².
      firings_F: tokens on which each feature fires.
      z_sum_F: Σ z.
      zz_FF: Σ z zᵀ.
      zr_FD: Σ z rᵀ.
    """

    rows: float
    x_square: float
    x_sum_D: np.ndarray
    error: float
    firings_F: np.ndarray
    z_sum_F: np.ndarray
    zz_FF: np.ndarray
    zr_FD: np.ndarray

    @property
    def variance(self) -> float:
        """Σ ‖x − x̄‖², x̄ the mean of the tokens."""
        return self.x_square - float(np.square(self.x_sum_D).sum()) / self.rows

    def error_of_constant(self, b_D: np.ndarray) -> float:
        """Σ ‖x − b‖²: what reconstructions by a bias alone leave."""
        return self.x_square - 2.0 * float(b_D @ self.x_sum_D) + self.rows * float(np.square(b_D).sum())


def measure(dictionary: Dictionary, batches: Iterable[np.ndarray]) -> Moments:
    """Of one SAE.

    Args:
      batches: float32 (B, D); the last may be shorter. Sums within a batch are float32, over batches float64.

    Raises:
      ValueError: no tokens.
    """
    on_device, rows, x_square, most = jax.device_put(dictionary), 0.0, 0.0, 0
    sums: dict[str, np.ndarray] = {}
    for x in batches:
        most = max(most, len(x))
        padded = np.pad(x, ((0, most - len(x)), (0, 0)))
        for name, part in jax.device_get(_of_batch(on_device, padded, np.int32(len(x)))).items():
            if name in sums:
                sums[name] += part
            else:
                sums[name] = part.astype(np.float64)
        rows, x_square = rows + len(x), x_square + float(np.square(x, dtype=np.float64).sum())
    if not rows:
        raise ValueError("no activations to take moments of")
    error = float(sums.pop("error"))
    return Moments(rows=rows, x_square=x_square, error=error, **sums)


def added(one: Moments, other: Moments) -> Moments:
    """Of both sets of tokens together."""
    pairs = {name: getattr(one, name) + getattr(other, name) for name in Moments._fields}
    return Moments(**pairs)


@jax.jit
def _of_batch(dictionary: Dictionary, x_BD: Float[Array, "B D"], length: Array) -> dict[str, Array]:
    """Sums over the first `length` rows."""
    real_B1 = (jnp.arange(x_BD.shape[0]) < length)[:, None]
    z_BF = jnp.where(real_B1, encode(dictionary, x_BD), 0.0)
    r_BD = jnp.where(real_B1, x_BD - decode(dictionary, z_BF), 0.0)
    return {
        "x_sum_D": x_BD.sum(0),
        "error": jnp.square(r_BD).sum(),
        "firings_F": (z_BF > 0).sum(0),
        "z_sum_F": z_BF.sum(0),
        "zz_FF": z_BF.T @ z_BF,
        "zr_FD": z_BF.T @ r_BD,
    }


def refitted_explained_variance(fit: Moments, test: Moments, dictionary: Dictionary, kept_M: np.ndarray) -> float:
    """Explained variance when only the features `kept_M` (indices) are left and decoder rows and bias are fitted to them again by least squares.

    Fitted on one set of tokens and judged on another, in units of the latter's variance: features that hardly fire cannot be fitted for show.
    """
    # Of the activations with a 1 behind them: the bias is one more row.
    second, cross = (list(x) for x in zip(*(_with_bias(m, dictionary, kept_M) for m in (fit, test)), strict=True))
    ridged, diagonal = second.pop(0), np.diag_indices(len(cross[0]))
    ridged[diagonal] += 1e-6 * np.trace(ridged) / len(ridged)  # a feature that never fires has no row to fit
    theta_ND = scipy.linalg.solve(ridged, cross[0], assume_a="pos", overwrite_a=True, overwrite_b=False)
    error = test.x_square - 2.0 * float((theta_ND * cross[1]).sum()) + float((theta_ND * (second[0] @ theta_ND)).sum())
    return 1.0 - error / test.variance


def _with_bias(m: Moments, dictionary: Dictionary, kept_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Σ z₁ z₁ᵀ, Σ z₁ xᵀ), z₁ the kept activations and a 1; x = r + z W_dec + b_dec."""
    w_FD, b_D = np.asarray(dictionary.w_dec_FD, np.float64), np.asarray(dictionary.b_dec_D, np.float64)
    zx_MD = m.zr_FD[kept_M] + m.zz_FF[kept_M] @ w_FD + m.z_sum_F[kept_M, None] * b_D
    sum_M = m.z_sum_F[kept_M]
    second = np.block([[m.zz_FF[np.ix_(kept_M, kept_M)], sum_M[:, None]], [sum_M[None], np.array([[m.rows]])]])
    return second, np.concatenate([zx_MD, m.x_sum_D[None]])
