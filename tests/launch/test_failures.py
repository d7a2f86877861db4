"""What an exception says: one line, never a library's words alone, and the disk by its name."""

import errno
import subprocess

import numpy as np
import pytest

from launch import failures
from storage import files


def raised(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def ours():
    raise ValueError("config.sae.k=0: must be above 0\n  really")


def theirs():
    """Python's own, in our frame."""
    return [1, 2][:: int("0")]


def test_a_line_is_one_line():
    assert failures.line(raised(ours), "w") == "config.sae.k=0: must be above 0 really"


@pytest.mark.parametrize(
    "call",
    [theirs, lambda: int("seven"), lambda: np.zeros(3).reshape(2, 2), lambda: b"\xff".decode(), lambda: next(iter([]))],
    ids=["slice", "int", "numpy", "decode", "next"],
)
def test_words_of_python_and_numpy_are_called_unexpected(call, tmp_path):
    error = raised(call)
    assert failures.line(error, str(tmp_path)).startswith(f"unexpected {type(error).__name__}, please report it with test_failures.py:")
    (tmp_path / "error.log").write_text("")
    assert "please report it with error.log" in failures.line(error, str(tmp_path))


def test_a_file_that_is_not_there_is_named_by_the_system(tmp_path):
    said = failures.line(raised((tmp_path / "x.npy").read_bytes), "w")
    assert "x.npy" in said and not said.startswith("unexpected")


def test_a_value_error_that_a_library_raises_is_not_ours():
    import json

    assert failures.line(raised(lambda: json.loads("{")), "w").startswith("unexpected JSONDecodeError")


@pytest.mark.parametrize(
    ("number", "why"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the disk is read-only"), (errno.EDQUOT, "the quota is used up")]
)
def test_a_disk_is_said_with_path_and_space(number, why, tmp_path, monkeypatch):
    import pathlib

    def fail(self, data):
        raise OSError(number, "No space left on device" if number == errno.ENOSPC else "x")

    monkeypatch.setattr(pathlib.Path, "write_bytes", fail)
    monkeypatch.setattr(type(files.epath.Path(tmp_path)), "write_bytes", fail)
    said = failures.line(raised(lambda: files.write_bytes(tmp_path / "features.parquet", b"x")), str(tmp_path))
    assert said.startswith(f"{tmp_path}/features.parquet cannot be written: {why}, ") and "MiB free there" in said


def test_a_library_that_writes_for_itself_is_understood(tmp_path):
    error = RuntimeError("RESOURCE_EXHAUSTED: write failed [OS error 28: No space left on device]")
    said = failures.line(error, str(tmp_path))
    assert said.startswith(f"{tmp_path} cannot be written: no space left on device") and "MiB free" in said


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount; the errors of full and read-only disks are simulated in the tests above")
    yield place
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_and_a_read_only_disk_give_one_line(small_disk):
    from tests.launch.test_end_to_end import launch

    full = launch(small_disk / "w", "--stages=activations")
    assert full.returncode == 1 and "Traceback" not in full.stderr
    (said,) = [line for line in full.stderr.splitlines() if line.startswith("error:")]
    assert "cannot be written: the disk is full" in said and str(small_disk) in said
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    fixed = launch(small_disk / "w", "--stages=activations")
    assert fixed.returncode == 1 and fixed.stderr.strip().count("\n") == 0
    assert fixed.stderr.startswith("error: --workdir=") and "the disk is read-only" in fixed.stderr


def test_a_foreseen_error_keeps_its_words_whatever_came_before():
    def call():
        try:
            raise OSError(errno.EROFS, "Read-only file system")
        except OSError:
            raise ValueError("config.lm.path='a': no such model") from None

    assert failures.line(raised(call), "w") == "config.lm.path='a': no such model"


def test_no_memory_is_said_with_a_remedy():
    assert failures.line(raised(lambda: np.zeros(2**50)), "w").startswith("out of memory (Unable to allocate")


def test_a_system_error_without_a_file_is_not_foreseen():
    import gzip

    assert failures.line(raised(lambda: gzip.decompress(b"hello")), "w").startswith("unexpected BadGzipFile")


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.train.tokens=abc", "flag --config.train.tokens=abc: 'abc' is no whole number"),
        ("--config.train.lr=x", "flag --config.train.lr=x: 'x' is no number"),
        ("--overwrite=maybe", "flag --overwrite=maybe: true or false, not 'maybe'"),
    ],
)
def test_a_wrong_flag_is_said_in_our_words(flag, says):
    from launch.command_line import _one_line

    python = {
        "--config.train.tokens=abc": "flag --config.train.tokens=abc: invalid literal for int() with base 10: 'abc'",
        "--config.train.lr=x": "flag --config.train.lr=x: could not convert string to float: 'x'",
        "--overwrite=maybe": "flag --overwrite=maybe: ('Non-boolean argument to boolean flag', 'maybe')",
    }[flag]
    assert _one_line(ValueError(python)) == says
