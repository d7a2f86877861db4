import json

import jax.numpy as jnp
import numpy as np

from runtime.metrics import MetricsWriter
from storage.files import read_json_lines


def test_resuming_cuts_back_to_the_checkpoint_and_what_was_half_written(tmp_path):
    path = tmp_path / "m.jsonl"
    first = MetricsWriter(path, 0)
    for step in (1, 2, 3):
        first.write(step, loss=1.0 / step)
    whole = path.read_text()
    with path.open("a") as f:
        f.write('{"step": 4, "lo')
    second = MetricsWriter(path, 2)
    second.write(3, loss=1.0 / 3)
    assert path.read_text() == whole
    assert [m["step"] for m in read_json_lines(path)] == [1, 2, 3]


def test_a_fresh_start_forgets_everything(tmp_path):
    MetricsWriter(tmp_path / "m.jsonl", 0).write(1, loss=1.0)
    MetricsWriter(tmp_path / "m.jsonl", 0)
    assert read_json_lines(tmp_path / "m.jsonl") == []


def test_arrays_are_cut_to_the_real_seeds_and_nan_is_null(tmp_path):
    MetricsWriter(tmp_path / "m.jsonl", 0, width=2).write(1, loss=jnp.array([1.0, np.nan, 3.0]), step_size=np.float32(0.5))
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 1, "loss": [1.0, None], "step_size": 0.5}
