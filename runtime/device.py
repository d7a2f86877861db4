"""The device at hand: how fast it multiplies and moves, measured in a moment."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

CPU_WORK_BYTES = 128 * 2**20  # of a CPU's batch: more does not run faster, and caches are small
PASSES = 8  # over an array in memory, to measure how fast
SHARE = 0.5  # of an accelerator's memory behind the parameters that a forward pass may plan with


class Speed(NamedTuple):
    """Of one device, or of all that share the work.

    Attributes:
      language_model: multiplications and additions a second in large matrix products of the language model's type, as it is harvested.
      training: of float32 at the default precision, in which SAEs are trained.
      measuring: of float32 at the highest precision, in which they are compared.
      bytes: read and written a second by element-wise work on large arrays.
    """

    language_model: float
    training: float
    measuring: float
    bytes: float


def measure(dtype: Any = jnp.float32) -> Speed:
    """Of the first device, with a language model of this type; takes a few seconds."""
    length = 2**24 if jax.devices()[0].platform == "cpu" else 2**28
    again = jax.jit(lambda x: jax.lax.fori_loop(0, PASSES, lambda _, x: x * 0.999, x))  # in place: fresh memory would cost page faults
    moved = _fastest(again, jnp.ones(length, jnp.float32))
    return Speed(matmul_rate(dtype), matmul_rate(precision="default"), matmul_rate(), 8 * length * PASSES / moved)


@functools.lru_cache
def matmul_rate(dtype: Any = jnp.float32, precision: str = "highest") -> float:
    """Multiplications and additions a second in a large matrix product on the first device."""
    n = 1536 if jax.devices()[0].platform == "cpu" else 8192
    return 2 * n**3 / _fastest(jax.jit(lambda a: jnp.matmul(a, a, precision=precision)), jnp.ones((n, n), dtype))


def work_memory(platform: str, memory: int, parameter_bytes: int) -> int:
    """Bytes that the arrays of a forward pass may take, on a device of so much memory, beside the parameters of a model."""
    return CPU_WORK_BYTES if platform == "cpu" else int(SHARE * max(memory - parameter_bytes, 0))


def _fastest(run: Callable[[jax.Array], jax.Array], x: jax.Array, times: int = 5) -> float:
    jax.block_until_ready(run(x))
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        jax.block_until_ready(run(x))
        seconds.append(time.perf_counter() - started)
    return min(seconds)
