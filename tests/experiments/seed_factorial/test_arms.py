"""The seed factorial: parts of instability from tables, its arms and what they are measured by on a small store."""

import types

import numpy as np
import pytest
from etils import epath

from configs import seed_factorial
from experiments import registry
from experiments.seed_factorial import arms as measuring
from experiments.seed_factorial import design
from experiments.training import population, train
from launch import own_process
from stability.transfer import Labelled
from storage import files, tables
from tests.experiments.tasks import run_stage
from tests.experiments.training.test_train_stage import stores as stores  # a fixture


def table(p, s=6, across=None):
    p_SS = np.full((s, s), p)
    if across is not None:
        p_SS[~design.same_half(s)] = across
    np.fill_diagonal(p_SS, np.nan)
    return p_SS


def test_parts_sum_to_the_instability_of_both():
    found = design.decomposed({design.INITIALISATION: table(0.5), design.ORDER: table(0.9), design.BOTH: table(0.4)}, 0.01, 0.95)
    values = {name: e.value for name, e in found.items()}
    assert values["instability, both"] == pytest.approx(0.6) and found["instability, both"].null == pytest.approx(0.99)
    assert values["of it initialisation"] == pytest.approx((0.5 + 0.6 - 0.1) / 2)
    assert values["of it order"] == pytest.approx((0.1 + 0.6 - 0.5) / 2)
    assert values["of it initialisation"] + values["of it order"] == pytest.approx(values["instability, both"])
    assert values["initialisation and order together less than apart by"] == pytest.approx(0.0)


def test_other_documents_are_held_against_the_same_half():
    found = design.decomposed({design.DATA: table(0.8, across=0.5)}, 0.01, 0.95)
    assert list(found) == ["added by other documents"] and found["added by other documents"].value == pytest.approx(0.3)
    within, across = design.split_by_half(table(0.8, s=4, across=0.5))
    assert np.nansum(within == 0.8) == 4 and np.nansum(across == 0.5) == 8 and np.isnan(within[0, 1]) and np.isnan(across[0, 2])


def small(*arms, **changes):
    c = seed_factorial.get_config("tiny")
    c.sae.n_features, c.sae.k = 32, 3
    c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 6400, 64, 10, 50
    c.train.shuffle_block, c.train.shuffle_window, c.train.snapshots, c.train.eval_rows = 16, 512, 2, 600
    if arms:
        c.stages = ("activations", *(f"{design.GROUP}/{arm}" for arm in arms), "arms", "report")
    with c.unlocked():
        c.update_from_flattened_dict({field.replace("__", "."): value for field, value in changes.items()})
    return c


class InThisProcess:
    """Stands for a process, so that what it trains can be seen."""

    class Process:
        exitcode = 0

        def __init__(self, target, args):
            self.start = lambda: target(*args)

        def is_alive(self):
            return False


def runs_of(c, workdir):
    """The tasks of a config that are arms, in order."""
    tasks = registry.tasks(registry.validated(c), workdir)
    return {t.run.removeprefix(f"{design.GROUP}/"): t for t in tasks if t.run}


def test_arms_are_runs_that_differ_in_one_thing():
    of = runs_of(small(), epath.Path("nowhere"))
    given = {}
    for arm, t in of.items():
        members = population.of_study(t).members
        given[arm] = ({m.init_seed for m in members}, {m.order_seed for m in members}, {m.half for m in members})
    own, one = {0, 1, 2, 3}, {0}
    assert given == {
        design.INITIALISATION: (own, one, {None}),
        design.ORDER: (one, own, {None}),
        design.BOTH: (own, own, {None}),
        design.DATA: (one, own, {0, 1}),
        "nothing/first": (one, one, {None}),
        "nothing/second": (one, one, {None}),
    }
    assert {arm: len(population.of_study(t).members) for arm, t in of.items()} == {
        arm: 2 if arm.startswith(design.NOTHING) else 4 for arm in given
    }
    assert [arm for arm, t in of.items() if own_process.is_wanted(t)] == ["nothing/first", "nothing/second"]


