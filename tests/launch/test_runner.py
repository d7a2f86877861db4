"""What runs, what is skipped, what is refused; with stages of no cost."""

import json
import types

import ml_collections
import pytest
from etils import epath

from launch import records, runner, signals, workdirs
from launch.stages import Stage
from storage import files

RAN = []


class FakeStage(Stage):
    def run(self, config, workdir):
        RAN.append(self.name)
        path = workdir / self.name / "out.txt"
        files.write_bytes(path, f"{self.name} of {config.content[self.name]}".encode())
        files.write_json(workdir / self.name / "summary.json", {"ran": self.name})
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

    def go(only=(), overwrite=False, outside="x", content=None, paths=None, **changes):
        config = ml_collections.ConfigDict({"stages": ("dear", "middle", "last"), "source": {"n": 1}, "analysis": {"a": 1, "b": 1}})
        for field, value in changes.items():
            section, name = field.split("_")
            config[section][name] = value
        for field, place in (paths or {}).items():
            section, name = field.split(".")
            config.update({section: {name: place}})
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


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_dear_stage_outlives_a_field_that_it_declares_later(run, monkeypatch, capsys, overwrite):
    run()
    _, *others = runner.STAGES.values()
    grown = FakeStage("dear", ("source", "analysis.a"), guarded=True, later=("analysis.a",))
    monkeypatch.setattr(runner, "STAGES", {s.name: s for s in (grown, *others)})
    capsys.readouterr()
    assert run(overwrite=overwrite) == []
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "older" in line]
    assert line.startswith("dear: the record of ") and line.endswith("taken to have been as now: config.analysis.a=1")
    assert records.read(epath.Path(run.workdir), "dear", guarded=True)["fingerprint"]["config"] == {"source.n": 1, "analysis.a": 1}
    assert run() == [] and "older" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"config.analysis.a=1, now 2.*--overwrite"):
        run(analysis_a=2)


def test_a_later_field_hides_no_other_change(run, monkeypatch):
    run()
    _, *others = runner.STAGES.values()
    grown = FakeStage("dear", ("source", "analysis.a"), guarded=True, later=("analysis.a",))
    monkeypatch.setattr(runner, "STAGES", {s.name: s for s in (grown, *others)})
    with pytest.raises(ValueError, match=r"config.source.n=1, now 2"):
        run(source_n=2)
    assert records.read(epath.Path(run.workdir), "dear", guarded=True)["fingerprint"]["config"] == {"source.n": 1}
    not_later = FakeStage("dear", ("source", "analysis.a"), guarded=True)
    monkeypatch.setattr(runner, "STAGES", {s.name: s for s in (not_later, *others)})
    with pytest.raises(ValueError, match=r"config.analysis.a=None, now 1"):
        run()


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


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_cheap_result_that_is_not_what_it_was_is_made_again(run, damage, capsys):
    run()
    path = run.workdir / "middle" / "out.txt"
    path.unlink() if damage == "gone" else path.write_text("m" if damage == "cut" else path.read_text().replace("same", "emas"))
    assert run() == ["middle"]
    told = "middle/out.txt does not match its sha256" if damage == "changed" else "middle/out.txt is missing or cut"
    assert told in capsys.readouterr().out
    assert path.read_text() == "middle of same" and run() == []


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_damaged_result_of_a_dear_stage_is_refused_and_overwrite_makes_it_again(run, damage):
    run()
    path = run.workdir / "dear" / "out.txt"
    whole = path.read_text()
    path.unlink() if damage == "gone" else path.write_text("d" if damage == "cut" else whole.replace("same", "emas"))
    what = "does not match its sha256" if damage == "changed" else "is missing or cut short"
    with pytest.raises(ValueError, match=rf"dear/out.txt {what}: put the file back from a copy, or --overwrite to run 'dear' again"):
        run()
    assert run(overwrite=True) == ["dear"]
    assert path.read_text() == whole and run() == []
    assert sorted(p.name for p in run.workdir.iterdir() if p.is_dir()) == [".records", "dear", "last", "middle"]


