"""How many SAEs fit: from a device's memory and the arrays that training holds, by count."""

import os
from typing import NamedTuple

import jax

from saes.config import SAEConfig, TrainConfig

SHARE = 0.8  # of a device's memory that training may plan with; the rest is the runtime's, and what fragments
HOST_SHARE = 0.4  # of the host's memory, which others use too
WORK_ARRAYS = 10  # arrays of (batch, features) alive at once in a step: pre-activations, masks, codes, their gradients


class Capacity(NamedTuple):
    """What a device takes.

    Attributes:
      at_once: SAEs trained together on all devices.
      width: SAEs in one vmap.
    """

    at_once: int
    width: int


def bytes_of_batches(train: TrainConfig, width: int) -> int:
    """Those of the dispatch that runs and of the one that is being loaded, float32."""
    return 4 * 2 * train.steps_per_dispatch * train.batch_size * width


def bytes_per_lane(sae: SAEConfig, train: TrainConfig, width: int, own_batches: bool = False) -> tuple[int, int]:
    """(bytes that an SAE holds all the time, bytes more while its step runs), float32.

    All the time: parameters, Adam's two moments, two copies of them (that of a checkpoint being written, and the one that groups in
    turn write their results to before the old is freed), and batches if they are its own.  While
    its step runs: gradients, updates and new parameters, and arrays over batch and features.
    """
    parameters = 2 * sae.n_features * width + 4 * sae.n_features + width
    held = 4 * 3 * (3 * parameters + sae.n_features)
    work = 4 * (3 * parameters + WORK_ARRAYS * train.batch_size * sae.n_features)
    return held + own_batches * bytes_of_batches(train, width), work


def device_memory() -> int:
    """Bytes of the first device that training may use; of a CPU, its host's."""
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(SHARE * stats["bytes_limit"])
    return int(HOST_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def choose(
    count: int,
    sae: SAEConfig,
    train: TrainConfig,
    width: int,
    n_devices: int,
    platform: str,
    memory: int,
    own_batches: bool = False,
    lanes: int = 0,
    seeds_at_once: int = 0,
) -> Capacity:
    """How many of `count` SAEs to train at once, and in what groups; the config's own numbers go first.

    Args:
      width: of the activations.
      memory: bytes of one device.
      own_batches: the SAEs do not share theirs.
      lanes: SAEs in one vmap; 0: 2 on CPU, elsewhere as many as the memory holds.
      seeds_at_once: SAEs trained at a time; 0: as many as the memory holds.

    Raises:
      ValueError: not even two SAEs fit, or the config asks for what cannot be.
    """
    held, work = bytes_per_lane(sae, train, width, own_batches)
    memory -= 0 if own_batches else bytes_of_batches(train, width)
    share = max(2, -(-min(count, seeds_at_once or count) // n_devices))
    width_of = lanes or (2 if platform == "cpu" else min(share, max(2, int(max(memory, 0) / 2 // work))))
    fit = int((memory - width_of * work) // held)
    if seeds_at_once:
        per_device = max(seeds_at_once // n_devices, 1)
        return Capacity(max(per_device // width_of, 1) * width_of * n_devices, width_of)
    if fit < width_of and not lanes:
        width_of = 2
        fit = int((memory - width_of * work) // held)
    if fit < width_of:
        raise ValueError(
            f"{width_of} SAEs of config.sae.n_features={sae.n_features} at config.train.batch_size={train.batch_size} need about "
            f"{width_of * (held + work) / 2**30:.1f} GiB, a device has {max(memory, 0) / 2**30:.1f} for them: take fewer features or a smaller batch"
        )
    return Capacity(fit // width_of * width_of * n_devices, width_of)
