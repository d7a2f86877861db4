"""Config fields: type, default, bounds and meaning of each, in one place. Imports nothing of ours, so that anyone may declare fields.

A section of the config is a class:

    @config("atlas")
    class Atlas:
        seeds: int = field(default=16, doc="SAEs searched, the first so many", ge=4)
        block_size: int = field(default=512, doc="rows at a time", gt=0, how=True)

Several classes may share a section, each with fields of its own; the section "" is the top of the config.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

C = TypeVar("C")
_RULE, _SECTION = "rule", "__section__"


class Rule(NamedTuple):
    """What is declared of a field beside its type and default.

    Attributes:
      doc: its meaning, with unit.
      ge, gt, le, lt: bounds, of each element where the field is a tuple; None: none.
      one_of: values that there are; (): any.
      distinct: of a tuple: no value twice.
      least: of a tuple: so many elements at least.
      says: the rule in words; "": made from the bounds.
      how: it changes how something is computed and not what comes out: no part of what results depend on, and may change between starts.
      path: names files: results depend on their content, and not on the name.
    """

    doc: str
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    one_of: tuple[Any, ...] = ()
    distinct: bool = False
    least: int = 0
    says: str = ""
    how: bool = False
    path: bool = False

    def bounds(self) -> str:
        """In words; "" where there are none."""
        if self.says:
            return self.says
        parts = []
        if self.one_of:
            parts.append("one of " + ", ".join(map(repr, self.one_of)))
        low = self.gt if self.gt is not None else self.ge
        high = self.lt if self.lt is not None else self.le
        if low is not None and high is not None:
            brackets = ("(" if self.gt is not None else "[") + "{}" + (")" if self.lt is not None else "]")
            parts.append("in " + brackets.format(f"{low:g}, {high:g}"))
        elif low is not None:
            low_text = "must be above 0" if low == 0 else f"above {low:g}"
            parts.append(low_text if self.gt is not None else "must not be negative" if low == 0 else f"at least {low:g}")
        elif high is not None:
            parts.append(f"below {high:g}" if self.lt is not None else f"at most {high:g}")
        if self.distinct:
            parts.append("distinct")
        if self.least:
            parts.append(f"{self.least} or more of them" if self.least > 1 else "at least one")
        return ", ".join(parts)

    def allows(self, value: Any) -> bool:
        """Whether a value of the right type is within the bounds."""
        values = value if isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) and (len(value) < self.least or (self.distinct and len(set(value)) < len(value))):
            return False
        return all(self._allows_one(v) for v in values)

    def _allows_one(self, value: Any) -> bool:
        if self.one_of and value not in self.one_of:
            return False
        tests = (
            (self.ge, lambda b: value >= b),
            (self.gt, lambda b: value > b),
            (self.le, lambda b: value <= b),
            (self.lt, lambda b: value < b),
        )
        return all(bound is None or holds(bound) for bound, holds in tests)


class Field(NamedTuple):
    """A declared field: `name` in its class, `path` in the config, as 'atlas.seeds'; its type, default and rule."""

    name: str
    path: str
    type: Any
    default: Any
    rule: Rule


def field(*, default: Any, doc: str, **rule: Any) -> Any:
    """A field of a config class: its default, its meaning, and what else `Rule` knows."""
    return dataclasses.field(default=default, metadata={_RULE: Rule(doc, **rule)})


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def config(section: str) -> Callable[[type[C]], type[C]]:
    """Makes a class a section of the config, or a part of one: a frozen dataclass that refuses values out of bounds when it is made.

    What holds between its fields it says in a method `check`.
    """

    def decorate(cls: type[C]) -> type[C]:
        setattr(cls, _SECTION, section)
        setattr(cls, "__post_init__", _post_init)  # noqa: B010
        return dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    return decorate


def section_of(cls: type) -> str:
    """The section that a config class is, or is a part of."""
    return str(getattr(cls, _SECTION))


def is_config(obj: object) -> bool:
    """Whether an object is a class made by `config`."""
    return isinstance(obj, type) and _SECTION in vars(obj)


def fields_of(cls: type) -> Iterator[Field]:
    """The fields that a config class declares, in order."""
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        yield Field(f.name, f"{section_of(cls)}.{f.name}".lstrip("."), hints[f.name], f.default, f.metadata[_RULE])


def check(ok: bool, path: str, value: Any, rule: str) -> None:
    """Raises ValueError with field, value and rule in one line unless `ok`."""
    if not ok:
        raise ValueError(f"config.{path}={value!r}: {rule}")


def _post_init(self: Any) -> None:
    for f in fields_of(type(self)):
        value = getattr(self, f.name)
        check(f.rule.allows(value), f.path, value, f.rule.bounds())
    if hasattr(self, "check"):
        self.check()
