"""The text of the Python standard library as a corpus of documents.

Real human text that every machine with Python has: the source files of a fixed list of modules and packages, and the
reference-manual topics that `pydoc` carries.  Test suites, generated tables and packages that some systems strip
(`tkinter`, `idlelib`, `test`) or that newer Pythons removed (`distutils`, `lib2to3`) stay out, so that two machines with
the same Python version read the same corpus; `Corpus.digest` says whether they did.
"""

import ast
import dataclasses
import hashlib
import pathlib
import sysconfig
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Packages read whole (their `test`/`tests` folders left out).
PACKAGES = (
    "asyncio", "collections", "concurrent", "ctypes", "curses", "dbm", "email", "html", "http", "importlib", "json",
    "logging", "multiprocessing", "re", "sqlite3", "tomllib", "unittest", "urllib", "venv", "wsgiref", "xml", "xmlrpc",
    "zoneinfo",
)  # fmt: skip
TOPICS_FILE = "pydoc_data/topics.py"
# Machine-specific or generated from tables: no text to learn from.
EXCLUDED_FILES = ("html/entities.py", "re/_casefix.py", "__phello__.foo.py")
EXCLUDED_PREFIXES = ("_sysconfigdata", "_osx_support", "__phello__")
EXCLUDED_FOLDERS = ("test", "tests", "__pycache__")

HELD_OUT_FRACTION = 0.1
NEAR_DUPLICATE_SHARE = 0.5
MIN_CHARACTERS = 200
MIN_LINE = 20  # shorter lines (`return self`, `pass`) are shared by files that have nothing to do with each other


class Document(NamedTuple):
    """One document: `name` is stable across machines (path below the library, `#topic` for a manual topic)."""

    name: str
    text: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents in order of name, split by document into train and held-out.

    Attributes:
      train: documents that the embedded language model may learn from.
      held_out: documents it never sees (about `HELD_OUT_FRACTION` of the names, by hash of the name).
      dropped: names left out as near-duplicates of a document before them.
      digest: sha256 over every kept document's name and content.
    """

    train: tuple[Document, ...]
    held_out: tuple[Document, ...]
    dropped: tuple[str, ...]
    digest: str

    def listing(self) -> list[dict[str, str | int]]:
        """One record a kept document: name, split, bytes, sha256; in order of name."""
        return [
            {"name": d.name, "split": split, "bytes": len(d.text.encode()), "sha256": _sha256(d.text)}
            for split, docs in (("train", self.train), ("held_out", self.held_out))
            for d in docs
        ]


def standard_library(root: str | None = None) -> Corpus:
    """Reads the corpus from `root` (default: the running interpreter's standard library).

    Raises:
      FileNotFoundError: no library there, or one without source text (a zipped or frozen Python).
    """
    folder = pathlib.Path(root or sysconfig.get_paths()["stdlib"])
    documents = [*_source_files(folder), *_manual_topics(folder)]
    if not documents:
        raise FileNotFoundError(f"no Python source text under {folder}: source.root must name a standard library's folder")
    return split_corpus(documents)


def split_corpus(documents: Iterable[Document]) -> Corpus:
    """Drops near-duplicates and splits by document; the split depends on a document's name alone."""
    kept, dropped = drop_near_duplicates(sorted(documents))
    digest = hashlib.sha256("".join(f"{d.name}\0{_sha256(d.text)}\n" for d in kept).encode()).hexdigest()
    held_out = tuple(d for d in kept if is_held_out(d.name))
    train = tuple(d for d in kept if not is_held_out(d.name))
    return Corpus(train=train, held_out=held_out, dropped=tuple(dropped), digest=digest)


def is_held_out(name: str) -> bool:
    """Whether a document of this name belongs to the held-out split."""
    return int(_sha256(name)[:8], 16) < HELD_OUT_FRACTION * 2**32


def drop_near_duplicates(documents: Sequence[Document]) -> tuple[list[Document], list[str]]:
    """Keeps documents in order; drops one if at least half of its distinct long lines stand in those kept before it.

    Returns:
      (kept documents, names of the dropped).
    """
    seen: set[str] = set()
    kept: list[Document] = []
    dropped: list[str] = []
    for document in documents:
        lines = {line.strip() for line in document.text.splitlines() if len(line.strip()) >= MIN_LINE}
        if lines and len(lines & seen) >= NEAR_DUPLICATE_SHARE * len(lines):
            dropped.append(document.name)
            continue
        kept.append(document)
        seen |= lines
    return kept, dropped


def _source_files(folder: pathlib.Path) -> list[Document]:
    paths = [*folder.glob("*.py"), *(p for package in PACKAGES for p in (folder / package).rglob("*.py"))]
    documents = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name in EXCLUDED_FILES or name.startswith(EXCLUDED_PREFIXES) or set(name.split("/")) & set(EXCLUDED_FOLDERS):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) >= MIN_CHARACTERS:
            documents.append(Document(name, text))
    return documents


def _manual_topics(folder: pathlib.Path) -> list[Document]:
    """The reference-manual topics, read as literals from the file's syntax tree (nothing is imported or run)."""
    path = folder / TOPICS_FILE
    if not path.is_file():
        return []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            return [Document(f"{TOPICS_FILE}#{k}", v) for k, v in topics.items() if len(v) >= MIN_CHARACTERS]
    return []


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
