"""The training loop that language model and SAEs share: dispatch, then look at what the dispatch before gave.

Knows nothing of losses or seeds.  A dispatch is a jitted scan over `steps_per_dispatch` steps; while it runs, a thread
prepares the next batches and the host writes the metrics of the last.
"""

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import tqdm

from runtime import interrupts
from runtime.checkpoints import Checkpoints
from runtime.metrics import MetricsWriter, WallTimes


@dataclasses.dataclass(frozen=True)
class LoopPlan:
    """When things happen, in steps; all are multiples of `steps_per_dispatch`."""

    name: str
    total_steps: int
    steps_per_dispatch: int
    checkpoint_every: int
    tokens_per_step: int

    def __post_init__(self) -> None:
        for field in ("total_steps", "checkpoint_every"):
            if getattr(self, field) % self.steps_per_dispatch:
                raise ValueError(f"{field}={getattr(self, field)} is no multiple of {self.steps_per_dispatch=}")


def run_loop(
    plan: LoopPlan,
    state: Any,
    step: int,
    *,
    load: Callable[[int, int], Any],
    dispatch: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]],
    checkpoints: Checkpoints,
    metrics: MetricsWriter,
    walls: WallTimes,
    on_state: Callable[[int, Any], dict[str, Any]],
    headline: Callable[[dict[str, Any]], str],
) -> Any:
    """Runs from `step` to the end and returns the last state; saves and raises `interrupts.Stopped` after a signal.

    Args:
      state: pytree on the devices; donated to `dispatch`.
      load: (first step, number of steps) → batches on the devices; called one dispatch ahead, in a thread.
      dispatch: (state, batches) → (state, metrics of its last step).
      on_state: called after every dispatch with (step, state); what it returns joins that step's metrics.
      headline: one short line from a step's metrics, for the progress bar.
    """
    n = plan.steps_per_dispatch
    bar = tqdm.tqdm(
        total=plan.total_steps * plan.tokens_per_step,
        initial=step * plan.tokens_per_step,
        desc=plan.name,
        unit="tok",
        unit_scale=True,
        mininterval=1.0,
        dynamic_ncols=True,
    )
    pending: tuple[int, dict[str, Any]] | None = None

    def flush() -> None:
        if pending is not None:
            values = jax.device_get(pending[1])
            metrics.write(pending[0], **values)
            bar.set_postfix_str(headline(values), refresh=False)

    started = time.perf_counter()
    first = step
    with bar, concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        ahead = pool.submit(load, step, n) if step < plan.total_steps else None
        while step < plan.total_steps:
            assert ahead is not None
            batches = ahead.result()
            if step + n < plan.total_steps:
                ahead = pool.submit(load, step + n, n)
            with jax.transfer_guard("disallow"):
                state, values = dispatch(state, batches)
            flush()
            step += n
            pending = (step, {**values, **on_state(step, state)})
            bar.update(n * plan.tokens_per_step)
            checkpoints.poll()
            stopping = interrupts.stop_requested()
            if stopping or step % plan.checkpoint_every == 0 or step == plan.total_steps:
                flush()
                pending = None
                checkpoints.save(step, state)
            if stopping and step < plan.total_steps:
                checkpoints.wait()
                interrupts.raise_if_stop_requested(f"{plan.name} saved at step {step} of {plan.total_steps}")
        checkpoints.wait()
    if step > first:
        seconds = time.perf_counter() - started
        walls.write(what=plan.name, steps=step - first, seconds=seconds, tokens_per_second=(step - first) * plan.tokens_per_step / seconds)
    return state
