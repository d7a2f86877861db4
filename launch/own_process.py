"""Runs that ask for a process of their own: chance that is in no seed (threads, autotuning) would show between two processes, not between two lanes of one."""

import multiprocessing
import sys

import jax
from etils import epath

from experiments import registry
from experiments.settings import OWN_PROCESS, Settings
from experiments.stage import Task
from launch import failures
from runtime import interrupts
from storage import ownership


def is_wanted(task: Task) -> bool:
    """Whether the task's run asks for it."""
    return bool(task.run and task.settings.runs[task.run].get(OWN_PROCESS))


def run(task: Task) -> None:
    """Does the work of a task in another process. All is there then, so that running it in this one only lists it.

    Raises:
      ValueError: on a TPU, which belongs to one process, or where the process fails.
      Stopped: after a signal.
    """
    if jax.devices()[0].platform == "tpu":
        raise ValueError(
            f"config.runs: a TPU belongs to one process, so {task.run!r} cannot be trained in another: leave it out of config.stages"
        )
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_child, args=(task.settings, task.stage.name, task.run, str(task.root)))
    process.start()
    while process.is_alive():
        process.join(timeout=0.5)
        if interrupts.stop_requested() and process.is_alive():
            process.terminate()
            process.join()
    interrupts.raise_if_stop_requested(f"{task.label}: its checkpoints are kept")
    if process.exitcode:
        raise ValueError(f"config.runs: the process that trains {task.label} ended with status {process.exitcode}; its message is above")


def _child(settings: Settings, stage: str, run_name: str, root: str) -> None:
    from launch.run import outputs_of

    interrupts.install()
    task = registry.task_of(stage, settings, epath.Path(root), run_name)
    try:
        with ownership.recording(task.folder):
            outputs_of(task)
    except interrupts.Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(interrupts.EXIT_STOPPED)
    except Exception as error:
        print(f"{task.label}: {failures.line(error, root)}", file=sys.stderr)
        sys.exit(1)
