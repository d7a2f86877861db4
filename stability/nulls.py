"""What stability figures come out as where nothing is shared."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from stability.similarity import AnyArray, least_cosine, within_range


def haar_rotations(key: jax.Array, draws: int, width: int) -> Float[Array, "N D D"]:
    """Orthogonal matrices from the Haar measure: QR of a Gaussian matrix, signs fixed by R's diagonal (Mezzadri 2007)."""
    q_NDD, r_NDD = jnp.linalg.qr(jax.random.normal(key, (draws, width, width)))
    return q_NDD * jnp.sign(jnp.diagonal(r_NDD, axis1=-2, axis2=-1))[:, None, :]


def rotate_each(key: jax.Array, w_dec_SFD: Float[AnyArray, "S F D"], seeds: tuple[int, ...]) -> Float[Array, "S F D"]:
    """Every dictionary turned by a rotation of its own: geometry inside a seed kept, agreement between seeds destroyed. Rows stay as long as they
    are, unless float32 cannot turn them.

    The rotation of a dictionary is keyed by its seed's number, so that the order of seeds does not matter.
    """
    return jnp.stack([within_range(w_FD) @ q_DD for w_FD, q_DD in zip(w_dec_SFD, _rotations(key, seeds, w_dec_SFD.shape[-1]), strict=True)])


def rotate_each_inside(
    key: jax.Array, w_dec_SFD: Float[AnyArray, "S F D"], seeds: tuple[int, ...], basis_DR: Float[AnyArray, "D R"]
) -> Float[Array, "S F D"]:
    """Every dictionary turned inside one subspace by a rotation of its own: what agrees there alone is destroyed, what lies outside it kept.

    Args:
      basis_DR: orthonormal columns; no subspace of full rank, or this is `rotate_each`.
    """
    basis_DR = jnp.asarray(basis_DR, jnp.float32)
    turned = []
    for w_FD, q_RR in zip(w_dec_SFD, _rotations(key, seeds, basis_DR.shape[1]), strict=True):
        w_FD = within_range(w_FD)
        inside_FR = w_FD @ basis_DR
        turned.append(w_FD + (inside_FR @ q_RR - inside_FR) @ basis_DR.T)
    return jnp.stack(turned)


def rotate_each_whitened(
    key: jax.Array, w_dec_SFD: Float[AnyArray, "S F D"], seeds: tuple[int, ...], covariance_DD: Float[AnyArray, "D D"]
) -> Float[Array, "S F D"]:
    """Every dictionary turned where activations have unit covariance C = 1: rows d ↦ C^½ Q C^−½ d, so that they go on to point where
    activations vary. Saturates where one direction dominates: all rows then point there.

    Directions with less than 1e-6 of the largest variance count as having so much.

    Raises:
      ValueError: a covariance that is not finite, or zero: the activations do not vary.
    """
    covariance_DD = np.atleast_2d(np.asarray(covariance_DD, np.float64))
    if not np.isfinite(covariance_DD).all() or not (np.diagonal(covariance_DD) > 0).any():
        raise ValueError(
            "the covariance of the activations is zero or not finite: rows that do not vary have no metric to turn dictionaries in"
        )
    variance_D, axes_DD = np.linalg.eigh(covariance_DD)
    scale_D = np.sqrt(np.maximum(variance_D, 1e-6 * variance_D[-1]))
    root_DD, inverse_DD = (jnp.asarray((axes_DD * s) @ axes_DD.T, jnp.float32) for s in (scale_D, 1.0 / scale_D))
    rotations = _rotations(key, seeds, w_dec_SFD.shape[-1])
    return jnp.stack([within_range(w_FD) @ inverse_DD @ q_DD @ root_DD for w_FD, q_DD in zip(w_dec_SFD, rotations, strict=True)])


def _rotations(key: jax.Array, seeds: tuple[int, ...], width: int) -> list[Float[Array, "D D"]]:
    return [haar_rotations(jax.random.fold_in(key, seed), 1, width)[0] for seed in seeds]


def chance_of_match(theta: float, rank: int, n_features: int) -> float:
    """P(max cosine ≥ θ) of a uniform direction in R^rank against `n_features` uniform directions.

    1 − (1 − ½·I_{1−θ²}((r−1)/2, ½))^F for signed cosines and θ in [0, 1].

    Raises:
      ValueError: rank below 2, θ outside [0, 1], or no features.
    """
    if rank < 2 or not 0 <= theta <= 1 or n_features < 1:
        raise ValueError(f"chance_of_match needs rank ≥ 2, θ in [0, 1] and F ≥ 1, not {rank=}, {theta=}, {n_features=}")
    one = 0.5 * scipy.special.betainc((rank - 1) / 2, 0.5, 1 - least_cosine(theta) ** 2)
    return float(-jnp.expm1(n_features * jnp.log1p(-one))) if one < 1e-3 else float(1 - (1 - one) ** n_features)
