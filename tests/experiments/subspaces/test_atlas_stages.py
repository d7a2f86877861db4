"""Atlas, diagnosis, transfer and predictions on SAEs in which the causes of instability are planted, through files and the runner."""

import json
import pathlib

import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file

from configs import compare, predict, synthetic_causes
from experiments.reappearance.labels import LabelRule
from experiments.registry import validated
from experiments.subspaces import atlas
from launch import run as runner
from saes.dictionary import Dictionary
from saes.formats import saelens
from stability.diagnosis import AMBIGUOUS, NEVER, REASONS, SPLIT, UNDER_TRAINED, UNEXPLAINED, confusion
from stability.subspaces import span_overlap
from storage import files
from storage.tables import read_table
from tests.stability import planted

D, S, STABLE, BLOCK, RANK = 64, 6, 30, 24, 10
KINDS = [(STABLE, "stable"), (BLOCK, AMBIGUOUS), (1, SPLIT), (3 * (S - 1), "children"), (4, NEVER), (6, UNDER_TRAINED), (10, UNEXPLAINED)]
CAUSES = np.concatenate([[cause] * n for n, cause in KINDS])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of SAEs: of six groups of three directions every seed has one as their sum and the others one by one; returns (folder, plane)."""
    folder, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    block, children = planted.planes(rng, D, (RANK, 3 * S))
    shared = planted.anywhere(rng, STABLE, D)
    bias = np.where(CAUSES == NEVER, -1e3, np.where(CAUSES == UNDER_TRAINED, -1.6, -0.5)).astype(np.float32)
    for seed in range(S):
        groups = children.T.reshape(S, 3, D)
        rows = np.concatenate(
            [
                shared,
                planted.filled(rng, block, BLOCK, jitter=0.05),
                planted.unit(groups[seed].sum(0, keepdims=True)),
                np.delete(groups, seed, axis=0).reshape(-1, D),
                planted.anywhere(rng, 20, D),
            ]
        ).astype(np.float32)
        sae = Dictionary(rows.T.copy(), bias, rows, np.zeros(D, np.float32), architecture="standard")
        saelens.save(epath.Path(folder) / f"seed-{seed}", sae, {"model_name": "planted", "seed": seed})
    np.save(folder / "acts.npy", (0.5 * rng.normal(size=(3000, D))).astype(np.float32))
    return folder, block


def config_of(module, folder, first=0, **changes):
    c = module.get_config()
    c.saes = ",".join(str(folder / f"seed-{seed}") for seed in range(first, S))
    c.stages = tuple(stage for stage in c.stages if stage not in ("function", "statistics", "explanations"))
    c.source.activations = str(folder / "acts.npy")
    c.stability.rare_firings, c.stability.null_draws = 30, 2
    if "atlas" in c:
        c.subspace.min_features, c.subspace.headline_rank, c.subspace.subsamples = 5, 4, 3
        c.atlas.rows, c.atlas.null_draws = 1024, 2
    c.update(changes)
    return c


def run(config, workdir):
    runner.run(config, validated(config), epath.Path(workdir), [], start="", overwrite=False)


@pytest.fixture(scope="module")
def study(world, tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("study"))
    run(config_of(compare, world[0]), workdir)
    return workdir


def test_the_planted_plane_is_the_only_entry(world, study):
    entries = read_table(study / "atlas" / "entries.parquet")
    summary = json.loads((study / "atlas" / "summary.json").read_text())
    assert entries["rank"].tolist() == [RANK] and summary["ranks"] == [RANK]
    assert summary["entries_in_null_draws"] == summary["entries_in_clouds"] == [0, 0] and summary["not_above_chance"] == 0
    plane = load_file(str(study / "atlas" / "planes.safetensors"))["entry_0"].T
    assert span_overlap(plane, world[1]) > 0.98
    assert entries["span_agreement"][0] > 0.95 > 0.6 > entries["span_agreement_null"][0] and entries["p_value"][0] <= 1 / 60 + 1e-9
    assert entries["p"][0] < 0.6 and entries["contribution_agreement"][0] > entries["contribution_agreement_null"][0] + 0.3
    seeds = read_table(study / "atlas" / "seeds.parquet")
    assert (seeds["features"] > 15).all() and (seeds["overlap_with_others"] > 0.9).all()
    assert len(read_table(study / "atlas" / "agreement.parquet")["overlap"]) == S * (S - 1)


def test_every_feature_has_its_planted_reason(study):
    table = read_table(study / "diagnosis" / "features.parquet")
    true, found = CAUSES[table["feature"]], table["reason"]
    planted_ones = np.isin(true, REASONS)
    counts = confusion(true[planted_ones], found[planted_ones])
    # Of every kind nearly all that are unstable; a few rows of the block have a partner by chance and are not.
    assert (counts.sum(axis=1)[[REASONS.index(r) for r in (NEVER, UNDER_TRAINED, SPLIT, UNEXPLAINED)]] >= [4 * S, 5 * S, S, 9 * S]).all()
    assert counts[REASONS.index(AMBIGUOUS)].sum() > 20
    assert np.trace(counts) / counts.sum() > 0.97
    assert (np.diag(counts) / counts.sum(axis=1) > 0.9).all()
    summary = json.loads((study / "diagnosis" / "summary.json").read_text())
    assert sum(summary[r]["value"] for r in REASONS) == pytest.approx(1) and summary[SPLIT]["null"] == 0


def test_the_evidence_of_a_split(world, study):
    """The three features that are added are named, with weights that give the row again."""
    table = read_table(study / "diagnosis" / "features.parquet")
    row = int(np.flatnonzero((table["reason"] == SPLIT) & (table["seed"] == 0))[0])
    other, features = int(table["combination_seed"][row]), table["combination_features"][row]
    of = lambda seed: np.asarray(saelens.load(epath.Path(world[0]) / f"seed-{seed}")[0].w_dec_FD)
    again = np.asarray(table["combination_weights"][row]) @ of(other)[features]
    np.testing.assert_allclose(again, of(0)[table["feature"][row]], atol=1e-3)
    assert set(CAUSES[features]) == {"children"} and table["combination_share"][row] == pytest.approx(1, abs=1e-4)
    assert table["split_seeds"][row] == 1.0


def test_transfer_and_page(study):
    scores = read_table(study / "transfer" / "scores.parquet")
    assert set(scores["predictor"]) == {
        "decoder rows",
        "nearest neighbour",
        "crowding",
        "frequency",
        "frequency and crowding",
        "prevalence",
    }
    assert len(read_table(study / "transfer" / "calibration.parquet")["predicted"]) == 10
    page = (study / "report" / "index.html").read_text()
    for piece in (
        "atlas_view",
        "atlas_agreement",
        "atlas_chance",
        "diagnosis",
        "transfer",
        "calibration",
        "why unstable",
        "Local subspaces",
    ):
        assert piece in page
    assert all((study / "report" / f"{name}.png").exists() for name in ("atlas_view", "diagnosis", "transfer"))


def test_a_query_sae_is_predicted(world, tmp_path):
    folder = world[0]
    run(config_of(predict, folder, first=1, query_saes=str(folder / "seed-0")), tmp_path)
    table = read_table(tmp_path / "predict" / "features.parquet")
    of = lambda cause: table["predicted"][cause == CAUSES]
    assert len(table["predicted"]) == len(CAUSES) and of("stable").mean() > 0.9 and of(UNEXPLAINED).mean() < 0.1
    assert (table["share_of_references"][CAUSES == "stable"] == 1).all()
    said = files.read_json(epath.Path(tmp_path) / "predict" / "summary.json")["not_compared"]
    assert [clause.split(" for ")[0] for clause in said] == ["layer unknown", "site unknown"]
    with pytest.raises(ValueError, match=r"config\.query_saes: .*copy holds the same weights as the reference SAE .*seed-1: leave one out"):
        copy = folder / "copy"
        sae = saelens.load(epath.Path(folder) / "seed-1")[0]
        saelens.save(epath.Path(copy), sae, {"model_name": "planted"})
        run(config_of(predict, folder, first=1, query_saes=str(copy)), tmp_path / "again")


def test_too_few_seeds_are_said(world, tmp_path, capsys):
    c = config_of(compare, world[0], first=3)
    c.stages = ("collect", "stability", "atlas", "diagnosis", "report")
    run(c, tmp_path)
    printed, page = capsys.readouterr().out, (tmp_path / "report" / "index.html").read_text()
    assert "atlas: not measured, 3 seeds: two halves of at least 2 are compared" in printed
    assert "The stage &#39;atlas&#39; did not measure" in page
    assert "collect: layer unknown for 3 of 3 SAEs" in printed and "layer unknown for 3 of 3 SAEs; site unknown for 3 of 3 SAEs" in page


def test_the_order_of_seeds_changes_nothing():
    rng = np.random.default_rng(1)
    (plane,) = planted.planes(rng, D, (RANK,))
    unit_SFD = np.stack([np.concatenate([planted.filled(rng, plane, BLOCK), planted.anywhere(rng, 10, D)]) for _ in range(5)])
    among_SF = np.ones(unit_SFD.shape[:2], bool)
    order = [3, 0, 4, 1, 2]
    settings = validated(config_of(compare, pathlib.Path("nowhere")))
    rules = atlas.rules_of(settings[atlas.Atlas], settings[LabelRule], D)
    (plain,) = atlas.make(unit_SFD, among_SF, (0, 1, 2, 3, 4), rules, lambda: None)
    (other,) = atlas.make(unit_SFD[order], among_SF[order], tuple(order), rules, lambda: None)
    np.testing.assert_array_equal(plain.plane_DR, other.plane_DR)
    np.testing.assert_array_equal(plain.without_SDR[order], other.without_SDR)


def small_saes(folder, rows):
    for seed, w in enumerate(rows):
        w = np.asarray(w, np.float32)
        sae = Dictionary(w.T.copy(), np.zeros(len(w), np.float32), w, np.zeros(w.shape[1], np.float32), architecture="standard")
        saelens.save(epath.Path(folder) / f"seed-{seed}", sae, {"model_name": "small", "seed": seed})
    c = config_of(compare, folder)
    c.saes, c.source.activations = ",".join(str(folder / f"seed-{s}") for s in range(len(rows))), ""
    c.stages = ("collect", "stability", "sensitivity", "atlas", "diagnosis", "transfer", "report")
    return c


@pytest.mark.parametrize("same", [True, False])
def test_where_everything_reappears_or_nothing(tmp_path, capsys, same):
    rng = np.random.default_rng(2)
    first = planted.anywhere(rng, 20, 24)
    # The same features in another order: equal weights would be one SAE.
    run(small_saes(tmp_path, [np.roll(first, i, 0) if same else planted.anywhere(rng, 20, 24) for i in range(4)]), tmp_path / "w")
    assert (
        "transfer: no predictions, in the reference SAEs every live feature reappears everywhere, or none anywhere"
        in capsys.readouterr().out
    )
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert summary["transfer"]["auroc"]["value"] is None and (summary["diagnosis"]["features"] == 0) is same
    assert (tmp_path / "w" / "report" / "index.html").exists()


def test_saes_of_different_size_the_largest_outside_those_looked_at(tmp_path):
    rng = np.random.default_rng(3)
    common = planted.anywhere(rng, 12, 24)
    c = small_saes(tmp_path, [np.concatenate([common, planted.anywhere(rng, n, 24)]) for n in (20, 20, 10, 20, 40)])
    c.atlas.seeds = c.transfer.seeds = 4
    run(c, tmp_path / "w")
    summary = json.loads((tmp_path / "w" / "transfer" / "summary.json").read_text())
    assert summary["seeds"] == 4 and summary["brier"]["value"] < summary["brier_of_mean"]["value"]


@pytest.mark.slow
def test_the_bench_scores_what_nothing_was_tuned_on(tmp_path):
    run(synthetic_causes.get_config("tiny"), tmp_path)
    summary = json.loads((tmp_path / "causes" / "summary.json").read_text())
    assert summary["blocks"] == summary["worlds"] == 1 and summary["entries_without_blocks"] == [0]
    table = read_table(tmp_path / "causes" / "features.parquet")
    assert set(table["cell"][table["scored"].astype(bool)]) <= {"two", "no block"} and "one" in set(table["cell"])
    assert np.sum(summary["confusion"]["all"]) == table["scored"].sum() >= np.sum(summary["confusion"]["clear"])
    assert set(read_table(tmp_path / "causes" / "atlas.parquet")["cell"]) == {"one", "two", "no block"}


def test_the_bench_wants_two_halves():
    c = synthetic_causes.get_config("tiny")
    c.seeds = (3,)
    with pytest.raises(ValueError, match=r"config\.seeds=\(3,\): at least 4: 'causes' compares two halves of 2"):
        validated(c)


def test_query_saes_must_be_named():
    with pytest.raises(ValueError, match=r"config\.query_saes='': --config\.query_saes=path names the SAE"):
        validated(config_of(predict, pathlib.Path("nowhere")))
