"""Which fields of a config the stages read while they run, held against what they declare in `launch.stages`."""

import builtins
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
}


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
    run, inputs, replace, has = Stage.run, Stage.inputs, dataclasses.replace, builtins.hasattr

    def unseen(function: Any) -> Any:
        def call(*args: Any) -> Any:
            outside, now[:] = now[:], []
            try:
                return function(*args)
            finally:
                now[:] = outside

        return call

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

    patches = [(Stage, "run", during(run)), (Stage, "inputs", during(inputs)), (dataclasses, "replace", replaced)]
    patches.append((builtins, "hasattr", unseen(has)))  # asks which kind of study it is, for no value
    for cls in sections:
        patches.append((cls, "__getattribute__", reading(cls)))
        if has(cls, "__post_init__"):
            patches.append((cls, "__post_init__", unseen(cls.__post_init__)))
    with contextlib.ExitStack() as stack:
        for owner, name, value in patches:
            stack.enter_context(_patched(owner, name, value))
        yield reads


@contextlib.contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    was = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if was is None:  # inherited
            delattr(owner, name)
        else:
            setattr(owner, name, was)


def _of_a_dataclass(frame: Any) -> bool:
    """Whether settings are being compared, hashed or copied."""
    name = frame.f_code.co_name
    return name in ("__eq__", "__hash__") or (frame.f_globals.get("__name__") == "dataclasses" and name in ("replace", "_replace"))


def missing(reads: dict[str, set[str]]) -> dict[str, list[str]]:
    """By stage, the fields that it reads and does not declare."""
    found = {name: sorted(f for f in seen if f not in HOW and not declared(STAGES[name], f)) for name, seen in reads.items()}
    return {name: names for name, names in found.items() if names}


def declared(stage: Stage, field: str) -> bool:
    return any(field == section or field.startswith(f"{section}.") for section in stage.sections)
