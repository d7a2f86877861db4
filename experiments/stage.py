"""The contract of a stage: what it declares, what it is given, what it leaves.

A stage is one file in a room, `experiments/<room>/<stage>.py`. The file holds `STAGE`, the class of its config section and

    def run(task: Task, out: Outputs) -> None
    def inputs(task: Task) -> dict[str, str]    digests of what it reads from outside the workdir; may be left out
    def cost(settings: Settings, size: Size, on: Hardware) -> Cost    what it will take; without it `--plan` says that the stage is not planned

Its name is the name of the file and of its folder in the workdir.
"""

import dataclasses
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from etils import epath

from experiments.settings import Settings
from runtime import parts
from stability.estimates import Estimate
from storage import files, tables

S = TypeVar("S")
P = TypeVar("P")
SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True)
class Product:
    """What stages read whoever makes it: SAEs, rows of activations, a language model.

    Attributes:
      name: by which stages name it in `needs` and `uses`.
      reads: config sections that it is made from.
      given: whether a config has it from outside, without a stage that provides it.
      lacking: whether a config lacks it although a stage that could provide it is there.
      inputs: digests of what of it comes from outside.
    """

    name: str
    reads: tuple[type, ...] = ()
    given: Callable[[Settings], bool] = lambda settings: False
    lacking: Callable[[Settings], bool] = lambda settings: False
    inputs: Callable[["Task"], dict[str, str]] = lambda task: {}


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a stage declares. The registry puts in its name, room and module.

    Attributes:
      config: its own config section, None without one.
      reads: other sections that its results depend on.
      optional: sections that it reads where the config has them.
      needs: stages, products and runs without which it cannot run.
      uses: those that it reads where they are there.
      provides: products that it makes.
      children: stages that it runs itself, on other settings; what they read counts as read by it.
      training: multiplies at the device's default precision; the others, which measure, at the highest.
      guarded: dear enough that a changed config is refused rather than run again (unless `--overwrite`).
    """

    config: type | None = None
    reads: tuple[type, ...] = ()
    optional: tuple[type, ...] = ()
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    training: bool = False
    guarded: bool = False
    name: str = ""
    room: str = ""
    module: types.ModuleType | None = None

    @property
    def required_sections(self) -> tuple[type, ...]:
        """Sections without which it cannot run."""
        return (*((self.config,) if self.config else ()), *self.reads)

    @property
    def declared(self) -> tuple[type, ...]:
        """All sections that it names itself."""
        return (*self.required_sections, *self.optional)

    @property
    def reads_of(self) -> tuple[str, ...]:
        return (*self.needs, *self.uses)

    def function(self, name: str) -> Any:
        """One of the module's functions; None where it has none of that name."""
        return getattr(self.module, name, None)


