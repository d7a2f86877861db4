"""What a stage reads of the config it declares: another value makes it run again."""

import importlib
import json

import pytest
from etils import epath

from launch import runner, signals
from launch.config import validated
from launch.stages import STAGES
from saes.formats import saelens
from tests.launch import field_reads
from tests.launch.dictionaries import listed, unit


def undeclared(config, workdir):
    """Runs a study; by stage, what it read and did not declare."""
    signals.reset()
    with field_reads.recording() as reads:
        runner.run_stages(config, validated(config), epath.Path(workdir), [], False)
    assert reads.keys() == set(config.stages) and all(reads[name] for name in reads if name != "tokenizer")
    return field_reads.missing(reads)


def comparison(tmp_path, rng):
    for seed, dictionary in enumerate(listed([unit(24, 8, rng=rng) for _ in range(4)]).dictionaries):
        saelens.save(tmp_path / f"seed-{seed}", dictionary, {"model_name": "m", "hook_name": "blocks.1.hook_resid_post"})
    config = importlib.import_module("configs.compare").get_config()
    config.saes = str(tmp_path)
    config.stages = ("collect", "stability", "sensitivity")
    return config


def test_a_comparison_declares_what_it_reads(tmp_path, monkeypatch):
    import numpy as np

    config = comparison(tmp_path / "saes", np.random.default_rng(0))
    assert undeclared(config, tmp_path / "w") == {}
    # And what is not declared would be found.
    stage = STAGES["stability"]
    monkeypatch.setattr(field_reads, "STAGES", STAGES | {"stability": stage.__class__("stability", ("stability.epsilon",))})
    missed = undeclared(comparison(tmp_path / "others", np.random.default_rng(1)), tmp_path / "x")["stability"]
    assert "stability.theta" in missed and "stability.epsilon" not in missed


def test_verdicts_depend_on_epsilon():
    assert field_reads.declared(STAGES["verdicts"], "stability.epsilon")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["quickstart", "synthetic", "synthetic_controls", "synthetic_causes", "seed_factorial", "pool", "pretrain_stdlib"]
)
def test_every_stage_declares_what_it_reads(tmp_path, name):
    config = importlib.import_module(f"configs.{name}").get_config("tiny")
    missed = undeclared(config, tmp_path / "w")
    assert missed == {}, json.dumps(missed, indent=1)
