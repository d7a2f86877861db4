"""Every field of a config that a stage reads is one that it declares: another value makes its results anew."""

import dataclasses
import importlib

import numpy as np
import pytest
from etils import epath

from configs import common, compare, predict
from launch import runner
from launch.config import validated
from launch.stages import STAGES, Stage
from saes.dictionary import Dictionary
from saes.formats import saelens
from tests.launch import field_reads
from tests.stability import planted

MEASURED = ("collect", "stability", "sensitivity", "subspace", "atlas", "diagnosis", "transfer", "report")


def recorded(c, workdir):
    with field_reads.recording() as reads:
        runner.run_stages(c, validated(c), epath.Path(workdir), [], False)
    return reads


@pytest.fixture
def saes(tmp_path):
    """Paths of 5 SAEs that have half of their features in common."""
    rng = np.random.default_rng(0)
    shared = planted.anywhere(rng, 10, 24)
    for seed in range(5):
        rows = np.concatenate([shared, planted.anywhere(rng, 10, 24)]).astype(np.float32)
        sae = Dictionary(rows.T.copy(), np.zeros(20, np.float32), rows, np.zeros(24, np.float32), architecture="standard")
        saelens.save(epath.Path(tmp_path) / f"seed-{seed}", sae, {"model_name": "small", "seed": seed})
    return [str(tmp_path / f"seed-{seed}") for seed in range(5)]


def test_what_is_read_is_declared_and_what_is_not_is_named(saes, tmp_path, monkeypatch):
    c = compare.get_config()
    c.stages, c.saes, c.stability.null_draws = ("collect", "stability"), ",".join(saes), 1
    reads = recorded(c, tmp_path / "w")
    assert reads.keys() == set(c.stages) and {"saes", "ignore_names"} <= reads["collect"]
    assert field_reads.missing(reads) == {}
    without = tuple(f"stability.{f.name}" for f in dataclasses.fields(validated(c).stability) if f.name != "epsilon")
    monkeypatch.setitem(STAGES, "stability", dataclasses.replace(STAGES["stability"], sections=(*without, "source")))
    assert field_reads.missing(reads) == {"stability": ["stability.epsilon"]}


def test_what_a_stage_puts_into_settings_itself_is_not_read_from_the_config(monkeypatch):
    """Nor what settings check of themselves, or which kind of study they are; a cell's sections are the study's and the cell's."""
    c = common.synthetic_grid()
    common.tiny_grid(c)
    c.cells["one"] = {"sae": {"k": 3}}
    settings = validated(c)

    def run(stage, config, workdir):
        other = dataclasses.replace(config, seeds=(7, 8), sae=dataclasses.replace(config.sae, k=config.sae.k - 1))
        assert hasattr(other, "reference") and other.seed_list == (7, 8) and other == other and hash(other.sae) == hash(other.sae)
        return [other.sae.k, other.sae.n_features, other.train.peak_lr(28), vars(config.causes), config.cells[0].synthetic.rank]

    monkeypatch.setattr(Stage, "run", run)
    with field_reads.recording() as reads:
        STAGES["grid"].run(settings, epath.Path("nowhere"))
    assert reads["grid"] == {
        *("sae.k", "sae.n_features", "train.lr", "cells", "synthetic.block_rank"),
        *(f"causes.{f.name}" for f in dataclasses.fields(settings.causes)),
    }
    assert not field_reads.missing({"grid": reads["grid"] - {f for f in reads["grid"] if f.startswith("causes.")}})


def test_fields_that_cannot_be_declared_later_are_among_those_declared():
    for stage in STAGES.values():
        assert set(stage.later) <= set(stage.sections) and (stage.guarded or not stage.later)


@pytest.mark.slow
@pytest.mark.parametrize(
    "study",
    [
        "quickstart:tiny",
        "synthetic:tiny",
        "synthetic_controls:tiny",
        "synthetic_causes:tiny",
        "seed_factorial:tiny",
        "pool:tiny",
        "pool:synthetic-tiny",
        "pretrain_stdlib:tiny",
    ],
)
def test_every_study_declares_what_its_stages_read(study, tmp_path):
    name, _, arg = study.partition(":")
    c = importlib.import_module(f"configs.{name}").get_config(arg)
    if name in ("quickstart", "synthetic"):  # two halves of 2, or a part of the stages measures nothing
        c.seeds = (4,)
    if name == "quickstart":
        c.stages, c.gaussian_seeds = (*c.stages[:2], "gaussian", *c.stages[2:]), 4
    reads = recorded(c, tmp_path / "w")
    assert reads.keys() == set(c.stages)
    assert field_reads.missing(reads) == {}


@pytest.mark.slow
def test_measuring_with_activations_declares_what_it_reads(saes, tmp_path):
    np.save(tmp_path / "acts.npy", np.random.default_rng(1).normal(size=(3000, 24)).astype(np.float32))
    c = compare.get_config()
    c.saes, c.source.activations, c.stages = ",".join(saes), str(tmp_path / "acts.npy"), MEASURED
    c.stability.rare_firings, c.stability.null_draws, c.subspace.min_features, c.subspace.headline_rank = 30, 2, 5, 4
    c.atlas.rows, c.atlas.null_draws, c.subspace.subsamples = 1024, 2, 3
    reads = recorded(c, tmp_path / "w")
    assert reads.keys() == set(c.stages)
    assert field_reads.missing(reads) == {}


@pytest.mark.slow
def test_predicting_declares_what_it_reads(saes, tmp_path):
    c = predict.get_config()
    c.saes, c.newcomers, c.stability.null_draws = ",".join(saes[:4]), saes[4], 1
    reads = recorded(c, tmp_path / "w")
    assert reads.keys() == set(c.stages) and "newcomers" in reads["predict"]
    assert field_reads.missing(reads) == {}
