"""What runs, what is skipped, what is refused; with stages of no cost."""

import json
import types

import ml_collections
import pytest
from etils import epath

from launch import runner, signals
from launch.stages import Stage

RAN = []


class FakeStage(Stage):
    def run(self, config, workdir):
        RAN.append(self.name)
        path = workdir / self.name / "out.txt"
        path.write_text(f"{self.name} of {config.content[self.name]}")
        (workdir / self.name / "summary.json").write_text(json.dumps({"ran": self.name}))
        return [path, workdir / self.name / "summary.json"]

    def inputs(self, config):
        return {"outside": config.outside} if self.name == "dear" else {}


@pytest.fixture
def run(monkeypatch, tmp_path):
    stages = [
        FakeStage("dear", ("source",), guarded=True),
        FakeStage("middle", ("analysis.a",), after=("dear",)),
        FakeStage("last", ("analysis.b",), after=("dear", "middle")),
    ]
    monkeypatch.setattr(runner, "STAGES", {s.name: s for s in stages})
    signals.reset()

    def go(only=(), overwrite=False, outside="x", content=None, **changes):
        config = ml_collections.ConfigDict({"stages": ("dear", "middle", "last"), "source": {"n": 1}, "analysis": {"a": 1, "b": 1}})
        for field, value in changes.items():
            section, name = field.split("_")
            config[section][name] = value
        RAN.clear()
        settings = types.SimpleNamespace(outside=outside, content=content or dict.fromkeys(("dear", "middle", "last"), "same"))
        runner.run_stages(config, settings, epath.Path(tmp_path / "w"), list(only), overwrite)
        return list(RAN)

    go.workdir = tmp_path / "w"
    return go


def test_all_run_once_and_results_are_merged(run):
    assert run() == ["dear", "middle", "last"]
    assert run() == []
    assert json.loads((run.workdir / "summary.json").read_text()) == {n: {"ran": n} for n in ("dear", "middle", "last")}
    assert json.loads((run.workdir / "config.json").read_text())["source"] == {"n": 1}


def test_changed_analysis_runs_that_stage_alone_if_its_results_are_the_same(run):
    run()
    assert run(analysis_a=2) == ["middle"]
    assert run(analysis_a=2, analysis_b=3) == ["last"]


def test_stages_after_one_with_other_results_run_again(run):
    run()
    assert run(analysis_a=2, content={"dear": "same", "middle": "new", "last": "same"}) == ["middle", "last"]


def test_another_source_is_refused_by_name_and_nothing_is_lost(run):
    run()
    before = (run.workdir / "dear" / "out.txt").read_bytes()
    with pytest.raises(ValueError, match=r"config.source.n=1, now 2.*--overwrite"):
        run(source_n=2)
    with pytest.raises(ValueError, match=r"config.source.n"):
        run(only=["last"], source_n=2)  # also when the stage itself was not asked for
    assert (run.workdir / "dear" / "out.txt").read_bytes() == before and run() == []
    assert run(source_n=2, overwrite=True)[0] == "dear"


def test_changed_inputs_from_outside_are_refused_by_name(run):
    run()
    with pytest.raises(ValueError, match=r"\(outside changed\)"):
        run(outside="y")


def test_a_part_of_the_stages(run):
    with pytest.raises(ValueError, match="'middle' reads what 'dear' writes, which is not there"):
        run(only=["middle"])
    assert run(only=["dear"]) == ["dear"]
    assert run(only=["middle"]) == ["middle"]
    with pytest.raises(ValueError, match="--stages: .*'nothing'"):
        run(only=["nothing"])


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_result_that_is_missing_or_cut_is_made_again(run, damage, capsys):
    run()
    path = run.workdir / "middle" / "out.txt"
    path.unlink() if damage == "gone" else path.write_text("m")
    assert run() == ["middle"]
    assert "middle/out.txt is missing or cut" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_damaged_result_of_a_dear_stage_is_refused_and_overwrite_makes_it_again(run, damage):
    run()
    path = run.workdir / "dear" / "out.txt"
    whole = path.read_text()
    path.unlink() if damage == "gone" else path.write_text("d" if damage == "cut" else whole.replace("same", "emas"))
    if damage != "changed":  # equal length: who reads it finds it by its checksum
        with pytest.raises(ValueError, match=r"dear/out.txt is missing or cut short: --overwrite"):
            run()
    assert run(overwrite=True) == ["dear"]
    assert path.read_text() == whole and run() == []


def test_a_part_of_the_stages_never_reads_results_that_are_out_of_date(run):
    run()
    with pytest.raises(ValueError, match="'last' reads what 'middle' writes, which is not there or out of date"):
        run(only=["last"], analysis_a=2)
    new = {"dear": "same", "middle": "new", "last": "same"}
    assert run(only=["middle"], analysis_a=2, content=new) == ["middle"]
    assert json.loads((run.workdir / "summary.json").read_text()).keys() == {"dear", "middle"}  # `last` does not fit any more


@pytest.mark.parametrize("wrote", [False, True])
def test_a_failed_first_run_takes_the_workdir_only_if_it_made_something(run, monkeypatch, wrote):
    def fail(self, config, workdir):
        (workdir / self.name / "half").mkdir()
        if wrote:
            (workdir / self.name / "half" / "shard").write_text("work")
        raise ValueError("damaged model")

    with monkeypatch.context() as patch:
        patch.setattr(FakeStage, "run", fail)
        with pytest.raises(ValueError, match="damaged model"):
            run()
    if wrote:
        with pytest.raises(ValueError, match="config.source.n"):
            run(source_n=2)
    else:
        assert run(source_n=2) == ["dear", "middle", "last"]


def test_leftovers_without_a_record_are_cleared(run):
    (run.workdir / "dear").mkdir(parents=True)
    (run.workdir / "dear" / "old.bin").write_text("of another config, its removal was killed")
    run()
    assert not (run.workdir / "dear" / "old.bin").exists()


def test_an_unfinished_stage_runs_again_without_losing_its_folder(run):
    run()
    record = json.loads((run.workdir / "dear" / "stage.json").read_text())
    (run.workdir / "dear" / "stage.json").write_text(json.dumps(record | {"status": "started"}))
    (run.workdir / "dear" / "half.bin").write_text("half")
    assert run() == ["dear"]
    assert (run.workdir / "dear" / "half.bin").exists()


def test_a_signal_stops_before_the_next_stage(run, monkeypatch):
    monkeypatch.setattr(signals, "_requested", ["SIGTERM"])
    with pytest.raises(signals.Stopped, match="before dear"):
        run()


def test_a_workdir_that_cannot_be_made(run, tmp_path):
    (tmp_path / "w").write_text("a file")
    with pytest.raises(ValueError, match="--workdir=.*cannot be written"):
        run()


def test_two_processes_do_not_share_a_workdir(run):
    run()
    with runner._alone_in(run.workdir), pytest.raises(ValueError, match="another process runs there; wait for it"):
        run()
    run()


def test_a_damaged_record_is_named(run):
    run()
    (run.workdir / "dear" / "stage.json").write_text("{")
    with pytest.raises(ValueError, match="dear/stage.json is damaged"):
        run()