@pytest.mark.slow
def test_where_nothing_differs_two_processes_give_exactly_one(stores, tmp_path, capfd, monkeypatch):
    c = small(design.DATA, design.NOTHING)
    (tmp_path / "activations").symlink_to(stores)
    workdir = epath.Path(tmp_path)

    def trained():
        outputs = []
        for t in runs_of(c, workdir).values():
            if own_process.is_wanted(t):
                own_process.run(t)
            outputs += run_stage("train", c, workdir, t.run)
        return outputs

    outputs = trained()
    assert all(p.exists() for p in outputs) and len({str(p) for p in outputs}) == len(outputs)
    monkeypatch.setattr(train, "_train", lambda *a: pytest.fail("trained again"))
    monkeypatch.setattr(own_process.multiprocessing, "get_context", lambda *_: InThisProcess)
    assert trained() == outputs
    run_stage("arms", c, workdir)
    summary = files.read_json(workdir / "arms" / "summary.json")
    assert summary["p, nothing"]["value"] == 1.0 and summary["p, nothing"]["n"] == {"number": 2, "of": "processes"}
    rows = {r["arm"]: r for r in tables.read_records(workdir / "arms" / "arms.parquet")}
    assert rows["nothing"]["note"] == "equal to the last bit" and rows["nothing"]["mmcs"] == pytest.approx(1.0)
    assert summary["two processes equal to the last bit"] is True
    own, other = rows["order alone, on half of the documents"], rows[design.DATA]
    assert 0 <= other["value"] <= 1 and own["l0"] == pytest.approx(3, abs=0.1) and 0 <= own["dead_share"] < 1
    assert summary["added by other documents"]["value"] == pytest.approx(own["value"] - other["value"])
    run_stage("report", c, workdir)
    page = (workdir / "report" / "index.html").read_text()
    assert "equal to the last bit" in page and "added by other documents" in page and 'id="arms"' in page
    assert "warning" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seeds": (3,)}, "config.seeds.*at least 4"),
        ({"init_seed": 0}, "config.init_seed=0.*leave -1"),
        ({"data_seed": 1}, "config.data_seed=1.*leave 0"),
        ({"train__halves": True}, "config.train.halves=True.*leave False"),
        ({"sweep__k": (2, 3), "stages": ("activations", "factorial")}, "config.sweep|config.stages"),
    ],
)
def test_studies_that_say_themselves_what_differs_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        registry.validated(small(**changes))


def test_unknown_arms_are_refused():
    with pytest.raises(ValueError, match="config.stages='factorial/nonsense': one of .*'factorial/order'.*'factorial/nothing'"):
        registry.validated(small("nonsense"))


def test_classifiers_go_from_arm_to_arm():
    rng = np.random.default_rng(0)

    def arm(sign):
        unstable = np.arange(40) % 2 == 0
        rows = rng.normal(size=(40, 6)) + 4 * sign * unstable[:, None]
        return Labelled(
            rows / np.linalg.norm(rows, axis=1, keepdims=True), rng.normal(size=40), rng.normal(size=40), unstable, np.arange(40)
        )

    table = measuring._transfer_scores({"one": arm(1), "like it": arm(1), "the other way round": arm(-1)})
    rows = {
        (a, b): x
        for a, b, p, x in zip(*(table[n] for n in ("trained_on", "judged_on", "predictor", "auroc")), strict=True)
        if p == "decoder rows"
    }
    assert len(rows) == 6 and rows["one", "like it"] > 0.9 and rows["like it", "the other way round"] < 0.5


def test_without_arms_there_are_no_parts():
    assert design.decomposed({}, 0.0, 0.95) == {}


def test_whatever_ends_a_process_of_its_own_is_said_in_one_line(monkeypatch, tmp_path, capsys):
    def fail(task):
        raise TypeError("unsupported operand")

    monkeypatch.setattr("launch.run.outputs_of", fail)
    monkeypatch.setattr(
        own_process.registry, "task_of", lambda *args: types.SimpleNamespace(folder=epath.Path(tmp_path), label="arm/train")
    )
    with pytest.raises(SystemExit):
        own_process._child(None, "train", "arm", str(tmp_path))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("arm/train: unexpected TypeError, please report it with ")
