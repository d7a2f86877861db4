"""The folder that a run owns: which are refused, who works in it, what an error leaves, and how results are replaced.

Nothing in it is removed but what a record of the program lists (`storage.ownership`).
"""

import contextlib
import fcntl
import os
import re
import tempfile
import traceback
from collections.abc import Iterable, Iterator

import jax
from etils import epath

from runtime import records
from storage import files, ownership

LOCK, ERROR_LOG = ".lock", "error.log"
_WRITTEN_IN_IT = ("config.json", "summary.json", "wall_times.jsonl")
_ERROR_TITLE = "The last error of a run of sae-stability in this folder; it goes when a run succeeds.\n\n"


class Busy(ValueError):
    """Another process runs in the workdir."""


def refuse(workdir: epath.Path, stages: Iterable[str], selection: Iterable[str], inputs: Iterable[tuple[str, str]]) -> None:
    """Raises ValueError for a workdir that is a source tree or holds others' files under names that a run writes, and for inputs inside a stage's folder.

    Args:
      stages: names of all stages there are.
      chosen: those of the config, whose folders the run may replace.
      inputs: (config field, path) of what a run reads.
    """
    here = os.path.realpath(workdir)
    for name in (".git", ".hg", "pyproject.toml", "setup.py", "__init__.py"):
        if os.path.exists(os.path.join(here, name)):
            raise ValueError(f"--workdir={workdir} holds {name}: it is a source tree; name a folder for results, such as runs/mine")
    if os.path.isdir(here):
        for entry in sorted(os.scandir(here), key=lambda entry: entry.name):
            if entry.is_dir() and os.path.exists(os.path.join(entry.path, "__init__.py")):
                raise ValueError(f"--workdir={workdir} holds the Python package {entry.name}: name a folder for results, such as runs/mine")
    marks = (records.COPIES, *(os.path.join(stage, records.NAME) for stage in stages))
    ours = any(os.path.exists(os.path.join(here, mark)) for mark in marks)
    for name in _WRITTEN_IN_IT:
        if not ours and os.path.exists(os.path.join(here, name)):
            raise ValueError(f"--workdir={workdir} holds a {name} of somebody else, which a run would replace: take another --workdir")
    selection = list(selection)
    for field, value in inputs:
        if value.startswith(("http://", "https://")):
            raise ValueError(f"config.{field}={value!r} is an address: give a folder, a file or a hub id (owner/name)")
        path = os.path.realpath(value)
        for stage in selection:
            folder = os.path.join(here, stage)
            if path == folder or path.startswith(folder + os.sep):
                raise ValueError(
                    f"config.{field}={value!r} lies in {workdir / stage}, which the stage {stage!r} owns: move it out of there"
                )
        if field in ("source.text", "source.root") and os.path.isdir(path) and (here + os.sep).startswith(path.rstrip(os.sep) + os.sep):
            raise ValueError(
                f"config.{field}={value!r} holds --workdir={workdir}, whose files would be read as text: take another --workdir"
            )


def make(workdir: epath.Path) -> None:
    """Makes the folder. Raises ValueError where it cannot be written."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0 and os.path.isdir(workdir):
            with tempfile.TemporaryFile(dir=workdir) as probe:  # a name of its own: nobody's file is touched
                probe.write(b"x")
    except OSError as error:
        reason = str(error) if error.errno is None else files.cannot_write(workdir, error)
        raise ValueError(f"--workdir={workdir}: {reason}") from error


@contextlib.contextmanager
def alone(workdir: epath.Path) -> Iterator[None]:
    """While this process works there: two in one workdir would write over each other. Only of a folder on this machine, and its first host's.

    An error leaves its traceback in `error.log`; success removes it.

    Raises:
      Busy: another process runs there.
    """
    if jax.process_index() != 0 or not os.path.isdir(workdir):
        yield
        return
    with open(os.path.join(workdir, LOCK), "a") as handle:  # whatever is in a file of that name stays
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"--workdir={workdir}: another process runs there; wait for it, or take another workdir") from error
        log = workdir / ERROR_LOG
        try:
            yield
        except records.NotOurs:  # nor is the log
            raise
        except Exception:
            with contextlib.suppress(OSError):  # a full disk has been said already
                if not log.exists() or _is_ours(log):
                    log.write_text(_ERROR_TITLE + traceback.format_exc())
            raise
        if log.exists() and _is_ours(log):
            log.unlink()


def _is_ours(log: epath.Path) -> bool:
    """Whether an error log was written by this program, not by a user's redirection."""
    result: bool = log.is_file() and log.read_bytes().startswith(_ERROR_TITLE.encode())
    return result


def set_aside(folder: epath.Path) -> epath.Path | None:
    """Moves results that are to be replaced to `<folder>.replaced-<n>` in one step; returns where, None if there were none."""
    if jax.process_index() != 0 or not folder.exists():
        return None
    number = 1
    while os.path.lexists(target := folder.with_name(f"{folder.name}.replaced-{number}")):
        number += 1
    folder.rename(target)
    return target


def put_back(folder: epath.Path, target: epath.Path | None) -> None:
    """Undoes `set_aside`, where nothing has taken its place."""
    if target is not None and not folder.exists():
        target.rename(folder)


def replaced(folder: epath.Path) -> list[epath.Path]:
    """What earlier runs set aside of a stage."""
    pattern = re.compile(re.escape(folder.name) + r"\.replaced-\d+")
    if not folder.parent.is_dir():
        return []
    return sorted(p for p in folder.parent.iterdir() if p.is_dir() and pattern.fullmatch(p.name))


def remove_replaced(folder: epath.Path, label: str) -> None:
    """Of what was set aside, removes the files that the program wrote; says what is left. Nothing where no record says that it is the program's.

    Args:
      label: of the task, as its records have it.
    """
    if jax.process_index() != 0:
        return
    for target in replaced(folder):
        names = records.files_of(target, label)
        if not names and not ownership.written(target):
            continue
        if strays := ownership.remove(target, names):
            print(f"{folder.name}: {target} keeps {len(strays)} files that are not the program's, e.g. {strays[0]}")
