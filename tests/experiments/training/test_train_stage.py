"""The train stage on a small store: rounds, sweeps, who is given what, frozen seeds, what is written."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from etils import epath

from activations.order import ShuffledOrder
from activations.store import ActivationStore, Rows, StoreWriter
from configs import quickstart
from experiments.data import dictionary_list, sources
from experiments.training import population, train
from experiments.training.population import Rounds
from runtime import metrics as metrics_module
from saes.formats import saelens, sparsify, stacked
from saes.preprocessing import geometric_median
from storage import files
from tests.experiments.tasks import run_stage, task

D = 8
HEADER = {"width": D, "dtype": "float32", "hook": {"path": "m", "layer": 1, "site": "resid_post"}, "documents": []}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A few directions, sparsely active; documents of 40 rows."""
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(24, D))
    for split, n in (("train", 3000), ("eval", 600)):
        codes = rng.uniform(0.5, 1.5, (n, 24)) * (rng.uniform(size=(n, 24)) < 0.1)
        acts = (codes @ directions + 0.05 * rng.normal(size=(n, D)) + 1).astype(np.float32)
        place = np.arange(n, dtype=np.int32)
        writer = StoreWriter(folder / split, HEADER)
        for i, part in enumerate(np.array_split(place, 3)):
            writer.write(i, Rows(acts[part], part // 40, part % 40, part))
        writer.finish(3)
    return folder


@pytest.fixture
def study(stores, tmp_path):
    """Trains with changes to the config; returns the config and the stage's folder."""

    def go(name="w", **changes):
        c = small(**changes)
        workdir = epath.Path(tmp_path / name)
        if not workdir.exists():
            workdir.mkdir()
            (tmp_path / name / "activations").symlink_to(stores)
        go.outputs = run_stage("train", c, workdir)
        return c, workdir / "train"

    return go


def small(**changes):
    """A config of a small training."""
    c = quickstart.get_config("tiny")
    c.sae.n_features, c.sae.k, c.seeds, c.stages = 32, 3, (5,), ("activations", "train")
    c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 6400, 64, 10, 50
    c.train.shuffle_block, c.train.shuffle_window, c.train.snapshots, c.train.eval_rows = 16, 512, 3, 600
    with c.unlocked():
        c.update_from_flattened_dict({field.replace("__", "."): value for field, value in changes.items()})
    return c


def measured(c, workdir):
    """The figures of the stage `stability` on what was trained."""
    c.stages = ("activations", "train", "stability")
    run_stage("stability", c, workdir)
    return files.read_json(workdir / "stability" / "summary.json")


def weights(folder, seed, cell=""):
    home = folder / "cells" / cell if cell else folder
    return hashlib.sha256((home / "sae" / f"seed-{seed}" / saelens.WEIGHTS).read_bytes()).hexdigest()


def test_rounds_in_turn_give_what_all_at_once_give(study):
    _, whole = study("whole")
    _, parts = study("parts", train__seeds_at_once=2)
    assert files.read_json(parts / "plan.json")["rounds"] == [[0, 2], [2, 4], [4, 5]]
    assert files.read_json(whole / "plan.json")["rounds"] == [[0, 5]]
    assert [weights(parts, s) for s in range(5)] == [weights(whole, s) for s in range(5)]
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    a, b = (dictionary_list.load(folder / "dictionaries.json") for folder in (whole, parts))
    for (tokens, paths), (same, others) in zip(a.snapshots, b.snapshots, strict=True):
        assert tokens == same and len(paths) == 1 and len(others) == 3
        assert (a.snapshot(paths).w_dec_FD == b.snapshot(others).w_dec_FD).all()


def test_finished_rounds_are_not_trained_again(study, monkeypatch):
    _, folder = study("w", train__seeds_at_once=2)
    before = [weights(folder, s) for s in range(5)]
    monkeypatch.setattr(train, "_train", lambda *a: pytest.fail("trained again"))
    study("w", train__seeds_at_once=2)
    assert [weights(folder, s) for s in range(5)] == before


def test_a_sweep_is_one_round_and_each_cell_a_study_of_its_own(study, capsys):
    _, swept = study("swept", sweep__lr=(1e-3, 6e-3), sweep__k=(3, 2))
    cells = ["lr=0.001-k=3", "lr=0.001-k=2", "lr=0.006-k=3", "lr=0.006-k=2"]
    assert files.read_json(swept / "plan.json")["rounds"] == [[0, 20]]
    assert sorted(p.name for p in (swept / "cells").iterdir()) == sorted(cells)
    _, alone = study("alone", train__lr=6e-3)
    assert [weights(swept, s, "lr=0.006-k=3") for s in range(5)] == [weights(alone, s) for s in range(5)]
    two = dictionary_list.load(swept / "cells" / "lr=0.006-k=2" / "dictionaries.json")
    assert two.dictionaries[0].k == 2 and len(two.seeds) == 5
    assert (two.snapshot(two.snapshots[-1][1]).w_dec_FD == two.w_dec_SFD).all()
    summary = files.read_json(swept / "summary.json")["cells"]
    assert [c["cell"] for c in summary] == cells and summary[1]["l0"]["value"] <= 2 < summary[0]["l0"]["value"] <= 3
    assert "lr=0.006-k=2" in capsys.readouterr().out


def test_every_output_is_listed_and_exists(study):
    _, folder = study()
    names = {str(p.relative_to(folder)) for p in study.outputs}
    assert {"dictionaries.json", "metrics.jsonl", "summary.json", "plan.json", "sae/seed-4/cfg.json"} <= names
    assert all(p.exists() for p in study.outputs)


def numpy_codes(tensors, config, x):
    """SAELens' formulas for what our variants export."""
    along = (x - tensors["b_dec"]) @ tensors["W_enc"]
    if config["architecture"] == "gated":
        magnitude = along * np.exp(tensors["r_mag"]) + tensors["b_mag"]
        return np.where(along + tensors["b_gate"] > 0, np.maximum(magnitude, 0), 0)
    pre = along + tensors["b_enc"]
    if config["architecture"] == "topk":
        return np.where(pre >= np.sort(pre, axis=1)[:, [-config["k"]]], np.maximum(pre, 0), 0)
    return np.where(pre > tensors.get("threshold", 0.0), pre, 0)


@pytest.mark.parametrize(
    "variant", ["topk", "jumprelu", *(pytest.param(v, marks=pytest.mark.slow) for v in ("batchtopk", "gated", "l1", "matryoshka"))]
)
def test_the_target_l0_is_met_on_held_out_rows_and_the_files_hold_what_the_summary_says(study, stores, variant, capsys):
    """Explained variance and L0 of the exported files, computed again in NumPy on the held-out store, in raw units."""
    _, folder = study(sae__variant=variant, sae__threshold_decay=0.99, train__tokens=96_000, train__lr=5e-3, seeds=(3,))
    x = ActivationStore(stores / "eval").load().acts_ND.astype(np.float64)
    for record in files.read_json(folder / "summary.json")["cells"][0]["per_seed"]:
        home = folder / "sae" / f"seed-{record['seed']}"
        tensors = {name: a.astype(np.float64) for name, a in safetensors.numpy.load_file(home / saelens.WEIGHTS).items()}
        z = numpy_codes(tensors, files.read_json(home / "cfg.json"), x)
        error = np.sum((x - z @ tensors["W_dec"] - tensors["b_dec"]) ** 2)
        assert record["explained_variance"] == pytest.approx(1 - error / np.sum((x - x.mean(0)) ** 2), abs=1e-4)
        assert record["l0"] == pytest.approx((z > 0).sum(1).mean(), abs=0.02)
        assert record["explained_variance"] > 0.6 and abs(record["l0"] / 3 - 1) <= 0.1, record
    assert "miss the target" not in capsys.readouterr().out


def test_b_dec_begins_at_the_median_of_the_first_batch(study, stores):
    _, folder = study()
    order = ShuffledOrder(3000, 0, 16, 512)
    first = ActivationStore(stores / "train").take(order.rows(0, 64))
    start = stacked.load(folder / "round-0" / "snapshots" / "cell-0-part-0-tokens-000000000000.safetensors")
    np.testing.assert_allclose(start.b_dec_D[0], geometric_median(jnp.asarray(first)), atol=1e-3)
    assert (start.b_dec_D == start.b_dec_D[0]).all()


def test_dictionaries_are_kept_where_they_are_asked_for(study):
    _, folder = study(train__eval_at_tokens=(640, 700, 3000))
    listed = dictionary_list.load(folder / "dictionaries.json")
    assert [tokens for tokens, _ in listed.snapshots] == [0, 640, 1280, 3200, 6400]


def test_sparsify_files_hold_the_same_saes(study):
    _, folder = study(train__export_sparsify=True)
    ours, theirs = saelens.load(folder / "sae" / "seed-2")[0], sparsify.load(folder / "sparsify" / "layers.1" / "seed2")[0]
    assert (ours.w_enc_DF == theirs.w_enc_DF).all() and ours.k == theirs.k


def test_what_cannot_be_trained_on_leaves_nothing_behind(study, stores, monkeypatch):
    one_document = lambda self, name: np.zeros(3000, np.int32)
    monkeypatch.setattr(ActivationStore, "column", one_document)
    with pytest.raises(ValueError, match=r"config.train.halves: the store holds a single document"):
        study("w", train__halves=True)


def test_cut_at_any_write_it_ends_with_the_same_bytes(study, monkeypatch):
    """Two rounds of batchtopk with orders of their own, cut before or behind 12 random ones of all writes, and run again."""
    changes = {
        "sae__variant": "batchtopk", "train__seeds_at_once": 2, "data_seed": -1, "seeds": (3,), "train__tokens": 1280, "train__checkpoint_every": 10,
    }  # fmt: skip
    original, writes, cut_at = files.write_bytes, [], []

    def write(path, data, every_process=False):
        writes.append(path)
        if (len(writes), False) in cut_at:
            raise KeyboardInterrupt
        original(path, data, every_process)
        if (len(writes), True) in cut_at:
            raise KeyboardInterrupt

    class Remembered(train.Checkpoints):
        def __init__(self, folder):
            super().__init__(folder)
            under_way.append(self._manager)

    under_way: list = []
    monkeypatch.setattr(train, "Checkpoints", Remembered)
    for module in (files, metrics_module):
        monkeypatch.setattr(module, "write_bytes", write)
    _, folder = study("unbroken", **changes)
    whole, total = {str(p.relative_to(folder)): sha(p) for p in study.outputs}, len(writes)
    rng = np.random.default_rng(0)
    for cut in range(12):
        place = int(rng.integers(1, total + 1)), bool(rng.integers(2))
        writes.clear()
        cut_at.append(place)
        with pytest.raises(KeyboardInterrupt):
            study(f"cut-{cut}", **changes)
        for manager in under_way:  # in a killed process nothing is under way any more
            manager.wait_until_finished()
        under_way.clear()
        cut_at.clear()
        _, folder = study(f"cut-{cut}", **changes)
        assert {p: sha(folder / p) for p in whole} == whole, place


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_seed_that_is_not_finite_is_named_and_left_out_downstream(study, stores, monkeypatch, capsys, tmp_path):
    original = train.init_lanes

    def poisoned(*args):
        state = original(*args)
        return state.replace(params=state.params.replace(w_enc_DF=state.params.w_enc_DF.at[1, 0, 0].set(jax.numpy.nan)))

    _, clean = study("clean")
    monkeypatch.setattr(train, "init_lanes", poisoned)
    c, folder = study("frozen")
    assert "warning: seeds 1 were not finite" in capsys.readouterr().out
    cell = files.read_json(folder / "summary.json")["cells"][0]
    assert cell["frozen_seeds"] == [1] and cell["per_seed"][1]["frozen_at_step"] == 0 and cell["explained_variance"]["n"]["number"] == 4
    assert all(m["frozen_at"] == [-1, 0, -1, -1, -1] for m in files.read_json_lines(folder / "metrics.jsonl"))
    assert [weights(folder, s) for s in (0, 2, 3, 4)] == [weights(clean, s) for s in (0, 2, 3, 4)]
    summary = measured(c, folder.parent)
    assert summary["seeds"] == [0, 2, 3, 4] and summary["frozen_seeds"] == [1]
    assert "seed 1 left out: not finite at step 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arm", "same"),
    [
        ({}, None),
        ({"init_seed": 3, "data_seed": 0}, "all"),  # nothing differs
        ({"init_seed": 3, "data_seed": -1}, "init"),
        ({"init_seed": 3, "data_seed": 0, "train__halves": True}, "half"),
    ],
    ids=["init", "nothing", "order", "data"],
)
def test_the_arms_of_the_seed_factorial(study, arm, same, capsys):
    _, folder = study(seeds=(4,), **arm)
    study.warned = "get the same initialisation, order and data" in capsys.readouterr().out
    start = stacked.load(folder / "round-0" / "snapshots" / "cell-0-part-0-tokens-000000000000.safetensors")
    assert study.warned == (same in ("all", "half"))
    equal_start = [(start.w_dec_FD[i] == start.w_dec_FD[0]).all() for i in range(4)]
    equal_end = [weights(folder, s) == weights(folder, 0) for s in range(4)]
    assert equal_start == [True, *([same is not None] * 3)]
    assert (
        equal_end
        == {None: [True, False, False, False], "all": [True] * 4, "init": [True, False, False, False], "half": [True, False] * 2}[same]
    )


