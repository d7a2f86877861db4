"""Verdicts by other ways to count features as the same are those of studies that count them so."""

import json

import numpy as np
import pytest
from etils import epath

from configs import synthetic
from experiments import registry
from experiments.registry import validated
from launch import run as runner
from reports import claims
from reports.claims import Claims
from reports.results import Results
from storage.tables import read_table

STAGES = ("train", "stability", "sensitivity", "function", "subspace", "specifications", "report")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    c = synthetic.get_config("tiny")
    c.seeds, c.stages = (6,), STAGES
    c.update(registry.default_config(("function", "specifications")).to_dict() | {"stages": STAGES})
    c.function.update({"ratio": 1, "bins": 2, "draws": 2, "refill_rows": 500})
    c.specifications.thetas = (0.7, 0.9)
    c.claims.min_features = 4
    workdir = epath.Path(tmp_path_factory.mktemp("specifications"))
    runner.run(c, validated(c), workdir, [], start="", overwrite=False)
    return c, workdir


def sides_of(workdir, **row):
    table = read_table(workdir / "specifications" / "verdicts.parquet")
    chosen = np.logical_and.reduce([table[name] == value for name, value in row.items()])
    return dict(zip(table["claim"][chosen].tolist(), table["side"][chosen].tolist(), strict=True))


def test_the_studys_own_specification_gives_the_studys_own_sides(study):
    c, workdir = study
    statements = [s for room in registry.modules("report") for s in room.CLAIMS]
    own = claims.sides(statements, Results(workdir, STAGES), Claims(min_features=4))
    found = sides_of(workdir, theta=0.7, criterion="decoder", features="live")
    assert {"C1", "C2", "C3a", "C4"} == found.keys() and found.keys() <= own.keys()
    assert {name: own[name] for name in ("C1", "C2", "C3a")} == {name: found[name] for name in ("C1", "C2", "C3a")}


def test_another_cosine_is_as_a_study_at_that_cosine(study, tmp_path):
    c, workdir = study
    c = c.copy_and_resolve_references()
    c.stability.theta, c.stages = 0.9, ("stability", "function")
    c.stability.dictionaries = str(workdir / "train" / "dictionaries.json")
    folder = epath.Path(tmp_path)
    runner.run(c, validated(c), folder, [], start="", overwrite=False)
    statements = [s for room in registry.modules("report") for s in room.CLAIMS]
    own = claims.sides(statements, Results(folder, c.stages), Claims(min_features=4))
    found = sides_of(workdir, theta=0.9, criterion="decoder", features="live")
    assert {name: own[name] for name in ("C1", "C2", "C3a")} == {name: found[name] for name in ("C1", "C2", "C3a")}


def test_every_specification_has_every_claim_that_is_measured(study):
    _, workdir = study
    summary = json.loads((workdir / "specifications" / "summary.json").read_text())
    assert summary["specifications"] == 2 * 4 * 2
    assert all(sum(count.values()) == 16 for count in summary["sides"].values())
    assert (workdir / "report" / "specifications.png").exists()


def test_strengths_are_those_of_each_criterion(study):
    _, workdir = study
    strengths, features = (
        read_table(workdir / "sensitivity" / "strengths.parquet"),
        read_table(workdir / "sensitivity" / "features.parquet"),
    )
    stability = read_table(workdir / "stability" / "features.parquet", ("best_cosine",))["best_cosine"]
    np.testing.assert_allclose(np.stack(list(strengths["decoder"])), np.stack(list(stability)), rtol=1e-5)
    assert {"encoder", "activations"} <= strengths.keys() and len(strengths["seed"]) == len(features["seed"])
