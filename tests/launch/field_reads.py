"""Which fields of a config the stages read while they run, held against what they declare in `launch.stages`."""

import contextlib
import dataclasses
import sys
import typing
from collections.abc import Iterator
from typing import Any

from launch import config as launch_config
from launch.stages import STAGES, Stage

HOW = {
    "stages": "the stages of a study that a stage reads from are in its inputs, each by the digest of its results",
    "sweep": "'train', which stands before every other stage that reads it, refuses another; a factorial refuses any",
}
OF_ONE_STAGE = {
    ("finetune", "pool.span_rank"): "it decides which pools 'pool' writes, and those are an input by their digest",
    ("factorial", "init_seed"): "the stage refuses all values but one",
    ("factorial", "data_seed"): "the stage refuses all values but one",
}
_DEPTH = 5  # frames below a `__post_init__`, which asks helpers and properties


def _kinds() -> tuple[type, ...]:
    return typing.get_args(launch_config.Settings)


def _sections() -> dict[type, str]:
    """The section that each dataclass of settings is, '' for a whole study; a cell's sections go by the names of the study's."""
    found: dict[type, str] = {launch_config.GridCell: "cells"}
    for kind in _kinds():
        found[kind] = ""
        for name, hint in typing.get_type_hints(kind).items():
            if isinstance(hint, type) and dataclasses.is_dataclass(hint):
                assert found.setdefault(hint, name) == name, f"{hint.__name__} is both {found[hint]} and {name}"
    return found


@contextlib.contextmanager
def recording() -> Iterator[dict[str, set[str]]]:
    """Fields by stage, '<section>.<field>', while stages run and look at their inputs.

    A field that a stage has put there itself (`dataclasses.replace`) is not read from the config: what its value was made from is.
    """
    sections, reads, now = _sections(), {}, []
    own: dict[int, tuple[Any, frozenset[str]]] = {}  # by identity: the instance, so that it stays, and the fields that a stage put there
    fields = {cls: {f.name for f in dataclasses.fields(cls)} for cls in sections}
    before = {cls: cls.__dict__.get("__getattribute__") for cls in sections}
    run, inputs, replace = Stage.run, Stage.inputs, dataclasses.replace

    def reading(cls: type) -> Any:
        prefix = sections[cls]

        def getattribute(self: Any, name: str) -> Any:
            value = object.__getattribute__(self, name)
            if now and type(self) is cls and (name in fields[cls] or name == "__dict__") and not _of_a_dataclass(sys._getframe(1)):
                mine = own.get(id(self), (None, frozenset()))[1]
                for field in fields[cls] if name == "__dict__" else {name}:
                    if field not in mine and not dataclasses.is_dataclass(object.__getattribute__(self, field)):
                        reads[now[-1]].add(prefix if prefix == "cells" else f"{prefix}.{field}".lstrip("."))
            return value

        return getattribute

    def replaced(obj: Any, /, **changes: Any) -> Any:
        new = replace(obj, **changes)
        if now and type(obj) in sections:
            own[id(new)] = (new, own.get(id(obj), (None, frozenset()))[1] | changes.keys())
        return new

    def during(method: Any) -> Any:
        def call(stage: Stage, *args: Any) -> Any:
            reads.setdefault(stage.name, set())
            now.append(stage.name)
            try:
                return method(stage, *args)
            finally:
                now.pop()

        return call

    for cls in sections:
        cls.__getattribute__ = reading(cls)
    Stage.run, Stage.inputs, dataclasses.replace = during(run), during(inputs), replaced
    try:
        yield reads
    finally:
        for cls, was in before.items():
            if was is None:
                del cls.__getattribute__
            else:
                cls.__getattribute__ = was
        Stage.run, Stage.inputs, dataclasses.replace = run, inputs, replace


def _of_a_dataclass(frame: Any) -> bool:
    """Whether a read is one of checking, comparing, hashing or copying settings."""
    code = frame.f_code
    if frame.f_globals.get("__name__") == "dataclasses" and code.co_name in ("replace", "_replace"):
        return True
    if code.co_name in ("__eq__", "__hash__"):
        return True
    for _ in range(_DEPTH):
        if frame is None:
            return False
        if frame.f_code.co_name == "__post_init__":
            return True
        frame = frame.f_back
    return False


def missing(reads: dict[str, set[str]]) -> dict[str, list[str]]:
    """By stage, the fields that it reads and does not declare."""
    found = {
        name: sorted(f for f in seen if f not in HOW and (name, f) not in OF_ONE_STAGE and not declared(STAGES[name], f))
        for name, seen in reads.items()
    }
    return {name: names for name, names in found.items() if names}


def declared(stage: Stage, field: str) -> bool:
    """By the stage itself, or where it is dear by a dear one that it reads from: there the runner refuses the change."""
    sections = stage.sections + tuple(s for name in stage.after if stage.guarded and STAGES[name].guarded for s in STAGES[name].sections)
    return any(field == section or field.startswith(f"{section}.") for section in sections)
