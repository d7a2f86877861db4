"""Progress of what is measured, and the look for signals that every long loop owes."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import tqdm

from runtime import interrupts

BATCH = 1024
STOPPED = "measuring: nothing to save, the stage starts again"


def batches(acts_ND: np.ndarray, subject: "str | tqdm.tqdm", size: int = BATCH) -> Iterator[np.ndarray]:
    """Activations in batches, counted as they are taken.

    Args:
      subject: name of a bar of its own, or one that several passes share (`tokens`).
    """
    with tokens(len(acts_ND), subject) if isinstance(subject, str) else contextlib.nullcontext(subject) as bar:
        for start in range(0, len(acts_ND), size):
            interrupts.raise_if_stop_requested(STOPPED)
            yield acts_ND[start : start + size]
            bar.update(min(size, len(acts_ND) - start))


def plain_batches(acts_ND: np.ndarray) -> Iterator[np.ndarray]:
    """The same without a bar, for passes that are made many times."""
    for start in range(0, len(acts_ND), BATCH):
        interrupts.raise_if_stop_requested(STOPPED)
        yield acts_ND[start : start + BATCH]


def tokens(total: int, name: str) -> "tqdm.tqdm":
    """A bar that counts tokens."""
    return tqdm.tqdm(total=total, desc=name, unit="tok", unit_scale=True, mininterval=1.0)


def look_for_signals() -> None:
    """To be called after every pair of SAEs where another bar is shown."""
    interrupts.raise_if_stop_requested(STOPPED)


@contextlib.contextmanager
def comparing(name: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """To be called after every pair of SAEs; shown only where it takes more than two seconds."""
    with tqdm.tqdm(desc=name, total=total, unit="pair", mininterval=1.0, delay=2.0) as bar:

        def step() -> None:
            look_for_signals()
            bar.update()

        yield step
