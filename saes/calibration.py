"""An SAE put together or changed by hand, set right on activations: its L0 by its thresholds, its mean error by its bias."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from saes.dictionary import Dictionary, encode, residual

STEPS = 30  # of a bisection
FARTHEST = 1e6  # that a threshold is moved
Batches = Callable[[], Iterable[np.ndarray]]


def calibrated(dictionary: Dictionary, batches: Batches, l0: float) -> Dictionary:
    """The same with `l0` active features a token on average, as near as its thresholds allow, and no mean error.

    In topk the number of features is K itself. In jumprelu one amount on all thresholds (none falls below 0), in the others one off all encoder
    biases is looked for by bisection; where `l0` is more than half of the features, which would then fire always, all stay as they are. Then the
    decoder's bias takes up the mean of what is left, and the encoder sees what it saw.

    Args:
      batches: makes float32 (B, D) batches anew.

    Raises:
      ValueError: no tokens.
    """
    if dictionary.architecture != "topk" and 2 * l0 <= dictionary.w_dec_FD.shape[0]:
        dictionary = _to_l0(dictionary, batches, l0)
    return _without_mean_error(dictionary, batches)


def mean_l0(dictionary: Dictionary, batches: Iterable[np.ndarray]) -> float:
    """Active features a token.

    Raises:
      ValueError: no tokens.
    """
    on_device = jax.device_put(dictionary)
    sums = np.sum([[float(_firings(on_device, x)), len(x)] for x in batches], axis=0)
    if not np.any(sums):
        raise ValueError("no activations to calibrate on")
    return float(sums[0] / sums[1])


def _to_l0(dictionary: Dictionary, batches: Batches, l0: float) -> Dictionary:
    """More active features the lower the amount, by bisection between amounts that enclose the target."""
    jump = dictionary.architecture == "jumprelu"
    base = np.asarray(dictionary.threshold_F if jump else dictionary.b_enc_F, np.float64)

    def at(amount: float) -> Dictionary:
        if jump:
            return dataclasses.replace(dictionary, threshold_F=np.maximum(base + amount, 0.0).astype(np.float32))
        return dataclasses.replace(dictionary, b_enc_F=(base - amount).astype(np.float32))

    low, high = -1.0, 1.0
    while mean_l0(at(low), batches()) < l0 and low > -FARTHEST:
        low *= 2
    while mean_l0(at(high), batches()) > l0 and high < FARTHEST:
        high *= 2
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_l0(at(middle), batches()) > l0 else (low, middle)
    return at(high)


def _without_mean_error(dictionary: Dictionary, batches: Batches) -> Dictionary:
    on_device, rows, sum_D = jax.device_put(dictionary), 0, np.zeros(dictionary.w_dec_FD.shape[1])
    for x in batches():
        sum_D += np.asarray(_errors(on_device, x))
        rows += len(x)
    if not rows:
        raise ValueError("no activations to calibrate on")
    before_D = np.asarray(dictionary.b_dec_D, np.float64)
    b_dec_D = (before_D + sum_D / rows).astype(np.float32)
    changed: dict[str, Any] = {"b_dec_D": b_dec_D}
    if dictionary.subtract_b_dec:
        # By as much as the bias moved, which is rounded where it is large.
        along_F = ((b_dec_D - before_D) @ np.asarray(dictionary.w_enc_DF, np.float64)).astype(np.float32)
        changed["b_enc_F"] = dictionary.b_enc_F + along_F
        if dictionary.architecture == "gated":
            changed["b_mag_F"] = dictionary.b_mag_F + np.exp(dictionary.r_mag_F) * along_F
    return dataclasses.replace(dictionary, **changed)


@jax.jit
def _firings(dictionary: Dictionary, x_BD: Float[Array, "B D"]) -> Array:
    return jnp.sum(encode(dictionary, x_BD) > 0)


@jax.jit
def _errors(dictionary: Dictionary, x_BD: Float[Array, "B D"]) -> Float[Array, " D"]:
    return residual(dictionary, x_BD, encode(dictionary, x_BD)).sum(0)
