"""Which files of a folder the program wrote: `written.txt`, a line for every file, added before the file itself.

Only files listed there are ever removed.  Whatever else lies in the folder is the user's, and stays.
"""

import contextlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator

import jax
from etils import epath

_STEM = "written"
_PARTIAL = ".partial"
_STEP, _UNFINISHED = re.compile(r"\d+"), re.compile(r"\d+\.orbax-checkpoint-tmp.*")  # what orbax calls steps
_STEP_HOLDS = "_CHECKPOINT_METADATA"  # which orbax writes into each
_recording: list["_Ledger"] = []


class _Ledger:
    """Appends names to one file; several hosts have one each, since appends from several machines may be lost."""

    def __init__(self, folder: epath.Path):
        self.folder = folder
        index = jax.process_index()
        self.path = folder / (f"{_STEM}.txt" if index == 0 else f"{_STEM}-{index}.txt")
        self._names = set(_read(self.path))

    def add(self, name: str) -> None:
        if name in self._names:
            return
        whole = not self.path.exists() or self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as handle:  # a line that a kill cut stays alone
            handle.write(("" if whole else "\n") + _line(name))
        self._names.add(name)


@contextlib.contextmanager
def recording(folder: epath.PathLike) -> Iterator[None]:
    """While it lasts every file that `storage.files` writes below `folder` is listed in the folder's `written.txt`. Makes the folder."""
    folder = _absolute(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _recording.append(_Ledger(folder))
    try:
        yield
    finally:
        _recording.pop()


def note(path: epath.PathLike) -> None:
    """Lists a file that is about to be written, where it lies below a folder that is being recorded."""
    _add(_absolute(path), "")


def note_checkpoints(folder: epath.PathLike) -> None:
    """Lists a folder in which the checkpoint library names its own files: the steps in it are the program's."""
    _add(_absolute(folder), "/")


def foreign_steps(folder: epath.PathLike) -> list[epath.Path]:
    """What the checkpoint library would take for steps in a folder and has not written."""
    folder = epath.Path(folder)
    return [path for path in sorted(folder.iterdir()) if _STEP.fullmatch(path.name) and not (path / _STEP_HOLDS).exists()]


def written(folder: epath.PathLike) -> bool:
    """Whether a folder holds a list of what the program wrote there."""
    return bool(lists(epath.Path(folder)))


def size(folder: epath.PathLike) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().length for path in _files_below(epath.Path(folder)))


def remove(folder: epath.PathLike, also: Iterable[str] = ()) -> list[str]:
    """Removes what the program wrote below a folder, and folders that are empty then; returns the names of the files that stay.

    Args:
      also: files known to be the program's by another record, relative to the folder.
    """
    folder = epath.Path(folder)
    if not folder.is_dir() or os.path.islink(folder):
        return []
    ledgers = lists(folder)
    listed = {name for ledger in ledgers for name in _read(ledger)} | set(also)
    for name in sorted(listed):
        if not _inside(folder, name):
            continue
        if name.endswith("/"):
            remove_checkpoints(folder / name)
        else:
            _unlink(folder / name)
            _unlink(folder / (name + _PARTIAL))
    left = sorted({str(path.relative_to(folder)) for path in _files_below(folder)} - {ledger.name for ledger in ledgers})
    for ledger in ledgers:  # last, so that a kill half-way leaves the list of the rest
        _unlink(ledger)
    _remove_empty(folder)
    return left


def discard(folder: epath.PathLike) -> None:
    """Removes what the program wrote below a folder, where that lies in one that is being recorded."""
    folder = _absolute(folder)
    for ledger in _recording:
        with contextlib.suppress(ValueError):
            below = f"{folder.relative_to(ledger.folder)}/"
            for name in _read(ledger.path):
                if name.startswith(below) and _inside(ledger.folder, name):
                    _unlink(ledger.folder / name)
    if folder.is_dir():
        _remove_empty(folder)


def remove_checkpoints(folder: epath.PathLike) -> None:
    """Removes the steps of a checkpoint folder, finished or not, and the folder if nothing else is in it."""
    folder = epath.Path(folder)
    if not folder.is_dir() or os.path.islink(folder):
        return
    for path in folder.iterdir():
        step = _UNFINISHED.fullmatch(path.name) or (_STEP.fullmatch(path.name) and (path / _STEP_HOLDS).exists())
        if step and path.is_dir() and not os.path.islink(path):
            path.rmtree()
    _remove_empty(folder)


def _absolute(path: epath.PathLike) -> epath.Path:
    """One spelling of a place on this machine, so that a relative workdir is recorded too."""
    return epath.Path(path) if "://" in str(path) else epath.Path(os.path.abspath(path))


def _add(path: epath.Path, ending: str) -> None:
    for ledger in _recording:
        with contextlib.suppress(ValueError):  # not below that folder
            ledger.add(f"{path.relative_to(ledger.folder)}{ending}")


def _line(name: str) -> str:
    """A checksum before the name: a damaged line names nobody's file."""
    return f"{zlib.crc32(name.encode()):08x} {name}\n"


def _read(ledger: epath.Path) -> list[str]:
    if not ledger.exists():
        return []
    lines = ledger.read_bytes().decode(errors="replace").split("\n")
    return [name for line in lines if line and _line(name := line[9:]) == f"{line}\n"]


def lists(folder: epath.PathLike) -> list[epath.Path]:
    """The files that list what was written, one a host. A file of that name without one good line is somebody else's."""
    return sorted(p for p in epath.Path(folder).glob(f"{_STEM}*.txt") if re.fullmatch(_STEM + r"(-\d+)?\.txt", p.name) and _read(p))


def _inside(folder: epath.Path, name: str) -> bool:
    """Whether a name stays in the folder: neither by dots nor through a link to elsewhere."""
    if os.path.isabs(name) or {"", ".", ".."} & set(name.removesuffix("/").split("/")):
        return False
    parent = os.path.dirname(os.path.join(os.path.abspath(folder), name.rstrip("/")))
    return not os.path.exists(parent) or (os.path.realpath(parent) + os.sep).startswith(os.path.realpath(folder) + os.sep)


def _unlink(path: epath.Path) -> None:
    """A file or a link; a folder that has taken the file's place is somebody else's."""
    if path.is_dir() and not os.path.islink(path):
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def _remove_empty(folder: epath.Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not os.path.islink(path):
            _remove_empty(path)
    if not os.path.islink(folder) and not any(True for _ in folder.iterdir()):
        folder.rmdir()


def _files_below(folder: epath.Path) -> list[epath.Path]:
    """Links count as files: what they point to is not the folder's."""
    return [q for p in folder.iterdir() for q in (_files_below(p) if p.is_dir() and not os.path.islink(p) else [p])]
