"""Several hosts, as processes of one machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import hosts

ROOT = Path(__file__).parents[2]


def harvest(workdir, *flags, **env):
    command = [sys.executable, "-m", "launch.main", "--config=configs/quickstart.py:tiny", "--config.source.shard_contexts=32"]
    command += ["--stages=activations", f"--workdir={workdir}", *flags]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | env
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(workdir):
    """All but the record and the lists of who wrote what: each host has one."""
    folder = workdir / "activations"
    own = {"stage.json", "written.txt", "written-1.txt"}
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in own}


@pytest.mark.slow
def test_two_hosts_harvest_what_one_does(tmp_path):
    alone = harvest(tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    place = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    both = [harvest(tmp_path / "two", "--distributed", JAX_PROCESS_ID=str(i), **place) for i in range(2)]
    for process in (alone, *both):
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert len([name for name in one if name.startswith("train/shard")]) > 3 and one == two
    names = [line[9:] for i in ("", "-1") for line in (tmp_path / "two" / "activations" / f"written{i}.txt").read_text().splitlines()]
    assert {name for name in one if name.endswith(".safetensors")} <= set(names)


def test_what_hosts_do_not_share(monkeypatch):
    with pytest.raises(ValueError, match="--distributed: hosts share the stage 'activations' alone"):
        hosts.join(("activations", "train"), [])
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID not set"):
        hosts.join(("activations", "train"), ["activations"])
    monkeypatch.delenv("JAX_NUM_PROCESSES")
    with pytest.raises(ValueError, match="hosts did not find each other"):
        hosts.join(("activations",), [])


def test_variables_that_are_no_numbers_are_named(monkeypatch):
    for name, value in (("JAX_COORDINATOR_ADDRESS", "here:1"), ("JAX_NUM_PROCESSES", "two"), ("JAX_PROCESS_ID", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="--distributed: JAX_NUM_PROCESSES='two' is no number"):
        hosts.join(("activations",), ())
