"""The contract of stages: what they declare is what they can read, and every declared field counts."""

import ast
import copy
import functools
import importlib
import json
import pathlib
from collections.abc import Mapping

import numpy as np
import pytest
from etils import epath

from configs import compare, predict
from experiments import registry
from experiments.fields import fields_of, is_config
from experiments.stage import Task
from launch import run as runner
from runtime import interrupts
from saes.dictionary import Dictionary
from saes.formats import saelens
from tests.stability import planted

ROOT = pathlib.Path(__file__).parents[2]
NO_STUDY = {"__init__", "common", "saved"}
NAMES = sorted({p.stem for p in (ROOT / "configs").glob("*.py")} - NO_STUDY)
ARGS = ("", "tiny", "robust", "synthetic", "synthetic-tiny", "topk", "l1", "topk-tiny", "l1-tiny")


@functools.cache
def of_config(name, arg):
    """The settings of a config file; SAEs that it asks for have names."""
    c = importlib.import_module(f"configs.{name}").get_config(arg)
    for wanted in ("saes", "query_saes"):
        if wanted in c:
            c[wanted] = f"/{wanted}"
    return registry.validated(c)


def there(name, arg):
    """Whether a config file knows the argument."""
    try:
        importlib.import_module(f"configs.{name}").get_config(arg)
    except ValueError as error:
        if f"configs/{name}.py:{arg}" not in str(error):
            raise
        return False
    return True


CONFIGS = [(name, arg) for name in NAMES for arg in ARGS if there(name, arg)]
every_config = pytest.mark.parametrize(("name", "arg"), CONFIGS, ids=[f"{name}:{arg}".rstrip(":") for name, arg in CONFIGS])


def tasks(name, arg):
    return registry.tasks(of_config(name, arg), epath.Path("nowhere"))


def test_all_configs_and_all_stages_are_among_those_looked_at():
    assert ("quickstart", "tiny") in CONFIGS and ("pool", "synthetic-tiny") in CONFIGS and {name for name, _ in CONFIGS} == set(NAMES)
    assert {task.stage.name for config in CONFIGS for task in tasks(*config)} == registry.house().stages.keys()


@every_config
def test_every_stage_is_found_in_order_and_declares_config_classes_alone(name, arg):
    settings, found = of_config(name, arg), tasks(name, arg)
    asked = {s for s in settings.stages if s in registry.house().stages}
    runs = {run for run in settings.runs if any(run == s or run.startswith(f"{s}/") for s in settings.stages)}
    assert [task.label for task in found] == list(dict.fromkeys(task.label for task in found))
    assert {task.label for task in found} == asked | {f"{run}/train" for run in runs}
    for place, task in enumerate(found):
        stage = task.stage
        assert callable(stage.module.run) and stage.module.__name__ == ".".join(p for p in ("experiments", stage.room, stage.name) if p)
        assert all(is_config(cls) for cls in (*stage.declared, *task.classes)) and set(stage.declared) <= set(task.classes)
        read = {label for labels in task.sources.values() for label in labels} - {task.label}
        assert read <= {before.label for before in found[:place]}
        assert not any(stage.reads_of.count(other) > 1 for other in stage.reads_of)


@every_config
def test_what_is_not_declared_cannot_be_read_and_is_named(name, arg):
    known = registry.house()
    for task in tasks(name, arg):
        for cls in set(known.classes) - set(task.classes):
            for read in (task.section, task.maybe):
                with pytest.raises(
                    LookupError, match=f"'{task.stage.name}' reads config section {cls.__name__}, which it does not declare"
                ):
                    read(cls)
        if "*" in task.stage.reads_of:
            continue
        for other in {*known.stages, *known.products, "gaussian"} - set(task.stage.reads_of):
            with pytest.raises(LookupError, match=f"'{task.stage.name}' asks for '{other}', which it does not declare"):
                task.has(other)
        made = {label for labels in task.sources.values() for label in labels} | {task.label}
        for other in {*known.stages, "gaussian/train"} - made:
            for read in (lambda: task.path(f"{other}/x.npy"), lambda: task.summary(other), lambda: task.table(f"{other}/x")):  # noqa: B023
                with pytest.raises(LookupError, match=f"'{task.stage.name}' reads '{other}/.*', which it does not declare"):
                    read()
        assert all(task.path(f"{label}/x.npy") == task.root / label / "x.npy" for label in made)
        for label in made:
            with pytest.raises(LookupError, match="does not declare"):
                task.path(f"{label}-other/x.npy")


