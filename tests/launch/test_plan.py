"""What `--plan` counts, against what is counted by hand and what a run leaves on disk."""

import importlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from activations.language_model import cost, parameters
from configs import compare, paper_gpt2, quickstart, seed_factorial, synthetic
from experiments import registry
from experiments.data import activations
from experiments.data import costs as stage_costs
from experiments.data.seeds import Seeds
from experiments.registry import validated
from launch import plan
from synthetic.config import WorldConfig
from tests.experiments.tasks import run_stage, task

ROOT = pathlib.Path(__file__).parents[2]
H100 = plan.hardware("h100", "float32")


def costs(config, of=H100):
    found, _ = plan.of_tasks(validated(config), of)
    return {c.stage: c for c in found}


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
    outputs = run_stage("activations", config, tmp_path)
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
        (["--config=configs/pretrain_stdlib.py", "--plan"], "--plan: counts studies that train SAEs; this config is of another kind"),
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
    config = compare.get_config()
    config.saes = "/a"
    with pytest.raises(ValueError, match="of another kind"):
        plan.text(validated(config), H100)


def test_a_world_is_counted():
    config = synthetic.get_config()
    settings, found = validated(config), costs(config)
    seeds, steps = len(settings[Seeds].list), config.train.tokens // config.train.batch_size
    assert found["train"].tokens == seeds * steps * config.train.batch_size
    assert found["train"].flops == pytest.approx(10 * settings[WorldConfig].width * config.sae.n_features * found["train"].tokens)
    assert settings[WorldConfig].subject in plan.text(settings, H100)


def test_runs_are_counted_by_their_own_settings():
    config = quickstart.get_config()
    found = costs(config)
    assert found["gaussian/train"].tokens == found["train"].tokens / 2  # 4 SAEs of 8
    config.runs.gaussian.train.tokens = config.train.tokens // 4
    assert costs(config)["gaussian/train"].tokens == pytest.approx(found["train"].tokens / 8, rel=1e-2)
    factorial = costs(seed_factorial.get_config())
    assert len([label for label in factorial if label.startswith("factorial/")]) == 6 and "train" not in factorial


@pytest.mark.parametrize(
    "study",
    [
        "quickstart:tiny",
        "seed_factorial",
        "pool",
        "pool:synthetic",
        "synthetic_controls",
        "synthetic_causes",
        "synthetic_phase",
        "gemma2_2b",
    ],
)
def test_every_task_is_planned_or_said_not_to_be(study):
    name, _, arg = study.partition(":")
    settings = validated(importlib.import_module(f"configs.{name}").get_config(arg))
    found, unplanned = plan.of_tasks(settings, H100)
    labels = [task.label for task in registry.tasks(settings, epath.Path())]
    assert sorted([*(cost.stage for cost in found), *unplanned]) == sorted(labels)
    assert all(plan.seconds(cost, H100) > 0 and cost.disk >= 0 for cost in found)
    if not found:
        with pytest.raises(ValueError, match=f"no stage of this config says what it takes .{', '.join(unplanned)}"):
            plan.text(settings, H100)
        return
    lines = plan.text(settings, H100).splitlines()
    assert f"not planned: {', '.join(unplanned)}" in lines and "report" in unplanned
    assert lines[-1].startswith("power") == ("report" in settings.stages and not {"stability", "pooled"}.isdisjoint(settings.stages))
    assert any("C6" in line for line in lines) == (name == "pool")


def test_batches_that_do_not_divide():
    config = quickstart.get_config("tiny")
    config.source.batch_size = 32
    model = stage_costs.language_model(validated(config))
    with pytest.raises(ValueError, match="config.source.batch_size=32: must be a multiple of the 3 parts"):
        activations.batch_size(task("activations", config), model, 3)
    config.source.batch_size = 0
    with pytest.raises(ValueError, match="config.source.shard_contexts=512: must be a multiple of the 3 parts"):
        activations.batch_size(task("activations", config), model, 3)
    assert cost.context_bytes(model, 64, 4) > 0
