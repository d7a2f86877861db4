"""Stages of no cost, run through the runner."""

import dataclasses
import types

import ml_collections
import pytest
from etils import epath

from experiments import registry
from experiments import settings as settings_of
from experiments.fields import config, field
from experiments.registry import House
from experiments.stage import Stage
from launch import run as runner
from runtime import interrupts

NAMES = ("dear", "middle", "last")
RAN = []


@config("source")
class Source:
    n: int = field(default=1, doc="what the dear stage is made from")
    activations: str = field(default="", doc="rows", path=True)
    text: str = field(default="", doc="text", path=True)


@config("lm")
class Model:
    path: str = field(default="", doc="a model", path=True)


@config("analysis")
class First:
    a: int = field(default=1, doc="of the stage in the middle")
    lanes: int = field(default=1, doc="how it is computed", how=True)


@config("analysis")
class Second:
    b: int = field(default=1, doc="of the last stage")


OUTSIDE, CONTENT = {"is": "x"}, {}


def work(task, out):
    """What every stage does; tests put something else in its place."""
    RAN.append(task.label)
    out.bytes("out.txt", f"{task.label} of {CONTENT.get(task.label, 'same')}".encode())
    out.summary({"ran": task.label})


def stage(name, **declared):
    """One that looks up what it does when it is run."""
    module = types.SimpleNamespace(run=lambda task, out: work(task, out))
    if name == "dear":
        module.inputs = lambda task: {"outside": OUTSIDE["is"]}
    return Stage(**declared, name=name, module=module)


STAGES = (
    stage("dear", config=Source, optional=(Model,), guarded=True),
    stage("middle", config=First, needs=("dear",)),
    stage("last", config=Second, needs=("dear", "middle")),
)


def house_of(*stages):
    """What the registry finds; in the order given."""
    return House({s.name: s for s in stages}, {}, tuple(dict.fromkeys(cls for s in stages for cls in s.declared)))


def dear(**changes):
    """All stages, with something else declared by the dear one."""
    return house_of(dataclasses.replace(STAGES[0], **changes), *STAGES[1:])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs the stages; returns the labels of those that ran."""
    monkeypatch.setattr(registry, "house", lambda: house_of(*STAGES))
    interrupts.reset()

    def go(only=(), start="", overwrite=False, outside="x", content=None, paths=None, stages=NAMES, runs=None, **changes):
        classes = registry.house().classes
        c = settings_of.defaults(*classes)
        c.stages, c.runs = stages, ml_collections.ConfigDict(runs or {})
        for name, value in changes.items():
            section, name = name.split("_")
            c[section][name] = value
        for name, place in (paths or {}).items():
            section, name = name.split(".")
            c[section][name] = place
        RAN.clear()
        CONTENT.clear()
        CONTENT.update(content or {})
        OUTSIDE["is"] = outside
        runner.run(c, settings_of.validated(c, classes), epath.Path(tmp_path / "w"), list(only), start, overwrite)
        return list(RAN)

    go.workdir = tmp_path / "w"
    return go