def test_one_initialisation_for_all_is_no_null(study):
    """The untrained SAEs of the order arm are equal: as a null they would say that all of p̂ is chance."""
    c, folder = study(init_seed=3, data_seed=-1, seeds=(3,))
    summary = measured(c, folder.parent)
    assert "untrained" not in summary["null_models"] and summary["mean_p_all"]["null"] < 0.9
    assert summary["saes"]["training"].startswith("they differ in order of activations and saw 6,400 tokens")


def test_each_is_given_its_order_and_half(stores, tmp_path):
    of = task("train", small(data_seed=-1, train__halves=True, seeds=(4, 7, 9)), tmp_path)
    members = population.of_study(of).members
    assert [(m.seed, m.init_seed, m.order_seed, m.half) for m in members] == [(4, 4, 4, 0), (7, 7, 7, 1), (9, 9, 9, 0)]
    store = ActivationStore(stores / "train")
    (tmp_path / "activations").symlink_to(stores)
    document = store.column("document")
    given = population.streams(sources.source(of), members)
    acts = store.load().acts_ND
    for member, stream in zip(members, given, strict=True):
        wanted = acts[document % 2 == member.half]
        got = stream.rows(0, len(wanted))
        assert (np.sort(got[:, 0]) == np.sort(wanted[:, 0])).all()
    assert (given[0].rows(0, 50) != given[2].rows(0, 50)).any()


