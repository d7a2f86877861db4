import os
import pathlib
import subprocess
import sys

from configs import quickstart
from launch import describe

ROOT = pathlib.Path(__file__).parents[2]


def test_the_config_reference_is_current():
    """docs/config.md is what `python -m launch.describe` prints."""
    assert (ROOT / "docs" / "config.md").read_text() == describe.page(), "python -m launch.describe > docs/config.md"


def test_describe_says_value_default_bounds_and_meaning():
    c = quickstart.get_config()
    c.stability.theta = 0.8
    text = describe.text(c)
    assert (
        "* stability.theta = 0.8 (default 0.7): cosine from which a feature counts as the same (the paper's) [a cosine in (0, 1]]" in text
    )
    assert "  stability.epsilon = 0.05: " in text and "synthetic.width" not in text
    assert "runs.gaussian = {" in text


def test_describe_from_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "launch.main", "--config=configs/quickstart.py:tiny", "--config.sae.k=3", "--describe"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "* sae.k = 3 (default 16)" in done.stdout


def test_the_reference_in_a_terminal_without_our_letters():
    done = subprocess.run(
        [sys.executable, "-m", "launch.describe"], cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "# Config reference" in done.stdout, done.stderr
