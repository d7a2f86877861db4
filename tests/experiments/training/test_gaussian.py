"""The null that is trained: a run on Gaussian rows, and what the stage `stability` makes of it."""

import numpy as np
import pytest
from etils import epath

from configs import quickstart
from experiments import registry
from experiments.data import dictionary_list, sources
from experiments.reappearance import null_models
from storage import files, tables
from tests.experiments.tasks import run_stage, task
from tests.experiments.training.test_train_stage import stores as stores  # a fixture


def test_saes_on_gaussian_rows_are_trained_as_the_others_and_stand_beside_them(stores, tmp_path):
    c = quickstart.get_config("tiny")
    c.sae.n_features, c.sae.k, c.seeds, c.runs.gaussian.seeds = 32, 3, (3,), (2,)
    c.stages = ("activations", "train", "gaussian", "stability")
    c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 6400, 64, 10, 50
    c.train.shuffle_block, c.train.shuffle_window, c.train.snapshots, c.train.eval_rows = 16, 512, 3, 600
    workdir = epath.Path(tmp_path)
    (tmp_path / "activations").symlink_to(stores)
    run_stage("train", c, workdir)
    outputs = run_stage("train", c, workdir, run="gaussian")
    assert all(p.exists() and "gaussian" in p.parts for p in outputs)
    null = dictionary_list.load(workdir / "gaussian" / "train" / "dictionaries.json")
    own = dictionary_list.load(workdir / "train" / "dictionaries.json")
    assert len(null.seeds) == 2 and null.sizes == (32, 32) and null.training["tokens"] == own.training["tokens"]
    start = [of.snapshot(of.snapshots[0][1]).w_dec_FD[:2] for of in (null, own)]
    assert (start[0] == start[1]).all()  # the same initialisations
    of = task("stability", c, workdir)
    rows, acts = sources.gaussian_rows(of), sources.evaluation_rows(of)
    np.testing.assert_allclose(np.cov(rows.T), np.cov(acts.T), atol=0.25 * np.cov(acts.T).max())
    run_stage("stability", c, workdir)
    summary = files.read_json(workdir / "stability" / "summary.json")
    assert summary["null_models"][null_models.GAUSSIAN]["p"] <= summary["mean_p_live"]["null"]
    curve = {r["what"] for r in tables.read_records(workdir / "stability" / "theta_curve.parquet")}
    assert null_models.GAUSSIAN in curve and "measured" in curve


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"runs.gaussian.seeds": (1,)}, r"config.runs.gaussian: config.seeds=\(1,\): stability compares at least 2 seeds"),
        (
            {"stability.dictionaries": "list.json"},
            r"config.stages=\(.*'gaussian'.*\): SAEs from elsewhere have no null trained as they were",
        ),
    ],
)
def test_nulls_that_cannot_be_are_refused(changes, says):
    c = quickstart.get_config()
    c.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=says):
        registry.validated(c)
