"""Who may import whom: data flows one way, from arrays to the command line."""

import ast
import pathlib
import tomllib

import pytest

from experiments import registry

ROOT = pathlib.Path(__file__).parent.parent
OURS = {
    "storage", "activations", "saes", "stability", "synthetic", "interpret", "reports", "runtime", "experiments", "launch", "configs", "benchmarks",
    "notebooks", "tests",
}  # fmt: skip
KERNELS = {"storage", "activations", "saes", "stability", "synthetic", "interpret"}
FIELDS = "experiments.fields"  # imports nothing of ours, and anybody may import it
MAY_IMPORT = {
    "storage": set(),
    "activations": {"storage"},
    "saes": {"storage"},
    "stability": set(),
    "synthetic": {"stability"},
    "interpret": {"activations"},
    "reports": {"storage", "interpret", "stability"},
    "runtime": {"storage"},
    "experiments": KERNELS | {"reports", "runtime"},
    "launch": KERNELS | {"reports", "runtime", "experiments"},
}


def imported(path: pathlib.Path) -> set[str]:
    """Modules that a file imports, `from a import b` as a.b where that is one."""
    tree = ast.parse(path.read_text())
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            below = [f"{node.module}.{a.name}" for a in node.names]
            modules = [
                name
                for name in below
                if (ROOT / name.replace(".", "/")).with_suffix(".py").exists() or (ROOT / name.replace(".", "/")).is_dir()
            ]
            names |= set(modules) or {node.module}
    return {name for name in names if name.split(".")[0] in OURS}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_obey_the_layout(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        found = {name.split(".")[0] for name in imported(path) if name != FIELDS}
        assert found <= MAY_IMPORT[package] | {package}, path


def test_a_room_imports_only_earlier_rooms():
    for place, room in enumerate(registry.ROOMS):
        later = set(registry.ROOMS[place + 1 :])
        for path in sorted((ROOT / "experiments" / room).glob("*.py")):
            rooms = {name.split(".")[1] for name in imported(path) if name.startswith("experiments.")}
            assert not rooms & later, path
            assert "report" not in rooms, path


def test_fields_imports_nothing_of_ours():
    assert not imported(ROOT / "experiments" / "fields.py")


def test_a_file_is_one_concept():
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[0] in OURS:
            assert len(path.read_text().splitlines()) <= 400, path


def test_the_command_line_stays_thin():
    assert sum(len(path.read_text().splitlines()) for path in (ROOT / "launch").glob("*.py")) <= 1000


def test_configs_import_declarations_alone():
    """What an experiment is stands in its file; the sections come from the declarations, by configs/default.py and configs/common.py."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        shared = path.name in ("default.py", "common.py")
        assert all(
            name.split(".")[0] == "configs"
            or (shared and name.split(".")[0] in ("experiments", "synthetic"))
            or (path.name == "saved.py" and name.split(".")[0] == "storage")
            for name in imported(path)
        ), path


def test_every_package_is_installed():
    """The lists of packages in pyproject.toml are what is there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {
        str(p.parent.relative_to(ROOT)).replace("/", ".")
        for name in OURS - {"tests", "benchmarks", "notebooks"}
        for p in (ROOT / name).rglob("__init__.py")
    }
    assert there <= listed
    assert {name.split(".")[0] for name in listed} == set(project["tool"]["mypy"]["packages"])
