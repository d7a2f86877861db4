"""SAEs that begin at given parameters instead of random ones, padded to the size of the others in their program."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from saes.assembly import NEVER
from saes.lanes import LanePlan
from saes.step import TrainState

_ENCODER_BIASES = ("b_enc_F", "b_gate_F")  # where padding is silenced


class Given(NamedTuple):
    """Where one SAE begins.

    Attributes:
      size: features that it has; those behind never fire and never count as dead.
      parameters: by the names of the variant's parameters; {}: as initialised.
      decoder_rate: factor on the learning rate of decoder rows, of all or (size,) of each.
    """

    size: int
    parameters: Mapping[str, np.ndarray]
    decoder_rate: float | np.ndarray = 1.0


def place(state: TrainState, plan: LanePlan, given: Sequence[Given]) -> TrainState:
    """The first state with every SAE where it begins.

    Args:
      state: as initialised, a leading axis over the lanes.
      given: of every SAE of the round.
    """
    params = {name: np.array(jax.device_get(leaf)) for name, leaf in vars(state.params).items()}
    idle = np.array(jax.device_get(state.idle_steps_F))
    rates = [g.decoder_rate for g in given]
    each = any(isinstance(rate, np.ndarray) for rate in rates)
    rate_S = np.ones((len(plan.members), idle.shape[1], 1) if each else len(plan.members), np.float32)
    for lane, m in enumerate(plan.members):
        size, parameters, rate = given[m]
        for name, values in parameters.items():
            params[name][_own_index(name, lane, size)] = np.asarray(values)
        for name in _ENCODER_BIASES:
            if name in params:
                params[name][lane, size:] = NEVER
        idle[lane, size:] = -(2**30)
        if each:
            rate_S[lane, :size, 0] = rate
        else:
            rate_S[lane] = rate
    put = lambda new, old: jax.device_put(jnp.asarray(new, old.dtype), old.sharding)
    on_device = state.params.replace(**{name: put(values, getattr(state.params, name)) for name, values in params.items()})
    knobs = state.knobs.replace(decoder_rate=put(rate_S, state.knobs.decoder_rate))
    return state.replace(params=on_device, knobs=knobs, idle_steps_F=put(idle, state.idle_steps_F))


def _own_index(name: str, lane: int, size: int) -> tuple[int | slice, ...]:
    """Where a parameter's own features lie."""
    if name.endswith(("_FD", "_F")):
        return lane, slice(size)
    return (lane, slice(None), slice(size)) if name.endswith("_DF") else (lane,)
