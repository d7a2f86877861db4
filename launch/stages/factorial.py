"""Stage: trains every arm of the seed factorial on one store of activations.

<arm>/train/                 as what stage `train` leaves
nothing/{first,second}/train/  the same training in two processes
"""

import multiprocessing
import sys
from typing import Any

import jax
from etils import epath

from launch import arms, signals, sources
from launch.sections import check
from launch.stages import train
from storage import ownership

STOPPED = "factorial: finished arms are kept, and checkpoints of this one"


def inputs(config: Any) -> dict[str, str]:
    """Nothing from outside; refuses a study that says itself what differs, or has too few SAEs. (Its arms are studies that do.)"""
    check(len(config.seed_list) >= 4, "seeds", config.seeds, "a factorial needs at least 4: two for each half of the documents")
    for field, value, own in (
        ("init_seed", config.init_seed, -1), ("data_seed", config.data_seed, 0), ("train.halves", config.train.halves, False),
    ):  # fmt: skip
        check(value == own, field, value, f"in a factorial the arms say what differs: leave {own}")
    check(not config.sweep, "sweep", config.sweep, "a factorial has arms in its place")
    return {}


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    folder = workdir / "factorial"
    outputs: list[epath.Path] = []
    for arm in config.arms:
        signals.raise_if_stop_requested(STOPPED)
        if arm == arms.NOTHING:
            for name in ("first", "second"):
                outputs += _in_another_process(config, workdir, folder / arm / name / "train", f"{arm}, {name} process")
        else:
            outputs += _train(config, workdir, arm, folder / arm / "train", arm)
    return outputs


def _train(config: Any, workdir: epath.Path, arm: str, folder: epath.Path, what: str) -> list[epath.Path]:
    of_arm = arms.of_arm(config, arm)
    return train.train_everyone(of_arm, folder, sources.source(of_arm, workdir), what)


def _in_another_process(config: Any, workdir: epath.Path, folder: epath.Path, what: str) -> list[epath.Path]:
    """Chance that is in no seed (threads, autotuning) would show between two processes, and not between two lanes of one."""
    if jax.devices()[0].platform == "tpu":
        raise ValueError(f"config.arms: a TPU belongs to one process, so {arms.NOTHING!r} cannot be trained in two: leave it out")
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_child, args=(config, str(workdir), str(folder), what))
    process.start()
    while process.is_alive():
        process.join(timeout=0.5)
        if signals.stop_requested() and process.is_alive():
            process.terminate()
            process.join()
    signals.raise_if_stop_requested(STOPPED)
    if process.exitcode:
        raise ValueError(f"config.arms: the process that trains {what} ended with status {process.exitcode}; its message is above")
    # It wrote what `train` would have: all is there, so this only lists it.
    return _train(config, workdir, arms.NOTHING, folder, what)


def _child(config: Any, workdir: str, folder: str, what: str) -> None:
    signals.install()
    try:
        with ownership.recording(epath.Path(workdir) / "factorial"):
            _train(config, epath.Path(workdir), arms.NOTHING, epath.Path(folder), what)
    except signals.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(signals.EXIT_STOPPED)
    except (ValueError, OSError) as error:
        print(f"{what}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
