"""What `--plan` counts, against what is counted by hand and what a run leaves on disk."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from activations.language_model import cost, parameters
from configs import paper_gpt2, quickstart, synthetic
from launch import costs as stage_costs
from launch import plan
from launch.config import validated
from launch.stages import activations

ROOT = pathlib.Path(__file__).parents[2]
H100 = plan.hardware("h100", "float32")


def costs(config, of=H100):
    return {c.stage: c for c in stage_costs.of_stages(validated(config), of)}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_papers_cell():
    found = costs(paper_gpt2.get_config())
    d, f, s, tokens = 768, 2**14, 96, 1e9
    assert found["train"].tokens == pytest.approx(s * tokens, rel=1e-3)
    assert found["train"].flops == pytest.approx(10 * d * f * s * tokens, rel=1e-3)
    # Eight layers of 12 D² weights, and attention over 256 positions.
    assert found["activations"].flops == pytest.approx((1.001e9 * 256 / 255) * 8 * (24 * d * d + 4 * 256 * d), rel=1e-3)
    assert found["activations"].disk == pytest.approx(1.001e9 * (2 * d + 12), rel=1e-3)
    # 4,560 pairs, those of nulls and of dictionaries along training among 16 SAEs, and codes.
    pairs = 4560 + (5 + 3) * 120 + 11 * 120
    codes = (96 * 1e6 + 11 * 16 * 65_536) * 4 * d * f
    assert found["stability"].flops == pytest.approx(pairs * 2 * d * f * f + codes, rel=1e-6)
    assert "33 SAEs" in found["train"].note


def test_published_shapes_have_the_published_numbers_of_parameters():
    """In millions, as their cards give them (Pythia: without embeddings)."""
    from activations.language_model import checkpoint

    load = lambda name: checkpoint.load_config(ROOT / "models" / "configs" / name)
    assert parameters.count(load("gpt2")) == 124_439_808
    pythia = load("pythia-160m")
    assert parameters.count(pythia) == 162_322_944 and parameters.count(pythia) - 2 * 50304 * 768 == 85_056_000
    assert parameters.count(load("gemma-2-2b")) == 2_614_341_888
    assert parameters.count(load("qwen3-0.6b")) == 596_049_920


def test_time_falls_with_devices_and_rises_with_tokens():
    one, eight = plan.hardware("tpu-v5e", "float32"), plan.hardware("tpu-v5e:8", "float32")
    config = paper_gpt2.get_config()
    a, b = costs(config, one)["train"], costs(config, eight)["train"]
    assert (plan.seconds(a, one) - stage_costs.STARTING_SECONDS) / (plan.seconds(b, eight) - stage_costs.STARTING_SECONDS) == pytest.approx(
        8
    )
    config.train.tokens *= 2
    assert costs(config, one)["train"].flops == pytest.approx(2 * a.flops, rel=1e-3)


def test_bytes_on_disk_are_those_of_a_run(tmp_path):
    config = quickstart.get_config("tiny")
    config.source.shard_contexts = 64
    settings = validated(config)
    outputs = activations.run(settings, epath.Path(tmp_path))
    shards = sum(p.stat().length for p in outputs if "shard" in p.name)
    assert shards == pytest.approx(costs(config, plan.hardware("", "float32"))["activations"].disk, rel=0.06)  # at least so many rows


def test_a_users_arrays_are_counted(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((1000, 24), np.float32))
    config = quickstart.get_config("tiny")
    config.source.activations = str(tmp_path / "x.npy")
    found = costs(config)
    assert found["activations"].tokens == 1000 and found["activations"].flops == 0 and found["train"].flops > 0


@pytest.mark.parametrize("flags", [["--plan"], pytest.param(["--plan_on=h100"], marks=pytest.mark.slow)])
def test_it_is_printed_and_nothing_runs(tmp_path, flags):
    run = [sys.executable, "-m", "launch.main", "--config=configs/paper_gpt2.py", *flags]
    done = subprocess.run(run, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("96 topk SAEs", "activations", "train", "stability", "on disk", "memory", "time", "all"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        pytest.param(["--config=configs/paper_gpt2.py", "--plan_on=abacus"], "--plan_on=abacus: one of a100", marks=pytest.mark.slow),
        (["--config=configs/paper_gpt2.py", "--plan_on=h100:²"], "--plan_on=h100:²: one of"),
        pytest.param(
            ["--config=configs/paper_gpt2.py:layer=12", "--plan"],
            "config.source.layer=12: the model has layers 0 to 11",
            marks=pytest.mark.slow,
        ),
        (["--config=configs/synthetic.py", "--plan"], "--plan: counts studies of activations"),
        pytest.param(
            ["--config=configs/paper_gpt2.py", "--config.sae.n_features=100000000", "--plan_on=h100"], "need about", marks=pytest.mark.slow
        ),
        pytest.param(["--config=configs/quickstart.py"], "--workdir is missing", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_planned(flags, says):
    done = subprocess.run([sys.executable, "-m", "launch.main", *flags], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


def test_other_kinds_of_study_are_refused():
    with pytest.raises(ValueError, match="of another kind"):
        stage_costs.of_stages(validated(synthetic.get_config()), H100)


def test_batches_that_do_not_divide(monkeypatch):
    config = quickstart.get_config("tiny")
    config.source.batch_size = 32
    settings = validated(config)
    with pytest.raises(ValueError, match="config.source.batch_size=32: must be a multiple of the 3 parts"):
        activations.batch_size(settings, stage_costs.language_model(settings), 3)
    settings = dataclasses.replace(settings, source=dataclasses.replace(settings.source, batch_size=0))
    with pytest.raises(ValueError, match="config.source.shard_contexts=512: must be a multiple of the 3 parts"):
        activations.batch_size(settings, stage_costs.language_model(settings), 3)
    assert cost.context_bytes(stage_costs.language_model(settings), 64, 4) > 0
