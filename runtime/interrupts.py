"""A request to stop, by signal: long loops look at it at every dispatch, save, and raise `Stopped`."""

import signal
import sys
from typing import Any

EXIT_STOPPED = 75  # EX_TEMPFAIL: a scheduler may start the same command again

_requested: list[str] = []


class Stopped(Exception):
    """Work was saved after a signal; run the same command again to go on."""


def install() -> None:
    """From now on SIGTERM and SIGINT ask for a stop; a second one ends the process at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)


def stop_requested() -> bool:
    return bool(_requested)


def raise_if_stop_requested(what: str) -> None:
    """Raises `Stopped` after a signal; for phases that have nothing to save, or whose work so far is on disk."""
    if _requested:
        raise Stopped(f"{_requested[0]}: {what}")


def reset() -> None:
    """Forgets a request (tests)."""
    _requested.clear()


def _on_signal(number: int, frame: Any) -> None:
    del frame
    name = signal.Signals(number).name
    if _requested:
        raise KeyboardInterrupt(name)
    _requested.append(name)
    print(f"\n{name}: saving, then stopping (once more to stop at once)", file=sys.stderr, flush=True)
