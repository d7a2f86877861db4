"""A whole study of pools in a small world: what is trained, written and shown."""

import hashlib

import numpy as np
import pytest
from etils import epath

from configs import compare, pool
from experiments.pooling import finetune
from experiments.pooling import pool as pool_stage
from experiments.pooling.pool import Which
from experiments.registry import validated
from launch import run
from runtime import interrupts
from saes.formats import saelens
from stability.similarity import unit_rows
from storage import files
from storage.tables import read_records, read_table
from tests.experiments.tasks import run_stage, task

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("pools"))
    c = pool.get_config("synthetic-tiny")
    c.claims.min_seeds = 4
    run.run(c, validated(c), workdir, [], "", False)
    return c, workdir


def made(study, which):
    """A pool as it was made, and what it says of itself."""
    c, workdir = study
    return saelens.load(pool_stage.path(task("finetune", c, workdir), which))


def test_held_rows_stay_and_free_ones_move(study):
    _, workdir = study
    held, free = (finetune.read(workdir / "finetune", phase) for phase in ("held", "free"))
    assert {which.excluded_seed for which in held if which.kind == "pool of means"} == {None, *range(8)} and Which(
        "single SAE", "one"
    ) in held
    assert {which.point for which in held if which.kind == "pool of means"} == {None, "sizes-2", "thetas-0.6", "thetas-0.8", "features-16"}
    for at, of_held, of_free in ((at, d, free[at]) for at, d in held.items() if at.kind != "single SAE"):
        begin, _ = made(study, at)
        assert begin.w_dec_FD.shape == of_held.w_dec_FD.shape == of_free.w_dec_FD.shape
        np.testing.assert_allclose(of_held.w_dec_FD, begin.w_dec_FD, atol=1e-5)
        assert np.abs(of_held.w_enc_DF - begin.w_enc_DF).max() > 1e-4 and np.abs(of_free.w_dec_FD - begin.w_dec_FD).max() > 1e-5


def test_training_on_explains_more(study):
    _, workdir = study
    methods = files.read_json(workdir / "pooled" / "summary.json")["methods"]
    explained = {name: of["explained"]["value"] for name, of in methods.items()}
    assert explained["pool"] < explained["pool, decoder held"] < explained["pool, tuned"]
    assert explained["bagging"] > explained["single SAE"]
    assert methods["wider"]["features"]["value"] == 4 * methods["single SAE"]["features"]["value"]
    assert methods["single SAE"]["found free"]["value"] is not None and methods["pool"]["l0"]["value"] == pytest.approx(4, abs=0.1)


def test_every_pool_is_written_as_it_would_be_published(study, tmp_path):
    c, workdir = study
    exported = sorted((workdir / "pooled" / "export").iterdir())
    assert {p.name for p in exported} >= {f"{name}-{g}" for name in ("pool", "pool-decoder-held", "random-pool") for g in ("one", "other")}
    for folder in exported:
        d, metadata = saelens.load(folder)
        table = read_table(folder / "stability.parquet", ("feature", "p", "of_seed", "p_among_pooled", "members", "live"))
        assert len(table["feature"]) == d.w_dec_FD.shape[0] and ((table["p"] >= 0) & (table["p"] <= 1)).all()
        own = {0, 1, 2, 3} if folder.name.endswith("one") else {4, 5, 6, 7}
        assert set(metadata["pooled_seeds"]) == own and set(table["of_seed"].tolist()) <= own | {-1}
        card = (folder / "README.md").read_text()
        assert "| explained variance |" in card and "took no part in it" in card
        assert ("in random order" in card) == folder.name.startswith("random") and (
            "reappear" in card.split("Model")[0]
        ) != folder.name.startswith("random")
    again = compare.get_config()
    again.saes = f"{workdir}/pooled/export/pool-one,{workdir}/pooled/export/pool-other"
    again.stages = ("collect", "stability")
    run.run(again, validated(again), epath.Path(tmp_path / "compared"), [], "", False)
    found = files.read_json(epath.Path(tmp_path / "compared") / "stability" / "summary.json")
    assert len(found["seeds"]) == 2 and max(found["saes"]["sizes"]) <= c.sae.n_features


def test_page_tables_and_claim(study):
    _, workdir = study
    assert (workdir / "report" / "index.html").exists() and (workdir / "report" / "trade-off.png").exists()
    claim = files.read_json(workdir / "report" / "summary.json")["claims"]["C6"]
    independent = files.read_json(workdir / "pooled" / "summary.json")["independent products"]
    asked, seen = independent["tokens"]["pool of means, tuned"], independent["tokens"]["trained longer"]
    assert asked == 4 * 6_000 + 7_500 <= seen < 1.02 * asked  # whole dispatches are trained
    counts = {"pool": 3, "pool of means, tuned": 3, "single SAE, tuned": 3, "trained longer": 5, "single SAE": 3, "wider": 2}
    assert counts.items() <= independent["products"].items() and "bagging" not in independent["products"]
    headline = independent["methods"]["pool of means, tuned"]
    # Of a study this small the null lies beside the bound, on one side or the other by the last bits of a processor.
    by_chance = max(headline[figure]["null"] for figure in ("all", "live")) > study[0].claims.c1_chance
    assert claim["because"].startswith("its features reappear by chance" if by_chance else "rule: p̂ between independent pools")
    assert "pool of means, tuned, F = 32" in claim["measured"]
    bars = (("all", 0.1), ("live", 0.1), ("explained", -0.01))
    assert set(independent["less"]) == {"trained longer", "single SAE, tuned", "single SAE"}
    less = [(independent["less"][name][figure], bar) for name in independent["competitors"] for figure, bar in bars]
    yes, no = all(e["low"] > bar for e, bar in less), any(e["high"] < bar for e, bar in less)
    assert claim["holds"] == ("undecided" if by_chance else "yes" if yes else "no" if no else "undecided")
    by_method = {(r["method"], r["figure"]): r["value"] for r in read_records(workdir / "pooled" / "products.parquet")}
    assert by_method["pool of means, tuned", "all"] == headline["all"]["value"]
    assert "Independent products" in (workdir / "report" / "index.html").read_text()
    curves = read_records(workdir / "pooled" / "curves.parquet")
    assert {r["over"] for r in curves} == {"pooled SAEs", "θ of the pool", "features"}
    features = {r["kind"]: (r["at"], r["value"]) for r in curves if r["over"] == "features" and r["figure"] == "features"}
    assert features == {"pool": (16.0, 16.0), "pool of means, tuned": (16.0, 16.0)}


