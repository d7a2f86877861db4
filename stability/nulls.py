"""What stability figures come out as where nothing is shared."""

import jax
import jax.numpy as jnp
import scipy.special
from jaxtyping import Array, Float

from stability.similarity import AnyArray


def haar_rotations(key: jax.Array, draws: int, width: int) -> Float[Array, "N D D"]:
    """Orthogonal matrices from the Haar measure: QR of a Gaussian matrix, signs fixed by R's diagonal (Mezzadri 2007)."""
    q_NDD, r_NDD = jnp.linalg.qr(jax.random.normal(key, (draws, width, width)))
    return q_NDD * jnp.sign(jnp.diagonal(r_NDD, axis1=-2, axis2=-1))[:, None, :]


def rotate_each(key: jax.Array, w_dec_SFD: Float[AnyArray, "S F D"], seeds: tuple[int, ...]) -> Float[Array, "S F D"]:
    """Every dictionary turned by a rotation of its own: geometry inside a seed kept, agreement between seeds destroyed.

    The rotation of a dictionary is keyed by its seed's number, so that the order of seeds does not matter.
    """
    keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(jnp.asarray(seeds, jnp.uint32))
    turn = jax.vmap(lambda k, w_FD: w_FD @ haar_rotations(k, 1, w_FD.shape[-1])[0])
    return turn(keys, jnp.asarray(w_dec_SFD))


def chance_of_match(theta: float, rank: int, n_features: int) -> float:
    """P(max cosine ≥ θ) of a uniform direction in R^rank against `n_features` uniform directions.

    1 − (1 − ½·I_{1−θ²}((r−1)/2, ½))^F for signed cosines and θ in [0, 1].

    Raises:
      ValueError: rank below 2, θ outside [0, 1], or no features.
    """
    if rank < 2 or not 0 <= theta <= 1 or n_features < 1:
        raise ValueError(f"chance_of_match needs rank ≥ 2, θ in [0, 1] and F ≥ 1, not {rank=}, {theta=}, {n_features=}")
    one = 0.5 * scipy.special.betainc((rank - 1) / 2, 0.5, 1 - theta**2)
    return float(-jnp.expm1(n_features * jnp.log1p(-one))) if one < 1e-3 else float(1 - (1 - one) ** n_features)