class Task:
    """A stage of one run of one config: the settings that it declared, its folder, and the results that it declared to read.

    Attributes:
      stage: the stage.
      label: the run and the stage, as 'gaussian/train'; the stage alone in the study itself.
      root: the folder below which all stages of this config lie.
    """

    def __init__(
        self,
        stage: Stage,
        settings: Settings,
        root: epath.Path,
        classes: Iterable[type],
        sources: Mapping[str, Sequence[str]],
        products: Mapping[str, Product],
        run: str = "",
        roots: Mapping[str, epath.Path] = types.MappingProxyType({}),
    ):
        """`classes`: sections that may be read; `sources`: by each name of `needs` and `uses`, the labels of the tasks that make it; `products`: those that the
        config has, by name; `roots`: of tasks that lie below another folder, by label."""
        self.stage, self.root, self.run, self._roots = stage, root, run, roots
        self.label = f"{run}/{stage.name}" if run else stage.name
        self.classes = tuple(dict.fromkeys(classes))
        self.sources, self._settings, self._products = sources, settings, products

    @property
    def folder(self) -> epath.Path:
        return self.root / self.label

    @property
    def settings(self) -> Settings:
        """All sections, for those who run stages on other settings (`experiments.registry`); a stage itself asks `section`."""
        return self._settings

    def section(self, cls: type[S]) -> S:
        """A section of the config. Raises LookupError for one that the stage does not declare, ValueError for one that the config lacks."""
        self._allow(cls)
        return self._settings[cls]

    def maybe(self, cls: type[S]) -> S | None:
        """The same; None where the config lacks it."""
        self._allow(cls)
        return self._settings.get(cls)

    def has(self, name: str) -> bool:
        """Whether a stage, product or run that the stage declares is there. Raises LookupError for one that it does not declare."""
        if name not in self.stage.reads_of and "*" not in self.stage.reads_of:
            raise LookupError(f"the stage {self.stage.name!r} asks for {name!r}, which it does not declare (needs, uses)")
        labels = [label for label in self.sources.get("*", ()) if label == name or label.startswith(f"{name}/")]
        return bool(self.sources.get(name) or labels) or name in self._products

    def path(self, name: str) -> epath.Path:
        """Of a file or folder that another task wrote, as 'stability/features.parquet'. Raises LookupError where the stage does not declare to read it."""
        readable = [label for labels in self.sources.values() for label in labels]
        holders = [label for label in (*readable, self.label) if name == label or name.startswith(f"{label}/")]
        if not holders:
            raise LookupError(
                f"the stage {self.stage.name!r} reads {name!r}, which it does not declare (needs, uses), or which this config does not make"
            )
        return self._roots.get(holders[0], self.root) / name

    def table(self, name: str, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Columns of a table of another stage, as 'stability/features'."""
        return tables.read_table(self.path(f"{name}.parquet"), columns)

    def summary(self, stage: str) -> dict[str, Any]:
        """The figures of another stage."""
        figures: dict[str, Any] = files.read_json(self.path(f"{stage}/{SUMMARY}"))
        return figures

    def fingerprint(self) -> dict[str, Any]:
        """Config fields that the results depend on, by path."""
        return self._settings.fields(self.classes)

    def paths(self) -> list[tuple[str, str]]:
        """(field, file or folder) of all that is read from outside."""
        return self._settings.paths(self.classes)

    def inputs(self) -> dict[str, str]:
        """Digests of what the results depend on outside the workdir. Raises ValueError for settings that do not fit it."""
        digests: dict[str, str] = {}
        for product in self._products.values():
            if product.name in self.stage.reads_of:
                digests |= product.inputs(self)
        own = self.stage.function("inputs")
        return digests | (own(self) if own else {})

    def _allow(self, cls: type) -> None:
        if cls not in self.classes:
            raise LookupError(f"the stage {self.stage.name!r} reads config section {cls.__name__}, which it does not declare (reads)")


class Outputs:
    """Where a stage leaves its results. What is listed here is what its record will hold.

    Attributes:
      folder: of the task.
      paths: files that are results, in the order in which they came.
    """

    def __init__(self, folder: epath.Path):
        self.folder = folder
        self.paths: list[epath.Path] = []

    def add(self, *paths: epath.Path) -> None:
        """Files that were written already."""
        self.paths += [p for p in paths if p not in self.paths]

    def table(self, name: str, columns: Mapping[str, Any]) -> None:
        """Writes <name>.parquet."""
        self.add(tables.write_table(self.folder / f"{name}.parquet", dict(columns)))

    def json(self, name: str, value: Any) -> None:
        """Writes <name>."""
        files.write_json(self.folder / name, value)
        self.add(self.folder / name)

    def bytes(self, name: str, value: bytes) -> None:
        """Writes <name>."""
        files.write_bytes(self.folder / name, value)
        self.add(self.folder / name)

    def summary(self, figures: Mapping[str, Any]) -> None:
        """Writes the figures that `summary.json` of the workdir will hold under the stage's name; estimates as `Estimate.as_dict`."""
        self.json(SUMMARY, {name: e.as_dict() if isinstance(e, Estimate) else e for name, e in figures.items()})

    def not_measured(self, because: str, empty: Mapping[str, Any] | None = None) -> None:
        """Says why there is nothing to measure, and writes a summary of `empty` figures and the reason."""
        print(f"{self.folder.name}: not measured, {because}")
        self.summary({**(empty or {}), "not_measured": because})

    def part(self, key: str, make: Callable[[], P]) -> P:
        """What `make` returns, kept until the stage is complete: a stage that was killed goes on behind its last part.

        Args:
          key: a name of its own in the stage.
          make: returns arrays, numbers and strings, alone or in tuples, lists, dicts and NamedTuples; see `runtime.parts`.
        """
        return parts.load_or_make(self.folder / parts.FOLDER, key, make)
