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


FAR = 100.0  # times the spread: from there on the mean is taken off rows before float32 rounds what is made of them


def geometric_median(x_BD: Float[Array, "B D"], max_iterations: int = 100, tolerance: float = 1e-5) -> Float[Array, " D"]:
    """The point with the least sum of distances to the rows, by Weiszfeld's iteration from their mean.

    Stops when the point moves by less than `tolerance` relative to its norm; where the mean is more than `FAR` times the spread, relative to the
    spread.
    """
    x = np.asarray(x_BD, np.float64)
    mean_D = x.mean(axis=0)
    spread = float(np.sqrt(np.square(x - mean_D).sum(axis=1).mean()))
    if not 0 < FAR * spread < float(np.linalg.norm(mean_D)):
        return _weiszfeld(jnp.asarray(x_BD), max_iterations, tolerance, 0.0)
    left_D = np.asarray(_weiszfeld(jnp.asarray(x - mean_D, jnp.float32), max_iterations, tolerance, spread), np.float64)
    return jnp.asarray(mean_D + left_D, jnp.float32)


def _weiszfeld(x_BD: Array, max_iterations: int, tolerance: float, size: float) -> Array:
    """Relative to `size`, or the point's norm where that is more."""

    def not_done(carry: tuple[Array, Array, Array]) -> Array:
        median, previous, i = carry
        return (i < max_iterations) & (jnp.linalg.norm(median - previous) > tolerance * jnp.maximum(jnp.linalg.norm(median), size))

    def improve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        median, _, i = carry
        weight_B = 1.0 / jnp.maximum(jnp.linalg.norm(x_BD - median, axis=1), 1e-8)
        return weight_B @ x_BD / weight_B.sum(), median, i + 1

    mean = x_BD.mean(axis=0)
    start = improve((mean, mean, jnp.int32(0)))
    return jax.lax.while_loop(not_done, improve, start)[0]