@pytest.mark.parametrize("stage", ["dear", "middle"])
def test_a_result_that_grew_is_seen(run, stage, capsys):
    run()
    path = run.workdir / stage / "out.txt"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"x")
    says = f"{stage}/out.txt is not the file of {size} bytes that was written"
    if stage == "dear":
        with pytest.raises(ValueError, match=f"{says}: put the file back"):
            run()
    else:
        assert run() == ["middle"] and says in capsys.readouterr().out


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


@pytest.mark.parametrize("stage", ["dear", "middle"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_ours_is_refused_and_untouched(run, stage, overwrite):
    theirs = run.workdir / stage / "data" / "mine.npy"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("a year of work")
    with pytest.raises(ValueError, match=rf"w/{stage} holds files, its record stage.json is not there: put .* or move .*{stage} away"):
        run(overwrite=overwrite)
    assert theirs.read_text() == "a year of work" and RAN == []
    (run.workdir / "last").mkdir()  # an empty one is nobody's
    theirs.rename(run.workdir / "mine.npy")
    theirs.parent.rmdir()
    assert run() == ["dear", "middle", "last"]


def test_a_file_of_the_name_of_a_stage_is_refused(run):
    run.workdir.mkdir()
    (run.workdir / "middle").write_text("mine")
    with pytest.raises(ValueError, match="middle is a file, and the stage 'middle' writes a folder of that name"):
        run()
    assert (run.workdir / "middle").read_text() == "mine"


@pytest.mark.parametrize("stage", ["dear", "middle"])
def test_files_of_others_in_a_stage_outlive_it(run, stage, capsys):
    """What lies beside results and was not written by a run is never removed, whatever makes the stage run again."""
    run()
    theirs = run.workdir / stage / "notes" / "mine.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    (run.workdir / stage / "out.txt").write_text("damaged")
    assert run(overwrite=True) == [stage]
    left = list(run.workdir.rglob("mine.txt"))
    assert [p.read_text() for p in left] == ["mine"] and left[0].parent.parent.name == f"{stage}.replaced-1"
    assert [p.name for p in left[0].parent.parent.rglob("*") if p.is_file()] == ["mine.txt"]  # of the program nothing is left
    said = capsys.readouterr().out
    assert "keeps 1 files that are not the program's, e.g. notes/mine.txt" in said
    assert run() == [] and left[0].exists()


def test_what_is_overwritten_stays_until_the_new_result_is_complete(run, monkeypatch, capsys):
    run()
    with monkeypatch.context() as patch:
        patch.setattr(signals, "raise_if_stop_requested", lambda why: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(source_n=2, overwrite=True)
    kept = run.workdir / "dear.replaced-1" / "out.txt"
    assert kept.read_text() == "dear of same" and not (run.workdir / "dear").exists()
    assert "what was there (0.0 MB) is in" in capsys.readouterr().out
    assert run(source_n=2)[0] == "dear" and not kept.parent.exists()


def test_an_overwriting_run_that_fails_at_once_puts_back_what_was_there(run, monkeypatch):
    run()

    def fail(self, config, workdir):
        raise ValueError("wrong path")

    with monkeypatch.context() as patch:
        patch.setattr(FakeStage, "run", fail)
        with pytest.raises(ValueError, match="wrong path"):
            run(source_n=2, overwrite=True)
    assert run() == [] and not list(run.workdir.glob("*.replaced-*"))


@pytest.mark.parametrize("state", ["not there", "damaged"])
@pytest.mark.parametrize("stage", ["dear", "middle"])
def test_a_record_is_written_again_from_its_copy_where_the_files_are_what_it_says(run, stage, state, capsys):
    run()
    path = run.workdir / stage / "stage.json"
    whole = path.read_bytes()
    path.unlink() if state == "not there" else path.write_bytes(whole.replace(b'"done"', b'"gone"'))
    assert run() == [] and path.read_bytes() == whole
    assert f"stage.json was {state}, and is written again" in capsys.readouterr().out


def test_a_dear_stage_in_the_middle_goes_on_without_its_record(run):
    run()
    path = run.workdir / "dear" / "stage.json"
    files.write_record(path, files.read_record(path, "", None) | {"status": "started", "outputs": {}})
    run.workdir.joinpath(".records", "dear.json").write_bytes(path.read_bytes())
    path.unlink()
    (run.workdir / "dear" / "half.bin").write_text("25 hours of training")
    assert run() == ["dear"]
    assert (run.workdir / "dear" / "half.bin").read_text() == "25 hours of training"


def test_without_record_and_copy_a_dear_stage_is_refused_and_a_cheap_one_is_made_again(run):
    run()
    for stage in ("dear", "middle"):
        (run.workdir / stage / "stage.json").unlink()
        (run.workdir / ".records" / f"{stage}.json").unlink()
    with pytest.raises(ValueError, match="dear holds files, its record stage.json is not there: put stage.json back"):
        run()
    (run.workdir / "dear").rename(run.workdir / "put-away")
    assert run() == ["dear", "middle"]
    assert (run.workdir / "put-away" / "out.txt").exists()


@pytest.mark.parametrize("name", [".git", "pyproject.toml", "__init__.py", "package/__init__.py"])
def test_a_source_tree_is_no_workdir(run, name):
    path = run.workdir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    with pytest.raises(ValueError, match=r"--workdir=.* holds .*name a folder for results"):
        run(overwrite=True)
    assert [p for p in run.workdir.rglob("*") if p.is_file()] == [path]


@pytest.mark.parametrize("name", ["config.json", "summary.json", "wall_times.jsonl"])
def test_files_of_others_are_not_written_over(run, name):
    run.workdir.mkdir()
    (run.workdir / name).write_text("of my model")
    with pytest.raises(ValueError, match=f"holds a {name} of somebody else"):
        run()
    assert [p.name for p in run.workdir.iterdir()] == [name]


def test_inputs_inside_a_stage_are_refused(run):
    theirs = run.workdir / "dear" / "mine.npy"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("rows")
    for field, place in (("source.activations", "/elsewhere.npy,{}"), ("source.text", "{}"), ("lm.path", "{}")):
        with pytest.raises(ValueError, match=rf"config.{field}=.* lies in .*w/dear, which the stage 'dear' owns: move it"):
            run(paths={field: place.format(theirs)})
    assert theirs.read_text() == "rows"
    with pytest.raises(ValueError, match="config.source.text=.* holds --workdir"):
        run(paths={"source.text": str(run.workdir.parent)})


def test_an_error_is_logged_while_it_stands(run, monkeypatch):
    def fail(self, config, workdir):
        raise ValueError("damaged model")

    log = run.workdir / "error.log"
    with monkeypatch.context() as patch:
        patch.setattr(FakeStage, "run", fail)
        with pytest.raises(ValueError, match="damaged model"):
            run()
    assert "damaged model" in log.read_text()
    run()
    assert not log.exists()
    with workdirs.alone(epath.Path(run.workdir)):
        with pytest.raises(workdirs.Busy):
            run()
        assert not log.exists()  # it would tell of the process that runs
    log.write_text("a user's own")
    run()
    assert log.read_text() == "a user's own"


def test_an_unfinished_stage_runs_again_without_losing_its_folder(run):
    run()
    path = run.workdir / "dear" / "stage.json"
    files.write_record(path, files.read_record(path, "", None) | {"status": "started"})
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
    with workdirs.alone(epath.Path(run.workdir)), pytest.raises(ValueError, match="another process runs there; wait for it"):
        run()
    run()


def test_large_results_are_verified_by_who_reads_them(run, monkeypatch):
    monkeypatch.setattr(records, "VERIFIED", 4)
    run()
    path = run.workdir / "dear" / "out.txt"
    path.write_text(path.read_text().replace("same", "emas"))
    assert run() == []  # nobody reads it
    with pytest.raises(ValueError, match="dear/out.txt does not match its sha256: put the file back"):
        run(analysis_a=2)
