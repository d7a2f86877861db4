"""A config as typed, frozen sections. Nobody below `launch` sees a ConfigDict, and a stage sees the sections alone that it declares."""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import ml_collections

from experiments.fields import Field, check, fields_of, section_of

S = TypeVar("S")
OWN_PROCESS, NEW_SEEDS = (
    "own_process",
    "new_seeds",
)  # of a run: trained in a process of its own; on so many seeds that the study does not have
STAGES, RUNS = "stages", "runs"  # fields at the top of every config that are of no section


class Settings:
    """The sections of a config by their classes, which stages and runs it asks for, and what the runs change.

    A run is a stage done once more with other settings, as the null SAEs that are trained on Gaussian activations. Its changes are nested as the config is:
    {"seeds": (4,), "train": {"data": "gaussian"}}.

    Attributes:
      stages: names of stages and of runs, in no order.
      runs: changes by name.
    """

    def __init__(self, sections: Iterable[object], stages: tuple[str, ...], runs: Mapping[str, Mapping[str, Any]]):
        self._by_class = {type(section): section for section in sections}
        self.stages, self.runs = stages, runs

    def __getitem__(self, cls: type[S]) -> S:
        section = self._by_class.get(cls)
        if not isinstance(section, cls):
            raise ValueError(
                f"config.{section_of(cls) or next(fields_of(cls)).name} is missing: {cls.__name__} is wanted by a stage of this config"
            )
        return section

    def get(self, cls: type[S]) -> S | None:
        """The section, or None in a config without it."""
        section = self._by_class.get(cls)
        return section if isinstance(section, cls) else None

    def __contains__(self, cls: type) -> bool:
        return cls in self._by_class

    def __iter__(self) -> Iterator[object]:
        return iter(self._by_class.values())

    def replaced(self, *sections: object) -> "Settings":
        """The same with these sections in place of those of their classes, or beside the others."""
        return Settings((self._by_class | {type(s): s for s in sections}).values(), self.stages, self.runs)

    def only(self, *stages: str) -> "Settings":
        """The same for other stages, without runs."""
        return Settings(self._by_class.values(), stages, {})

    def with_stages(self, *stages: str) -> "Settings":
        """The same for other stages."""
        return Settings(self._by_class.values(), stages, self.runs)

    def of_run(self, name: str) -> "Settings":
        """With what a run changes. Raises ValueError for a change of a field that there is not."""
        run_fields = {key: value for key, value in self.runs[name].items() if key not in (OWN_PROCESS, NEW_SEEDS)}
        changes = dict(_flat(run_fields, ""))
        if NEW_SEEDS in self.runs[name]:
            changes["seeds"] = self._new_seeds(name, self.runs[name][NEW_SEEDS])
        sections = []
        for section in self._by_class.values():
            of_section = {f.name: _convert(f.type, changes.pop(f.path), f.path) for f in fields_of(type(section)) if f.path in changes}
            sections.append(_replaced(section, of_section))
        if changes:
            raise ValueError(f"config.runs.{name}.{min(changes)}: changes a field that this config has not")
        return Settings(sections, self.stages, self.runs)

    def _new_seeds(self, run: str, count: Any) -> tuple[int, ...]:
        """Seeds that the study does not have."""
        path = f"runs.{run}.{NEW_SEEDS}"
        check(isinstance(count, int) and not isinstance(count, bool) and count > 0, path, count, "a whole number from 1")
        seeds = [getattr(s, "list") for s in self._by_class.values() if hasattr(s, "seeds") and not section_of(type(s))]  # noqa: B009
        check(bool(seeds), path, count, "needs config.seeds, behind which new ones begin")
        return tuple(range(max(seeds[0]) + 1, max(seeds[0]) + 1 + count))

    def fields(self, classes: Iterable[type]) -> dict[str, Any]:
        """Values by path of the fields that results depend on, of those of the classes that the config has."""
        return {f.path: getattr(self._by_class[cls], f.name) for cls, f in self._declared(classes) if not (f.rule.how or f.rule.path)}

    def paths(self, classes: Iterable[type]) -> list[tuple[str, str]]:
        """(field, file or folder) of all that is read from outside; a field with commas once a path."""
        values = [(f.path, str(getattr(self._by_class[cls], f.name))) for cls, f in self._declared(classes) if f.rule.path]
        return [(path, place.strip()) for path, value in values for place in value.split(",") if place.strip()]

    def _declared(self, classes: Iterable[type]) -> Iterator[tuple[type, Field]]:
        for cls in dict.fromkeys(classes):
            if cls in self._by_class:
                yield from ((cls, f) for f in fields_of(cls))


