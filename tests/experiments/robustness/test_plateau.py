"""Figures along training are those of the SAEs as they were then, through files and the runner."""

import json
from types import SimpleNamespace

import ml_collections
import numpy as np
import pytest
from etils import epath

from configs import synthetic
from experiments.registry import validated
from experiments.robustness import plateau
from experiments.subspaces.subspace import Subspace
from launch import run as runner
from reports.results import Results
from storage import tables
from tests.experiments.tasks import task


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    c = synthetic.get_config("tiny")
    c.stages = ("train", "half", "stability", "recovery", "subspace", "plateau", "report")
    c.plateau.stages = ("stability", "recovery", "subspace")
    c.stability.theta, c.subspace.min_features = 0.8, 2
    c.train.lr, c.train.decay_fraction = 1.8e-3, 0.2
    c.runs.half = ml_collections.ConfigDict({"train": {"tokens": 60_000}})
    workdir = epath.Path(tmp_path_factory.mktemp("plateau"))
    runner.run(c, validated(c), workdir, [], start="", overwrite=False)
    return c, workdir


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_points_are_near_a_quarter_and_half():
    assert plateau.earlier_points([10, 100, 250, 480, 1000]) == [250, 480]
    assert plateau.earlier_points([125, 250, 500, 1000]) == [250, 500]
    assert plateau.earlier_points([100, 1000]) is None and plateau.earlier_points([1000]) is None and plateau.earlier_points([]) is None
    assert plateau.earlier_points([360, 1000]) is None  # near both, and one point alone


def test_figures_are_those_of_saes_as_they_were_then(study, tmp_path):
    c, workdir = study
    s = summary_of(workdir / "plateau")
    assert s["tokens"] == 120_832 and [p["tokens"] for p in s["points"]] == [30_720, 60_416]
    c = c.copy_and_resolve_references()
    c.stages = ("stability",)
    for point in s["points"]:
        c.stability.dictionaries, c.stability.at_tokens = str(workdir / "train" / "dictionaries.json"), point["tokens"]
        folder = epath.Path(tmp_path / str(point["tokens"]))
        runner.run(c, validated(c), folder, [], start="", overwrite=False)
        alone = summary_of(folder / "stability")
        assert point["stages"].keys() == {"stability", "recovery", "subspace"}
        for name in ("mean_p_all", "explained_variance", "reliability", "firing_rate_stable"):
            assert point["stages"]["stability"][name] == alone[name], name
        assert alone["explained_variance"]["value"] < summary_of(workdir / "stability")["explained_variance"]["value"]


def test_the_control_is_of_saes_that_ended_at_half(study, tmp_path):
    c, workdir = study
    control = summary_of(workdir / "plateau")["control"]
    assert control["tokens"] == 60_416
    c = c.copy_and_resolve_references()
    c.stages, c.stability.dictionaries = ("stability",), str(workdir / "half" / "train" / "dictionaries.json")
    runner.run(c, validated(c), epath.Path(tmp_path), [], start="", overwrite=False)
    alone, half = summary_of(epath.Path(tmp_path) / "stability"), summary_of(workdir / "plateau")["points"][1]["stages"]["stability"]
    assert control["stages"]["stability"]["explained_variance"] == alone["explained_variance"] != half["explained_variance"]


def test_subspaces_are_of_as_many_features_at_every_point(study, tmp_path):
    c, workdir = study
    s, own = summary_of(workdir / "plateau"), summary_of(workdir / "subspace")
    sizes = lambda f: (f["features_per_set"], f["features_against_nulls"])
    points = [point["stages"]["subspace"] for point in (*s["points"], s["control"], {"stages": s["end"]})]
    assert {sizes(f) for f in points} == {sizes(own)}  # here the end has fewest
    first = tables.read_table(workdir / "plateau" / f"at-{s['points'][0]['tokens']}" / "stability" / "features.parquet")
    live = first["stratum"] == "live"
    counts = [
        np.sum(live & (first["label"] == kind) & (first["seed"] == seed)) for kind in ("unstable", "stable") for seed in set(first["seed"])
    ]
    assert min(counts) > own["features_per_set"]
    c = c.copy_and_resolve_references()
    c.stages, c.stability.dictionaries = ("stability", "subspace"), str(workdir / "train" / "dictionaries.json")
    c.subspace.most_features, c.subspace.most_against_nulls = sizes(points[0])
    runner.run(c, validated(c), epath.Path(tmp_path), [], start="", overwrite=False)
    alone = summary_of(epath.Path(tmp_path) / "subspace")
    for name in ("overlap_unstable", "effective_rank_stable_minus_unstable"):
        assert alone[name] == s["end"]["subspace"][name]
    assert Results(workdir, c.stages).end().summary == Results(workdir, c.stages).summary  # no plateau in this config
    assert Results(workdir, (*c.stages, "plateau")).end().figure("subspace.overlap_unstable") == alone["overlap_unstable"]


