"""The text of the Python standard library as a corpus of documents.

Real human text that every machine with Python has: the source files of a fixed list of modules and packages, and the
reference-manual topics that `pydoc` carries.  Test suites, generated tables and packages that some systems strip
(`tkinter`, `idlelib`, `test`) or that newer Pythons removed (`distutils`, `lib2to3`) stay out, so that two machines with
the same Python version read the same corpus; `Corpus.digest` says whether they did.
"""

import ast
import pathlib
import sysconfig

from activations.text.corpus import Corpus, Document, split_corpus

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
MIN_CHARACTERS = 200


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
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        topics = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)]
    except (UnicodeDecodeError, SyntaxError, ValueError) as error:
        raise ValueError(f"config.source.root: {path} is damaged: name the folder of a whole standard library") from error
    texts = topics[0] if topics else {}
    if not all(isinstance(text, str) for pair in texts.items() for text in pair):
        raise ValueError(f"config.source.root: {path} holds something else than texts: name the folder of a whole standard library")
    return [Document(f"{TOPICS_FILE}#{k}", v) for k, v in texts.items() if len(v) >= MIN_CHARACTERS]


class StandardLibrary:
    """The corpus as a text source; `root` as in `standard_library`."""

    description = "Python standard library"  # of the interpreter that runs, its manual topics included

    def __init__(self, root: str | None = None):
        self._root = root

    def digest(self) -> str:
        return self.read().digest

    def read(self) -> Corpus:
        return standard_library(self._root)
