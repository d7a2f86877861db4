"""What runs, what is skipped, what is refused; with stages of no cost."""

import json

import pytest
from etils import epath

from experiments import registry
from runtime import interrupts, records
from storage import files
from tests.experiments import fake_stages
from tests.experiments.fake_stages import First, Second, Source

run = fake_stages.run


def test_all_run_once_and_results_are_merged(run):
    assert run() == ["dear", "middle", "last"]
    assert run() == []
    assert json.loads((run.workdir / "summary.json").read_text()) == {n: {"ran": n} for n in ("dear", "middle", "last")}
    assert json.loads((run.workdir / "config.json").read_text())["source"] == {"n": 1, "activations": "", "text": ""}


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
    monkeypatch.setattr(registry, "house", lambda: fake_stages.dear(reads=(First,)))
    capsys.readouterr()
    assert run(overwrite=overwrite) == []
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "older" in line]
    assert line.startswith("dear: the record of ") and line.endswith("taken to have been as now: config.analysis.a=1")
    assert records.read(epath.Path(run.workdir), "dear", guarded=True)["fingerprint"]["config"] == {"source.n": 1, "analysis.a": 1}
    assert run() == [] and "older" not in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"config.analysis.a=1, now 2.*--overwrite"):
        run(analysis_a=2)


def test_a_later_field_that_is_not_at_its_default_is_refused(run, monkeypatch):
    """Results from before there was the field are as with its default; nothing says that they are as with another value."""
    run()
    monkeypatch.setattr(registry, "house", lambda: fake_stages.dear(reads=(First,)))
    with pytest.raises(ValueError, match=r"was made before there was config.analysis.a, now 3.*--overwrite"):
        run(analysis_a=3)
    assert run() == []


def test_a_later_field_hides_no_other_change(run, monkeypatch):
    run()
    monkeypatch.setattr(registry, "house", lambda: fake_stages.dear(reads=(First,)))
    with pytest.raises(ValueError, match=r"config.source.n=1, now 2"):
        run(source_n=2)
    assert records.read(epath.Path(run.workdir), "dear", guarded=True)["fingerprint"]["config"] == {"source.n": 1}


def test_a_dear_stage_outlives_a_field_that_it_declares_no_more(run, monkeypatch, capsys):
    monkeypatch.setattr(registry, "house", lambda: fake_stages.dear(reads=(First,)))
    run()
    monkeypatch.setattr(registry, "house", lambda: fake_stages.house_of(*fake_stages.STAGES))
    assert run(analysis_a=2) == ["middle"] and "older" not in capsys.readouterr().out
    assert records.read(epath.Path(run.workdir), "dear", guarded=True)["fingerprint"]["config"] == {"source.n": 1}
    with pytest.raises(ValueError, match=r"config.source.n=1, now 2.*--overwrite"):
        run(source_n=2)


def test_how_something_is_computed_and_where_it_lies_make_nothing_anew(run, tmp_path):
    run()
    assert run(analysis_lanes=4) == []
    assert run(paths={"source.activations": str(tmp_path / "rows.npy"), "lm.path": str(tmp_path / "model")}) == []


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


def test_from_a_stage_on(run):
    run()
    with pytest.raises(ValueError, match="--from: 'nothing' is not among this config's stages"):
        run(start="nothing")
    assert run(start="middle") == []
    with pytest.raises(ValueError, match=r"'last' reads what 'middle' writes, which is not there or out of date"):
        run(start="last", analysis_a=2)
    new = {"middle": "new"}
    assert run(start="middle", analysis_a=2, analysis_b=2, content=new) == ["middle", "last"]
    assert run(start="middle", only=["middle"], analysis_a=3, content={"middle": "newer"}) == ["middle"]
    assert run(start="dear", only=["last"], analysis_a=3, content=new) == ["last"]


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
    def fail(task, out):
        (out.folder / "half").mkdir()
        if wrote:
            (out.folder / "half" / "shard").write_text("work")
        raise ValueError("damaged model")

    with monkeypatch.context() as patch:
        patch.setattr(fake_stages, "work", fail)
        with pytest.raises(ValueError, match="damaged model"):
            run()
    if wrote:
        with pytest.raises(ValueError, match="config.source.n"):
            run(source_n=2)
    else:
        assert run(source_n=2) == ["dear", "middle", "last"]


