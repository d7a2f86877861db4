"""Names are nouns or verbs that a stranger can guess: no bare preposition, no lone participle, none of the project's old private words."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("experiments", "launch", "reports", "runtime")


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PREPOSITIONS = words("""
    about above across after against along among around as at before behind below beneath beside besides between beyond by during for from in inside into
    of on onto outside over per since through throughout till to toward towards under until upon via with within without
""")
PARTICIPLES = words("called chosen found gone judged judging kept known listed lost made said seen shown taken told turned wanted")
PRIVATE_WORDS = words("apart bank banks newcomer newcomers notion notions roster rosters")
PAIRS = ({"before", "after"}, {"within", "between"})  # a contrast says what each side is, where both stand in one definition


def bound(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that a piece of code gives to variables, arguments, attributes, functions and classes, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case (
                ast.alias(asname=str(name))
                | ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                yield name, node.lineno


def bad_names(source: str, path: str = "") -> list[str]:
    """What is wrong in a file, as "file:line: name"."""
    problems = []
    for definition in ast.parse(source).body:
        names = [(name, name.strip("_").lower(), line) for name, line in bound(definition)]
        here = {word for _, word, _ in names}
        contrasts = set().union(*(pair for pair in PAIRS if pair <= here))
        problems += [
            (line, f"{path}:{line}: {name}")
            for name, word, line in names
            if word in PREPOSITIONS | PARTICIPLES | PRIVATE_WORDS and word not in contrasts
        ]
    return [text for _, text in sorted(set(problems))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_are_nouns_or_verbs(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    problems = [text for path in files for text in bad_names(path.read_text(), str(path.relative_to(ROOT)))]
    assert not problems, "give each a noun or verb: " + ", ".join(problems)


@pytest.mark.parametrize(
    "line",
    [
        "of = 1",
        "def at(x): ...",
        "def f(over): ...",
        "lambda without: 0",
        "class Judged: ...",
        "class C:\n    apart: float = 0.9",
        "x._kept = 1",
        "import os as _by",
        "if (found := 1): ...",
        "[0 for notion in ()]",
        "OUTSIDE, INSIDE = 1, 2",
        "def f(before): ...",
        "try: ...\nexcept ValueError as said: ...",
        "match x:\n    case [turned]: ...",
    ],
)
def test_a_bad_name_is_found(line):
    assert bad_names(line, "a.py"), line
    assert all(text.startswith("a.py:") for text in bad_names(line, "a.py"))


def test_names_that_are_right():
    assert not bad_names(
        "def f(before, after): ...\nwithin, between = g()\ninside_F = of_seed = rotated_SFD = x.of\nf(over=1)\nknown_by = 2"
    )