def validated(config: ml_collections.ConfigDict, classes: Iterable[type]) -> Settings:
    """The settings of a config.

    Args:
      classes: all config classes that there are.

    Raises:
      ValueError: a field of a wrong type or out of bounds, one too many or too few, or NaN anywhere; names the field.
    """
    values = config.to_dict()
    stages = _convert(tuple[str, ...], values.pop(STAGES, ()), STAGES)
    runs = values.pop(RUNS, {})
    check(isinstance(runs, dict) and all(isinstance(r, dict) for r in runs.values()), RUNS, runs, "a section of changes for every run")
    tops = {section_of(cls) for cls in classes}
    flat = dict(_flat(values, "", tops))
    sections = []
    for cls in classes:
        declared = list(fields_of(cls))
        if not any(f.path in flat for f in declared):
            continue
        if missing := [f.path for f in declared if f.path not in flat]:
            raise ValueError(f"config.{missing[0]} is missing")
        sections.append(cls(**{f.name: _convert(f.type, flat.pop(f.path), f.path) for f in declared}))
    if flat:
        raise ValueError(f"config.{min(flat)} is no field: `--describe` lists them")
    settings = Settings(sections, stages, runs)
    for name in runs:
        with said_of_run(name):
            settings.of_run(name)
    return settings


@contextlib.contextmanager
def said_of_run(name: str) -> Iterator[None]:
    """Puts the name of a run, if it is one, before what is wrong with its settings."""
    try:
        yield
    except ValueError as error:
        prefix = f"config.runs.{name}"
        if not name or str(error).startswith(prefix):
            raise
        raise ValueError(f"{prefix}: {error}") from error


def defaults(*classes: type) -> ml_collections.ConfigDict:
    """A ConfigDict with all fields of these classes at their defaults."""
    out = ml_collections.ConfigDict()
    for cls in classes:
        section = section_of(cls)
        if section and section not in out:
            out[section] = ml_collections.ConfigDict()
        for f in fields_of(cls):
            (out[section] if section else out)[f.name] = f.default
    return out


def _flat(values: Mapping[str, Any], prefix: str, sections: set[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Fields by path; sections are entered, or those named alone."""
    for name, value in values.items():
        path = f"{prefix}.{name}".lstrip(".")
        if isinstance(value, dict) and (sections is None or path in sections):
            yield from _flat(value, path, sections)
        else:
            yield path, value


def _replaced(section: object, changes: dict[str, Any]) -> object:
    return dataclasses.replace(section, **changes) if changes else section  # type: ignore[type-var]


def _convert(hint: Any, value: Any, name: str) -> Any:
    """A value from a config file or flag as the type that is declared. Raises ValueError naming the field."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        check(isinstance(value, list | tuple), name, value, "must be a tuple: as a flag \"('a', 'b')\", or numbers with commas")
        if len(inner) == 2 and inner[1] is ...:
            return tuple(_convert(inner[0], v, name) for v in value)
        check(len(value) == len(inner), name, value, f"must have {len(inner)} parts")
        return tuple(_convert(part, v, name) for part, v in zip(inner, value, strict=True))
    if origin in (dict, Mapping) or origin is types.MappingProxyType:
        check(isinstance(value, dict), name, value, "must be a section")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    check(
        isinstance(value, hint) and not (isinstance(value, bool) and hint is int),
        name,
        value,
        f"must be of type {getattr(hint, '__name__', hint)}",
    )
    check(not isinstance(value, float) or math.isfinite(value), name, value, "must be a finite number")
    check(not isinstance(value, int) or abs(value) < 2**53, name, value, "too large to count with")
    return value
