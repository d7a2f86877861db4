"""All stages, found in the rooms; the tasks of a config, in order.

Rooms have one fixed order, and a room imports only earlier ones. A stage comes behind those that it reads; between stages that do not
read each other the order of the rooms decides, then that of the names.
"""

import dataclasses
import functools
import importlib
import pkgutil
import re
import types
from collections.abc import Iterable, Mapping

import ml_collections
from etils import epath

from experiments import settings as settings_of
from experiments.fields import check, fields_of, is_config
from experiments.settings import Settings
from experiments.stage import Outputs, Product, Stage, Task
from runtime import parts

ROOMS = (
    "data", "training", "reappearance", "ablation", "interpretation", "subspaces", "ground_truth", "pooling", "prediction", "robustness",
    "seed_factorial", "language_model",
)  # fmt: skip
REPORT = "experiments.report"  # the stage that comes last
RUN_STAGE = "train"  # of which runs are
EVERYTHING = "*"  # in `uses`: whatever is there
REPORT_MODULES = ("report", "charts")  # modules of a room that are loaded when a report is made: its rows and evidence, and its charts
_PAGES = ("page", "pool_charts", "grid_charts", "arm_charts", "feature_table")


@dataclasses.dataclass(frozen=True)
class House:
    """What the rooms hold: stages in order, products, and all config classes."""

    stages: dict[str, Stage]
    products: dict[str, Product]
    classes: tuple[type, ...]


@functools.cache
def house() -> House:
    """Looks through the rooms, once. Raises ValueError for a stage that does not keep to the contract."""
    stages: dict[str, Stage] = {}
    products: dict[str, Product] = {}
    for name in [*(name for room in ROOMS for name in _modules(room)), REPORT]:
        module = importlib.import_module(name)
        products |= {p.name: p for p in vars(module).values() if isinstance(p, Product)}
        stage = vars(module).get("STAGE")
        if isinstance(stage, Stage):
            _, *room, own = name.split(".")
            stages[own] = dataclasses.replace(stage, name=own, room="".join(room), module=module)
    for stage in stages.values():
        _refuse(stage, stages)
    ordered = _ordered(stages)
    classes = [cls for stage in ordered for cls in stage.declared] + [cls for p in products.values() for cls in p.reads]
    return House({s.name: s for s in ordered}, products, tuple(dict.fromkeys(classes)))


def _modules(room: str) -> list[str]:
    """Those of a room that are loaded at once."""
    package = importlib.import_module(f"experiments.{room}")
    return [
        f"{package.__name__}.{name}"
        for name in sorted(info.name for info in pkgutil.iter_modules(package.__path__))
        if name not in (*REPORT_MODULES, *_PAGES)
    ]


def modules(kind: str) -> list[types.ModuleType]:
    """The modules of all rooms that have one for reports, `kind` of `REPORT_MODULES`, in the order of the rooms."""
    packages = [importlib.import_module(f"experiments.{room}") for room in ROOMS]
    there = [p.__name__ for p in packages if any(info.name == kind for info in pkgutil.iter_modules(p.__path__))]
    return [importlib.import_module(f"{name}.{kind}") for name in there]


def _refuse(stage: Stage, stages: dict[str, Stage]) -> None:
    if not callable(stage.function("run")):
        raise ValueError(f"the stage {stage.name!r} has no function run(task, out)")
    if wrong := [cls for cls in stage.declared if not is_config(cls)]:
        raise ValueError(f"the stage {stage.name!r} declares {wrong[0]!r}, which is no config class")
    if unknown := set(stage.children) - stages.keys():
        raise ValueError(f"the stage {stage.name!r} runs {min(unknown)!r}, which is no stage")


def _ordered(stages: dict[str, Stage]) -> list[Stage]:
    """Behind what they read."""
    prerequisites = {s.name: {name for name_read in s.reads_of for name in _makers(name_read, stages)} - {s.name} for s in stages.values()}
    pending, out = list(stages.values()), []
    while pending:
        ready = [s for s in pending if not prerequisites[s.name] & {other.name for other in pending}]
        if not ready:
            raise ValueError(f"the stages {', '.join(s.name for s in pending)} read each other in a circle")
        out.append(ready[0])
        pending.remove(ready[0])
    return out


def _makers(name: str, stages: dict[str, Stage]) -> list[str]:
    """Stages that could make what a stage names."""
    if name == EVERYTHING:
        return list(stages)
    if name in stages:
        return [name]
    return [s.name for s in stages.values() if name in s.provides] or [RUN_STAGE]


