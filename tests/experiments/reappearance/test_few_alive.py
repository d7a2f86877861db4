"""A comparison in which no feature is alive, or hardly any: a report that says so."""

import json

import numpy as np
import pytest
from etils import epath

from saes.dictionary import Dictionary
from saes.formats import saelens
from tests.experiments.dictionaries import unit
from tests.launch.test_end_to_end import launch

F, D = 48, 16
ALIVE = {"none": lambda s: 0, "one feature": lambda s: 1, "one feature of one SAE": lambda s: s == 0, "one SAE": lambda s: F * (s == 0)}


def compared(tmp_path, alive, *flags):
    rng = np.random.default_rng(0)
    for s in range(4):
        w, b = unit(F, D, rng=rng), np.where(np.arange(F) < alive(s), 0.0, -1e4).astype(np.float32)
        saelens.save(
            epath.Path(tmp_path / "sae" / f"seed-{s}"), Dictionary(w.T.copy(), b, w, np.zeros(D, np.float32), architecture="standard"), {}
        )
    np.save(tmp_path / "x.npy", (np.maximum(rng.normal(size=(2000, 24)) - 1, 0) @ rng.normal(size=(24, D))).astype(np.float32))
    done = launch(
        tmp_path / "run", f"--config.saes={tmp_path / 'sae'}", f"--config.source.activations={tmp_path / 'x.npy'}", *flags, config="configs/compare.py"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "error" not in done.stderr
    return (
        done.stdout,
        json.loads((tmp_path / "run" / "summary.json").read_text())["stability"],
        (tmp_path / "run" / "report" / "index.html").read_text(),
    )


def test_no_feature_is_alive(tmp_path):
    said, summary, page = compared(tmp_path, ALIVE["none"], "--config.stages=('collect','stability','report')")
    assert "no feature is alive" in said and "No feature is alive" in page
    assert summary["mean_p_live"]["value"] is None and summary["dead_share"]["value"] == 1.0
    assert summary["live_stable_features"]["value"] == summary["live_unstable_features"]["value"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", ALIVE)
def test_every_stage_where_few_are_alive(tmp_path, case):
    _, summary, page = compared(tmp_path, ALIVE[case])
    assert ("No feature is alive" in page) == (case == "none") == (summary["mean_p_live"]["value"] is None)
