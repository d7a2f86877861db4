"""Verdicts by other ways to count features as the same are those of studies that count them so."""

import json

import numpy as np
import pytest
from etils import epath

from configs import synthetic
from experiments import registry
from experiments.registry import validated
from experiments.robustness import charts, specifications
from experiments.robustness.specifications import LIVE, Material, Specification
from experiments.stage import Outputs
from launch import run as runner
from reports import claims
from reports.claims import Claims
from reports.results import Results
from storage.tables import read_table
from tests.experiments.tasks import task

STAGES = ("train", "stability", "sensitivity", "function", "subspace", "recovery", "transfer", "specifications", "report")
CLAIMS = {"C1", "C2", "C3a", "C4", "C5", "C7"}  # without text


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    c = synthetic.get_config("tiny")
    c.seeds, c.stages = (6,), STAGES
    c.update(registry.default_config(("function", "specifications")).to_dict() | {"stages": STAGES})
    c.function.update({"ratio": 1, "bins": 2, "draws": 2, "refill_rows": 500})
    c.specifications.thetas = (0.7, 0.9)
    c.transfer.splits, c.transfer.draws = c.specifications.transfer_splits, c.specifications.transfer_draws
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
    assert found.keys() == CLAIMS
    assert found == {name: own[name] for name in CLAIMS}


@pytest.mark.parametrize("stage", ["stability", "function", "transfer", "recovery"])
def test_figures_of_the_studys_own_specification_are_those_of_the_stages(study, tmp_path, stage):
    c, workdir = study
    own = task("specifications", c, workdir)
    found = specifications.figures(own, Material(own, Outputs(epath.Path(tmp_path))), Specification(0.7, "decoder", LIVE))[stage]
    measured = json.loads((workdir / stage / "summary.json").read_text())
    compared = list(_both(found, measured))
    assert len(compared) >= 4
    for name, one, other in compared:
        # C2's intervals lack what the choice of text adds.
        for end in ("value",) if stage == "function" else ("value", "low", "high"):
            assert one[end] == (None if other[end] is None else pytest.approx(other[end], rel=1e-4, abs=1e-4)), (name, end)


def _both(found, measured):
    """(name, estimate here, that of the stage) of all estimates; what is not there here is left out, and so are names that only count."""
    for name in found.keys() & measured.keys():
        if isinstance(found[name], dict) and "value" in found[name]:
            if found[name]["value"] is not None:
                yield name, found[name], measured[name]
        elif isinstance(found[name], dict) and name.endswith(("_over", "_differences")):
            assert found[name].keys() == measured[name].keys()
            yield from _both(found[name], measured[name])


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


def test_the_chart_lists_every_claim_and_says_which_are_not_asked(study):
    _, workdir = study
    (figure,) = charts.all_figures(Results(workdir, STAGES), ())
    sentence, rows = figure.sentence, read_table(workdir / "specifications" / "verdicts.parquet")
    assert set(rows["claim"].tolist()) == CLAIMS and all(f" {claim}: " in sentence for claim in CLAIMS)
    assert "Not asked: C3c, since a language model would be asked again" in sentence and "C6, since pools are judged" in sentence


def test_strengths_are_those_of_each_criterion(study):
    _, workdir = study
    strengths, features = (
        read_table(workdir / "sensitivity" / "strengths.parquet"),
        read_table(workdir / "sensitivity" / "features.parquet"),
    )
    stability = read_table(workdir / "stability" / "features.parquet", ("best_cosine",))["best_cosine"]
    np.testing.assert_allclose(np.stack(list(strengths["decoder"])), np.stack(list(stability)), rtol=1e-5)
    assert {"encoder", "activations"} <= strengths.keys() and len(strengths["seed"]) == len(features["seed"])