def test_curves_of_pools_that_were_trained_on(study):
    """Where nothing is varied they are the headline itself; elsewhere what was made for that point and then trained on."""
    _, workdir = study
    curves = read_records(workdir / "pooled" / "curves.parquet")
    of = {(r["kind"], r["over"], r["at"], r["figure"]): r["value"] for r in curves}
    headline = files.read_json(workdir / "pooled" / "summary.json")["methods"]["pool of means, tuned"]
    for figure in ("p", "between", "explained"):
        assert of["pool of means, tuned", "pooled SAEs", 4.0, figure] == headline[figure]["value"]
    free = finetune.read(workdir / "finetune", "free")
    points = {
        "sizes-2": ("pooled SAEs", 2.0),
        "thetas-0.6": ("θ of the pool", 0.6),
        "thetas-0.8": ("θ of the pool", 0.8),
        "features-16": ("features", 16.0),
    }
    for name, (over, at) in points.items():
        both = [free[Which("pool of means", group, point=name)].w_dec_FD.shape[0] for group in pool_stage.NAMES]
        assert of["pool of means, tuned", over, at, "features"] == np.mean(both)
    assert len({of["pool of means, tuned", *point, "explained"] for point in points.values()}) == len(points)


def test_pools_of_curves_are_made_of_whom_and_at_what_their_name_says(study):
    c, _ = study
    usual = made(study, Which("pool of means", "other"))
    of = {name: made(study, Which("pool of means", "other", point=name)) for name in ("sizes-2", "thetas-0.6", "thetas-0.8", "features-16")}
    assert (
        usual[1]["pooled_seeds"] == [4, 5, 6, 7]
        and of["sizes-2"][1]["pooled_seeds"] == [4, 5]
        and of["thetas-0.6"][1]["pooled_seeds"] == [4, 5, 6, 7]
    )
    assert [metadata["pooled_theta"] for _, metadata in of.values()] == [c.pool.theta, 0.6, 0.8, c.pool.theta]
    for _, (d, metadata) in of.items():
        cosine = np.asarray(unit_rows(d.w_dec_FD)) @ np.asarray(unit_rows(d.w_dec_FD)).T - 2 * np.eye(d.w_dec_FD.shape[0])
        assert cosine.max() < metadata["pooled_theta"] + 1e-5
    assert of["features-16"][0].w_dec_FD.shape[0] == 16
    np.testing.assert_allclose(of["features-16"][0].w_dec_FD[0], usual[0].w_dec_FD[0], atol=1e-6)


def test_nothing_is_done_twice(study, capsys):
    c, workdir = study
    run.run(c, validated(c), workdir, [], "", False)
    assert capsys.readouterr().out.count("done already, skipped") == len(c.stages)


@pytest.fixture
def again(study, tmp_path):
    """Runs a stage beside the results of those before it; checks that the bytes of its results are those of the study."""
    c, workdir = study

    def go(stage):
        for name in ("train", "longer", "wider", "pool", "finetune"):
            if name != stage and not (tmp_path / name).exists():
                (tmp_path / name).symlink_to(workdir / name)
        paths = run_stage(stage, c, tmp_path)
        whole = {name: of["sha256"] for name, of in files.read_json(workdir / stage / "stage.json")["outputs"].items()}
        assert {str(p.relative_to(tmp_path / stage)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths} == whole

    return go


def test_stopped_in_either_phase_of_training_on_it_ends_with_the_same_bytes(again, monkeypatch):
    asked = []

    def stop_requested():
        asked.append(1)
        if len(asked) in (2, 8, 11):
            interrupts._requested.append("SIGTERM")
        return bool(interrupts._requested)

    monkeypatch.setattr(interrupts, "stop_requested", stop_requested)
    for step, phase in ((16, "held"), (40, "free"), (64, "free")):
        with pytest.raises(interrupts.Stopped, match=f"finetune {phase} saved at step {step} of"):
            again("finetune")
        interrupts.reset()
    again("finetune")


def test_killed_while_it_writes_it_ends_with_the_same_bytes(again, monkeypatch):
    original, left = files.write_bytes, [3, 6, 12]

    def write(*args, **others):
        if left:
            left[0] -= 1
            if not left[0]:
                left.pop(0)
                raise KeyboardInterrupt
        original(*args, **others)

    monkeypatch.setattr(files, "write_bytes", write)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            again("pooled")
    again("pooled")