def test_an_unfinished_stage_runs_again_without_losing_its_folder(run):
    run()
    path = run.workdir / "dear" / "stage.json"
    files.write_record(path, files.read_record(path, "", None) | {"status": "started"})
    (run.workdir / "dear" / "half.bin").write_text("half")
    assert run() == ["dear"]
    assert (run.workdir / "dear" / "half.bin").exists()


def test_a_signal_stops_before_the_next_stage(run, monkeypatch):
    monkeypatch.setattr(interrupts, "_requested", ["SIGTERM"])
    with pytest.raises(interrupts.Stopped, match="before dear"):
        run()


def test_large_results_are_verified_by_who_reads_them(run, monkeypatch):
    monkeypatch.setattr(records, "VERIFIED", 4)
    run()
    path = run.workdir / "dear" / "out.txt"
    path.write_text(path.read_text().replace("same", "emas"))
    assert run() == []  # nobody reads it
    with pytest.raises(ValueError, match="dear/out.txt does not match its sha256: put the file back"):
        run(analysis_a=2)


@pytest.fixture
def with_runs(run, monkeypatch):
    """A stage `train` that may be done once more with other settings, and one that reads what comes of it."""
    train = fake_stages.stage("train", config=Second, reads=(Source,), guarded=True)
    judge = fake_stages.stage("judge", config=First, needs=("train",), uses=("arms",))
    monkeypatch.setattr(registry, "house", lambda: fake_stages.house_of(train, judge))
    runs = {"arms/one": {"analysis": {"b": 2}}, "arms/two": {"source": {"n": 5}}, "alone": {"analysis": {"b": 3}}}

    def go(stages=("train", "judge", "arms"), runs=runs, **more):
        return run(stages=stages, runs=runs, **more)

    go.workdir = run.workdir
    return go


def test_a_run_is_a_stage_once_more_with_other_settings(with_runs):
    assert with_runs() == ["train", "arms/one/train", "arms/two/train", "judge"] and with_runs() == []
    kept = lambda label: records.read(epath.Path(with_runs.workdir), label, guarded=True)["fingerprint"]["config"]
    of = lambda b, n: {"analysis.b": b, "source.n": n}
    assert [kept(label) for label in ("train", "arms/one/train", "arms/two/train")] == [of(1, 1), of(2, 1), of(1, 5)]
    assert json.loads((with_runs.workdir / "summary.json").read_text())["arms/one/train"] == {"ran": "arms/one/train"}
    assert (with_runs.workdir / ".records" / "arms" / "one" / "train.json").exists()
    assert with_runs(stages=("train", "judge", "arms", "alone")) == ["alone/train"]


def test_runs_are_chosen_by_their_names_and_those_of_their_groups(with_runs):
    assert with_runs(only=["arms/two"]) == ["arms/two/train"]
    assert with_runs(only=["arms"]) == ["arms/one/train"]
    assert with_runs(only=["train"]) == ["train"]
    with pytest.raises(ValueError, match="--stages: 'alone' is not among this config's stages"):
        with_runs(only=["alone"])
    assert with_runs(start="arms") == ["judge"]


def test_other_settings_of_a_run_are_refused_by_name_and_concern_no_other(with_runs):
    with_runs()
    changed = {"arms/one": {"analysis": {"b": 7}}, "arms/two": {"source": {"n": 5}}}
    with pytest.raises(ValueError, match=r"config.analysis.b=2, now 7.*--overwrite to replace the results of 'arms/one/train'"):
        with_runs(runs=changed)
    assert with_runs(runs=changed, overwrite=True, content={"arms/one/train": "new"}) == ["arms/one/train", "judge"]
    assert not list(with_runs.workdir.rglob("*.replaced-*"))


def test_a_run_that_fails_at_once_takes_nothing(with_runs, monkeypatch):
    def fail(task, out):
        raise ValueError("wrong path")

    with monkeypatch.context() as patch:
        patch.setattr(fake_stages, "work", fail)
        with pytest.raises(ValueError, match="wrong path"):
            with_runs(only=["arms/one"])
    assert with_runs(runs={"arms/one": {"analysis": {"b": 7}}}, only=["arms/one"]) == ["arms/one/train"]


def test_a_folder_of_others_in_the_place_of_a_run_is_refused(with_runs):
    theirs = with_runs.workdir / "arms" / "one" / "train" / "mine.npy"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(ValueError, match="arms/one/train holds files, its record stage.json is not there"):
        with_runs(overwrite=True)
    assert theirs.read_text() == "mine"