def another(value):
    """Of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, tuple):
        return (*value, value[-1] if value else 1)
    assert isinstance(value, Mapping)
    return {**value, "x": {}}


def kept(task):
    """As a record holds it."""
    return json.loads(json.dumps(task.fingerprint()))


def with_field(task, cls, name, value):
    """The same task where a field has another value, whatever its bounds."""
    section = copy.copy(task.settings[cls])
    object.__setattr__(section, name, value)
    return Task(task.stage, task.settings.replaced(section), task.root, task.classes, task.sources, {}, task.run)


@every_config
def test_another_value_of_any_field_that_results_depend_on_is_another_fingerprint(name, arg):
    for task in tasks(name, arg):
        now, seen = kept(task), set()
        for cls in task.classes:
            for f in fields_of(cls) if cls in task.settings else ():
                value = getattr(task.settings[cls], f.name)
                changed = kept(with_field(task, cls, f.name, another(value)))
                differ = {path for path in now.keys() | changed.keys() if now.get(path) != changed.get(path)}
                assert differ == (set() if f.rule.how or f.rule.path else {f.path}), (task.label, f.path)
                seen |= differ
        assert seen == now.keys()


@every_config
def test_what_a_run_changes_concerns_that_run_alone(name, arg):
    settings = of_config(name, arg)
    of = lambda runs: {t.label: kept(t) for t in registry.tasks(type(settings)(settings, settings.stages, runs), epath.Path())}
    now = of(settings.runs)
    for run in settings.runs:
        changed = of({**settings.runs, run: {**settings.runs[run], "train": {**settings.runs[run].get("train", {}), "lr": 0.125}}})
        differ = {label for label in now if now[label] != changed[label]}
        assert differ == {f"{run}/train"} & now.keys()


def test_no_stage_goes_around_what_it_declares():
    """All settings are for those who check them, who plan, and who run stages on other ones."""
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        if path.parent.name == "experiments" and path.stem != "report":
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef) or function.name == "check_settings":
                continue
            for node in ast.walk(function):
                of = node.value if isinstance(node, ast.Subscript | ast.Attribute) else None
                whole = isinstance(of, ast.Attribute) and of.attr == "settings"
                taken = isinstance(node, ast.Subscript) or getattr(node, "attr", "") in ("get", "fields", "paths", "of_run")
                assert not (whole and taken), f"{path}:{node.lineno}"


def test_who_reads_everything_has_what_is_there():
    """And a product where it is named beside everything."""
    (task,) = [task for task in tasks("quickstart", "") if task.label == "report"]
    for name in ("activations", "stability", "gaussian", "gaussian/train", "rows"):
        assert task.has(name), name
    assert not task.has("verdicts") and not task.has("longer")
    assert task.path("gaussian/train/dictionaries.json") == task.root / "gaussian" / "train" / "dictionaries.json"
    with pytest.raises(LookupError, match="or which this config does not make"):
        task.path("verdicts/x.npy")
    (task,) = [task for task in tasks("compare", "") if task.label == "report"]
    assert not task.has("rows")


def test_what_a_stage_runs_itself_and_products_are_made_from_is_its_own_to_read():
    """And so a part of what its results depend on."""
    known = registry.house()
    for config in CONFIGS:
        for task in tasks(*config):
            wanted = {cls for child in task.stage.children for cls in known.stages[child].declared}
            wanted |= {cls for name in task.stage.reads_of if name in known.products for cls in known.products[name].reads}
            assert wanted <= set(task.classes)


MEASURED = ("collect", "stability", "sensitivity", "subspace", "atlas", "diagnosis", "transfer", "report")


def finish(c, workdir):
    """Runs a whole config: a stage that reads what it does not declare fails."""
    interrupts.reset()
    settings = registry.validated(c)
    runner.run(c, settings, epath.Path(workdir), [], "", False)
    done = {json.loads(p.read_text())["stage"] for p in pathlib.Path(workdir).rglob("stage.json")}
    assert done == {task.label for task in registry.tasks(settings, epath.Path(workdir))}
    assert not list(pathlib.Path(workdir).rglob("*.part"))


@pytest.fixture
def saes(tmp_path):
    """Paths of 5 SAEs that have half of their features in common."""
    rng = np.random.default_rng(0)
    shared = planted.anywhere(rng, 10, 24)
    for seed in range(5):
        rows = np.concatenate([shared, planted.anywhere(rng, 10, 24)]).astype(np.float32)
        sae = Dictionary(rows.T.copy(), np.zeros(20, np.float32), rows, np.zeros(24, np.float32), architecture="standard")
        saelens.save(epath.Path(tmp_path) / f"seed-{seed}", sae, {"model_name": "small", "seed": seed})
    return [str(tmp_path / f"seed-{seed}") for seed in range(5)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "study",
    [
        "quickstart:tiny",
        "synthetic:tiny",
        "synthetic_controls:tiny",
        "synthetic_causes:tiny",
        "seed_factorial:tiny",
        "pool:tiny",
        "pool:synthetic-tiny",
        "pretrain_stdlib:tiny",
    ],
)
def test_every_study_declares_what_its_stages_read(study, tmp_path):
    name, _, arg = study.partition(":")
    c = importlib.import_module(f"configs.{name}").get_config(arg)
    if name in ("quickstart", "synthetic"):  # two halves of 2, or a part of the stages measures nothing
        c.seeds = (4,)
    if name == "quickstart":
        c.stages, c.runs.gaussian.seeds = (*c.stages, "gaussian"), (4,)
    finish(c, tmp_path / "w")


@pytest.mark.slow
def test_measuring_with_activations_declares_what_it_reads(saes, tmp_path):
    np.save(tmp_path / "acts.npy", np.random.default_rng(1).normal(size=(3000, 24)).astype(np.float32))
    c = compare.get_config()
    c.saes, c.source.activations, c.stages = ",".join(saes), str(tmp_path / "acts.npy"), MEASURED
    c.stability.rare_firings, c.stability.null_draws, c.subspace.min_features, c.subspace.headline_rank = 30, 2, 5, 4
    c.atlas.rows, c.atlas.null_draws, c.subspace.subsamples = 1024, 2, 3
    finish(c, tmp_path / "w")


@pytest.mark.slow
def test_predicting_declares_what_it_reads(saes, tmp_path):
    c = predict.get_config()
    c.saes, c.query_saes, c.stability.null_draws = ",".join(saes[:4]), saes[4], 1
    finish(c, tmp_path / "w")
