"""A sweep's cells are measured by the commands that the run prints."""

import re
import shlex

import pytest
from etils import epath

from configs import compare, synthetic
from experiments import registry
from launch import run


@pytest.fixture(scope="module")
def swept(tmp_path_factory, capfd_of_module):
    """A workdir with a sweep of two learning rates and two K on a world, and what the run printed."""
    workdir = epath.Path(tmp_path_factory.mktemp("sweep")) / "swept"
    c = synthetic.get_config("tiny")
    c.stages = ("train",)
    c.train.tokens, c.sweep.lr, c.sweep.k = 4_000, (1e-3, 3e-3), (2, 3)
    run.run(c, registry.validated(c), workdir, [], "", False)
    return workdir, capfd_of_module()


@pytest.fixture(scope="module")
def capfd_of_module(request):
    """What was printed so far, for a fixture of a module."""
    manager = request.config.pluginmanager.getplugin("capturemanager")
    return lambda: "".join(manager.read_global_capture())


def compared(saes, workdir):
    c = compare.get_config("tiny")
    c.saes = saes
    run.run(c, registry.validated(c), workdir, ["collect", "stability"], "", False)
    return workdir / "stability" / "features.parquet"


def test_cells_have_no_commas_in_their_names(swept):
    workdir, _ = swept
    names = sorted(p.name for p in (workdir / "train" / "cells").iterdir())
    assert names == ["lr=0.001-k=2", "lr=0.001-k=3", "lr=0.003-k=2", "lr=0.003-k=3"]


def test_the_printed_command_measures_a_cell(swept, tmp_path):
    workdir, printed = swept
    commands = re.findall(r"^  python -m launch\.main (.*)$", printed, re.MULTILINE)
    assert len(commands) == 4
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in shlex.split(commands[1]))
    assert flags["config"] == "configs/compare.py" and flags["workdir"] == f"{workdir}-lr=0.001-k=3"
    assert compared(flags["config.saes"], epath.Path(tmp_path / "one")).exists()


def test_a_folder_of_cells_is_compared_as_a_whole(swept, tmp_path):
    workdir, _ = swept
    assert compared(str(workdir / "train" / "cells"), epath.Path(tmp_path / "all")).exists()
    assert (tmp_path / "all" / "collect" / "dictionaries.json").exists()


def test_a_sweep_that_would_also_measure_is_refused_and_says_how(swept):
    c = synthetic.get_config("tiny")
    c.sweep.k = (2, 3)
    with pytest.raises(ValueError, match=r"config\.stages=.*: a sweep only trains; measure its cells with configs/compare\.py"):
        registry.validated(c)