def validated(config: ml_collections.ConfigDict) -> Settings:
    """The settings of a config, held against what its stages declare.

    Raises:
      ValueError: an unknown stage or run, one without what it reads, or a field that is wrong; names the field.
    """
    rooms = house()
    settings = settings_of.validated(config, rooms.classes)
    labels = [*rooms.stages, *settings.runs, *_groups(settings)]
    for name in settings.runs:
        check(_is_folder(name, rooms), "runs", name, "a run is named as its folder, by letters, digits and blanks, and not as a stage")
    check(bool(settings.stages), "stages", settings.stages, f"holds nothing: some of {', '.join(map(repr, labels))}")
    for name in settings.stages:
        check(name in labels, "stages", name, f"one of {', '.join(map(repr, labels))}")
    for task in tasks(settings, epath.Path()):
        for cls in task.stage.required_sections:
            if cls not in task.settings:
                raise ValueError(
                    f"config.{next(fields_of(cls)).path} is missing: {task.label!r} in config.stages reads it; make its sections with experiments.registry.default_config, as configs/default.py does"
                )
        for needed in task.stage.needs:
            check(task.has(needed), "stages", settings.stages, f"{task.label!r} reads what {needed!r} writes")
        looks = task.stage.function("check_settings")
        if looks is not None:
            with settings_of.said_of_run(task.run):
                looks(task)
    return settings


def _is_folder(run: str, rooms: House) -> bool:
    """Whether a run's name is that of a folder of its own in the workdir; a group's comes before it, with a slash between."""
    parts = run.split("/")
    return parts[0] not in rooms.stages and RUN_STAGE not in parts and all(re.fullmatch(r"\w[\w =+-]*", part) for part in parts)


def default_config(stages: Iterable[str], *more: type) -> ml_collections.ConfigDict:
    """A config of these stages, with every field of theirs at its default.

    Args:
      more: classes of sections beside those that the stages declare themselves, as a world or the model that rows come from.
    """
    rooms = house()
    stages = tuple(stages)
    classes = [cls for name in stages if name in rooms.stages for cls in rooms.stages[name].required_sections]
    out = settings_of.defaults(*dict.fromkeys([*classes, *more]))
    out.stages = stages
    out.runs = ml_collections.ConfigDict()
    return out


def tasks(settings: Settings, root: epath.Path) -> list[Task]:
    """All that a config asks for, in the order in which it runs."""
    out = []
    for stage in house().stages.values():
        if stage.name in settings.stages:
            out.append(task_of(stage.name, settings, root))
        out += [task_of(stage.name, settings, root, run) for run in _runs(settings) if stage.name == RUN_STAGE]
    return out


def task_of(name: str, settings: Settings, root: epath.Path, run: str = "", roots: Mapping[str, epath.Path] | None = None) -> Task:
    """One stage of a config, in the study itself or in a run; `roots`: of tasks that lie elsewhere, by label."""
    rooms = house()
    stage = rooms.stages[name]
    there = {p.name: p for p in rooms.products.values() if not p.lacking(settings)}
    sources = {name_read: _labels(name_read, settings, rooms, there) for name_read in stage.reads_of}
    products = {p: there[p] for p in there if there[p].given(settings) or sources.get(p)}
    classes = [*stage.declared, *(cls for child in stage.children for cls in _read(rooms.stages[child], rooms)), *_read(stage, rooms)]
    return Task(stage, settings.of_run(run) if run else settings, root, classes, sources, products, run, roots or {})


def _read(stage: Stage, rooms: House) -> list[type]:
    """Sections that a stage may read: its own, and those that the products are made from."""
    return [*stage.declared, *(cls for name in stage.reads_of if name in rooms.products for cls in rooms.products[name].reads)]


def _labels(name_read: str, settings: Settings, rooms: House, there: dict[str, Product]) -> list[str]:
    """Of the tasks of a config that make what a stage names."""
    if name_read == EVERYTHING:
        return [*(name for name in rooms.stages if name in settings.stages), *(f"{run}/{RUN_STAGE}" for run in _runs(settings))]
    if name_read in rooms.stages and name_read not in settings.runs:
        return [name_read] if name_read in settings.stages else []
    if name_read in rooms.products:
        providers = [s.name for s in rooms.stages.values() if name_read in s.provides and s.name in settings.stages]
        return providers if name_read in there else []
    return [f"{run}/{RUN_STAGE}" for run in _runs(settings) if run == name_read or run.startswith(f"{name_read}/")]


def _runs(settings: Settings) -> list[str]:
    """The runs that a config asks for, by name or by the name of their group."""
    return [run for run in settings.runs if any(run == name or run.startswith(f"{name}/") for name in settings.stages)]


def _groups(settings: Settings) -> set[str]:
    return {run.rpartition("/")[0] for run in settings.runs if "/" in run}


def run_child(task: Task, name: str, root: epath.Path, settings: Settings) -> None:
    """Runs a stage that `task` has among its children, on other settings, below another folder.

    Of the stages of `settings`, those that are no children are the study's own, which the child reads where `task` does.

    Raises:
      LookupError: it is none of the children.
    """
    if name not in task.stage.children:
        raise LookupError(f"the stage {task.stage.name!r} runs {name!r}, which it does not declare (children)")
    own = {label for labels in task.sources.values() for label in labels if label.rpartition("/")[2] not in task.stage.children}
    child = task_of(name, settings, root, roots=dict.fromkeys(own, task.root))
    child.stage.function("run")(child, Outputs(child.folder))
    parts.remove(child.folder)
