"""Who may import whom: data flows one way, from arrays to launch."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
OURS = {
    "storage",
    "activations",
    "saes",
    "stability",
    "synthetic",
    "interpret",
    "reports",
    "launch",
    "configs",
    "benchmarks",
    "notebooks",
    "tests",
}
MAY_IMPORT = {
    "storage": set(),
    "activations": {"storage"},
    "saes": {"storage"},
    "stability": set(),
    "synthetic": {"stability"},
    "interpret": {"activations"},
    "reports": {"storage", "interpret"},
    "configs": set(),
    "launch": {"storage", "activations", "saes", "stability", "synthetic", "interpret", "reports"},
}


def imported_packages(path: pathlib.Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in names} & OURS


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_obey_the_layout(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert imported_packages(path) <= MAY_IMPORT[package] | {package}, path


def test_a_file_is_one_concept():
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[0] in OURS:
            assert len(path.read_text().splitlines()) <= 400, path


def test_configs_import_only_ml_collections_and_common():
    for path in sorted((ROOT / "configs").glob("*.py")):
        tree = ast.parse(path.read_text())
        modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert modules <= {"ml_collections", "configs"}, path
