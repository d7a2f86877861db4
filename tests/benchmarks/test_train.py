"""The benchmark of training steps: what it computes from times, and that its own contestant trains."""

import json
import subprocess
import sys

import pytest

from benchmarks import contestants, train
from benchmarks.train import OURS, PEAK, Shape

SHAPE = Shape(width=16, features=32, batch=8, k=2, seeds=3)


def test_rows_are_worked_out_from_the_times():
    times = {
        PEAK: {"median": 2.0, "least": 2.0, "greatest": 2.0, "peak": 0},
        OURS: {"median": 0.5, "least": 0.4, "greatest": 0.6, "peak": 3e9},
        "other": {"median": 1.0, "least": 1.0, "greatest": 1.0, "peak": 1e9},
    }
    ours, other = train.rows(SHAPE, times)
    assert (ours["contestant"], other["contestant"]) == (OURS, "other") and ours["seed_tokens_a_second"] == 3 * 8 / 0.5
    flops = 3 * 2 * 8 * 16 * (32 + 4 * 2)
    assert ours["share_of_peak"] == pytest.approx(flops / 0.5 / (contestants.MATMUL_FLOPS / 2.0))
    assert (ours["ours_is_faster_by"], other["ours_is_faster_by"], ours["memory_gb"]) == (1.0, 2.0, 3.0)


def test_what_is_not_installed_is_named():
    assert contestants.Contestant(lambda shape, steps: lambda: None, ("json", "no_such_package")).missing() == "no_such_package"
    assert contestants.ALL[OURS].missing() is None and contestants.ALL[PEAK].missing() is None


def test_our_contestant_answers_in_a_process_of_its_own():
    command = [sys.executable, "-m", "benchmarks.train", f"--contestant={OURS}", f"--shapes={SHAPE}", "--warm_up=1", "--steps=2"]
    said = subprocess.run(command, input="go\ngo\nend\n", capture_output=True, text=True, check=True).stdout.splitlines()
    warm, first, second, last = (json.loads(line) for line in said)
    assert warm == {} and first["seconds"] > 0 and second["seconds"] > 0 and last["peak"] > 10**8
