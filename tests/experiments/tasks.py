"""Stages alone, for tests: a task of a config, and its results."""

import pathlib

import ml_collections
from etils import epath

from experiments import registry
from experiments.stage import Task
from launch.run import outputs_of


def task(stage: str, config: ml_collections.ConfigDict, workdir: str | pathlib.Path = "nowhere", run: str = "") -> Task:
    """A stage of a config, in the study itself or in a run. The config is validated first."""
    return registry.task_of(stage, registry.validated(config), epath.Path(workdir), run)


def run_stage(stage: str, config: ml_collections.ConfigDict, workdir: str | pathlib.Path, run: str = "") -> list[epath.Path]:
    """Runs a stage without a record; returns the files that are its results."""
    return outputs_of(task(stage, config, workdir, run))