def test_gaussian_rows_in_place_of_activations(study, stores):
    _, folder = study(train__data="gaussian")
    _, real = study("real")
    ev = lambda f: files.read_json(f / "summary.json")["cells"][0]["explained_variance"]["value"]
    assert 0.2 < ev(folder) < ev(real)  # no structure to find, but directions of more variance


def test_a_target_that_is_missed_and_features_that_do_not_fire_are_named(study, capsys):
    study(sae__variant="l1", train__tokens=640, sae__control_rate=1e-6)
    assert "miss the target L0 of 3 by more than 10%" in capsys.readouterr().out
    study("few", sae__n_features=3, train__tokens=6400, train__lr=1.0)
    assert "have fewer features that fire than config.sae.k=3" in capsys.readouterr().out


def test_a_plan_of_other_saes_is_refused(study):
    _, folder = study()
    plan = files.read_record(folder / "plan.json", "", None)
    files.write_record(folder / "plan.json", plan | {"rounds": [[0, 4]]})
    with pytest.raises(ValueError, match=r"plan.json is not of 5 SAEs"):
        study()
    files.write_json(folder / "plan.json", plan | {"scale": plan["scale"] * 2, "sha256": files.digest(plan)})
    with pytest.raises(ValueError, match=r"plan.json is damaged: it does not match its own checksum: train again"):
        study()


@pytest.mark.parametrize("field", ["lanes", "seeds_at_once"])
def test_a_single_sae_is_no_group(field):
    with pytest.raises(ValueError, match=f"config.train.{field}=1: 0 .* or at least 2"):
        Rounds(**{field: 1})


def test_checkpoints_stand_between_dispatches():
    with pytest.raises(ValueError, match="config.train.checkpoint_every=55: must be a multiple of steps_per_dispatch=10"):
        task("train", small(train__checkpoint_every=55))
