"""Several hosts: what they may do together, and how they find each other."""

import os
from collections.abc import Sequence

import jax

SHARED = "activations"  # the stage that hosts share; the others run on one


def join(stages: Sequence[str], selection: Sequence[str]) -> None:
    """Connects this process with the others. To be called before any device is touched.

    Raises:
      ValueError: other stages than the one that hosts share, or hosts that do not find each other; says what to do.
    """
    if set(selection or stages) != {SHARED}:
        raise ValueError(f"--distributed: hosts share the stage {SHARED!r} alone; add --stages={SHARED}, and run the others on one host")
    values = {name: os.environ.get(name) for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")}
    if any(values.values()) and not all(values.values()):
        missing = ", ".join(name for name, value in values.items() if not value)
        raise ValueError(
            f"--distributed: {missing} not set, beside the others of JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        )
    for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        if (value := values[name]) and not value.isdecimal():
            raise ValueError(f"--distributed: {name}={value!r} is no number")
    try:
        if all(values.values()):
            address, number, place = values.values()
            jax.distributed.initialize(address, int(number or 0), int(place or 0))
        else:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"--distributed: hosts did not find each other: {error}") from error


def leave() -> None:
    """Waits until all hosts are done: the first one serves the others, which end with an error when it goes before them."""
    jax.distributed.shutdown()
