"""What is estimated once from the data before training: the scale and the geometric median."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def norm_scale(x_BD: np.ndarray) -> float:
    """The constant s with E‖s·x‖ = √D over the rows of `x_BD`.

    Raises:
      ValueError: rows that are not finite, or all equal (nothing to learn).
    """
    x = np.asarray(x_BD, np.float64)
    if not np.isfinite(x).all():
        raise ValueError("activations hold NaN or infinity: harvest them again, or look at the array that was handed in")
    if (x == x[0]).all():
        raise ValueError("all activations are equal (zero variance): nothing to train on")
    return float(np.sqrt(x.shape[1]) / np.linalg.norm(x, axis=1).mean())


def geometric_median(x_BD: Float[Array, "B D"], max_iterations: int = 100, tolerance: float = 1e-5) -> Float[Array, " D"]:
    """The point with the least sum of distances to the rows, by Weiszfeld's iteration from their mean.

    Stops when the point moves by less than `tolerance` relative to its norm; where the mean is more than 100 times the spread, relative to the
    spread, and the rows are then taken less their mean, which float32 would otherwise round.
    """
    rough_D = x_BD.mean(axis=0)
    centre_D = rough_D + (x_BD - rough_D).mean(axis=0)
    spread = jnp.sqrt(jnp.square(x_BD - centre_D).sum(axis=1).mean())
    far = (jnp.linalg.norm(centre_D) > 100.0 * spread) & (spread > 0)
    centre_D = jnp.where(far, centre_D, 0.0)
    x_BD = x_BD - centre_D

    def not_done(carry: tuple[Array, Array, Array]) -> Array:
        median, previous, i = carry
        size = jnp.where(far, spread, jnp.linalg.norm(median))
        return (i < max_iterations) & (jnp.linalg.norm(median - previous) > tolerance * size)

    def improve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        median, _, i = carry
        weight_B = 1.0 / jnp.maximum(jnp.linalg.norm(x_BD - median, axis=1), 1e-8)
        return weight_B @ x_BD / weight_B.sum(), median, i + 1

    mean = x_BD.mean(axis=0)
    start = improve((mean, mean, jnp.int32(0)))
    return jax.lax.while_loop(not_done, improve, start)[0] + centre_D