def test_as_many_features_as_the_smallest_null_allows_at_any_point(monkeypatch):
    figures = lambda n, fewest: {"features_per_set": n, "features_against_nulls": 90, "fewest_against_a_null": fewest}
    asked = []
    monkeypatch.setattr(
        plateau, "_measured", lambda task, out, place, stages, *changed: asked.append((place.folder, *changed)) or {"subspace": {}}
    )
    monkeypatch.setattr(plateau.dictionary_list, "place", lambda task: "list.json")
    own = SimpleNamespace(has=lambda name: True, summary=lambda stage: figures(70, 50), section=lambda cls: Subspace())
    places = [plateau.Place("at-1", "list.json", 1), plateau.Place("control", "other.json", 0)]
    plateau._of_equally_many(own, None, places, {"at-1": {"subspace": figures(60, 80)}, "control": {"subspace": figures(65, 40)}})
    assert [folder for folder, _ in asked] == ["at-1", "control", "end"]
    assert {(c.most_features, c.most_against_nulls) for _, c in asked} == {(60, 40)}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sae": {"k": 2}}, "runs.half.sae="),
        ({"train": {"tokens": 60_000, "lr": 1e-5}}, "runs.half.train="),
        ({"train": {"tokens": 30_000}}, "runs.half.train.tokens=30000"),
    ],
)
def test_a_control_of_other_saes_is_refused_before_anything_runs(changes, named):
    c = synthetic.get_config("tiny")
    c.stages = ("train", "half", "stability", "recovery", "plateau")
    c.runs.half = ml_collections.ConfigDict({"train": {"tokens": 60_000}} | changes)
    with pytest.raises(ValueError, match=named):
        plateau.check_settings(task("plateau", c))


def test_saes_as_they_were_earlier_have_no_plateau():
    c = synthetic.get_config("tiny")
    c.stability.dictionaries, c.stability.at_tokens = "list.json", 77
    with pytest.raises(ValueError, match="config.stability.at_tokens=77: the stage 'plateau' measures"):
        plateau.check_settings(task("plateau", c))


def test_tokens_at_which_nothing_was_kept_are_refused(study, tmp_path):
    c, workdir = study
    c = c.copy_and_resolve_references()
    c.stages, c.stability.dictionaries, c.stability.at_tokens = ("stability",), str(workdir / "train" / "dictionaries.json"), 77
    with pytest.raises(ValueError, match="config.stability.at_tokens=77: SAEs were kept after 0, "):
        runner.run(c, validated(c), epath.Path(tmp_path), [], start="", overwrite=False)


def test_a_stage_wants_those_that_it_reads(study):
    c = study[0].copy_and_resolve_references()
    c.plateau.stages = ("recovery",)
    with pytest.raises(ValueError, match="config.plateau.stages=.*'recovery' reads what 'stability' writes"):
        validated(c)
        plateau.check_settings(task("plateau", c))


def test_the_claim_says_what_moves(study):
    _, workdir = study
    claims = summary_of(workdir / "report")["claims"]
    assert "training" in claims["C5"]["because"] or "seeds" in claims["C5"]["because"]


def test_without_earlier_saes_nothing_is_measured(study, tmp_path):
    c, workdir = study
    c = c.copy_and_resolve_references()
    listing = json.loads((workdir / "train" / "dictionaries.json").read_text())
    listing.pop("sha256")
    listing["snapshots"] = []
    for entry in listing["dictionaries"]:
        entry["path"] = str(workdir / "train" / entry["path"])
    (tmp_path / "list.json").write_text(json.dumps(listing))
    c.stages, c.stability.dictionaries = ("stability", "plateau"), str(tmp_path / "list.json")
    runner.run(c, validated(c), epath.Path(tmp_path / "w"), [], start="", overwrite=False)
    assert "no SAEs were kept" in summary_of(epath.Path(tmp_path / "w" / "plateau"))["not_measured"]
