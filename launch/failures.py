"""What an exception says to a user: one line, and whether it was foreseen.

Foreseen is what this code raises itself, and what the system says of a file.  A ValueError that NumPy or Python raised in the middle of a
computation is not: its words would name neither file nor field.
"""

import dis
import os
import pathlib
import traceback
from types import TracebackType

from storage import files

_OURS = pathlib.Path(__file__).resolve().parents[1]
_DISK = ("No space left on device", "Disk quota exceeded", "Read-only file system")  # as libraries that write for themselves pass it on


def line(error: Exception, workdir: str) -> str:
    """One line that says what is wrong.

    Args:
      workdir: named where the error is of a disk and does not say of which.
    """
    if not (foreseen(error) and isinstance(error, ValueError)) and (reason := _of_disk(error)) is not None:
        return reason if "cannot be written" in reason else files.cannot_write(workdir, OSError(0, reason))
    text = " ".join(str(error).split())
    if foreseen(error):
        return text
    if isinstance(error, MemoryError):
        return f"out of memory ({text}): lower the numbers of tokens, rows, features or seeds, or use a larger machine"
    where = traceback.extract_tb(error.__traceback__)[-1]
    log = "error.log" if os.path.isfile(os.path.join(workdir, "error.log")) else f"{os.path.basename(where.filename)}:{where.lineno}"
    return f"unexpected {type(error).__name__}, please report it with {log}: {text}"


def foreseen(error: Exception) -> bool:
    """Whether the error's words were chosen for whoever runs the program."""
    if isinstance(error, OSError):
        return error.filename is not None or _raised_by_us(error.__traceback__)
    return isinstance(error, ValueError) and not isinstance(error, UnicodeError) and _raised_by_us(error.__traceback__)


def _raised_by_us(trace: TracebackType | None) -> bool:
    """Whether the last frame is of this repository and stands at a `raise`."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    operation = dis.opname[code.co_code[trace.tb_lasti]]
    return _OURS in pathlib.Path(code.co_filename).resolve().parents and operation in ("RAISE_VARARGS", "RERAISE")


def _of_disk(error: BaseException | None) -> str | None:
    """Why something could not be written, if the error or what caused it is about a disk."""
    while error is not None:
        text = str(error)
        if "cannot be written" in text:
            return " ".join(text.split())
        for reason in _DISK:
            if reason in text:
                return reason[0].lower() + reason[1:]
        error = error.__cause__
    return None
