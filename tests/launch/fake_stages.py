"""Stages of no cost, run through the runner."""

import types

import ml_collections
import pytest
from etils import epath

from launch import runner, signals
from launch.stages import Stage
from storage import files

RAN = []


class FakeStage(Stage):
    def run(self, config, workdir):
        RAN.append(self.name)
        path = workdir / self.name / "out.txt"
        files.write_bytes(path, f"{self.name} of {config.content[self.name]}".encode())
        files.write_json(workdir / self.name / "summary.json", {"ran": self.name})
        return [path, workdir / self.name / "summary.json"]

    def inputs(self, config):
        return {"outside": config.outside} if self.name == "dear" else {}


@pytest.fixture
def run(monkeypatch, tmp_path):
    stages = [
        FakeStage("dear", ("source",), guarded=True),
        FakeStage("middle", ("analysis.a",), after=("dear",)),
        FakeStage("last", ("analysis.b",), after=("dear", "middle")),
    ]
    monkeypatch.setattr(runner, "STAGES", {s.name: s for s in stages})
    signals.reset()

    def go(only=(), overwrite=False, outside="x", content=None, paths=None, **changes):
        config = ml_collections.ConfigDict({"stages": ("dear", "middle", "last"), "source": {"n": 1}, "analysis": {"a": 1, "b": 1}})
        for field, value in changes.items():
            section, name = field.split("_")
            config[section][name] = value
        for field, place in (paths or {}).items():
            section, name = field.split(".")
            config.update({section: {name: place}})
        RAN.clear()
        settings = types.SimpleNamespace(outside=outside, content=content or dict.fromkeys(("dear", "middle", "last"), "same"))
        runner.run_stages(config, settings, epath.Path(tmp_path / "w"), list(only), overwrite)
        return list(RAN)

    go.workdir = tmp_path / "w"
    return go
