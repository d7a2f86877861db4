"""What a run may own, what it refuses, and what becomes of results that are replaced."""

import pytest
from etils import epath

from launch import run as runner
from runtime import interrupts, workdirs
from storage import files
from tests.experiments import fake_stages
from tests.experiments.fake_stages import RAN

run = fake_stages.run


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


def killed_between(monkeypatch, run):
    """A kill when old results were moved and the run that replaces them has left nothing yet."""
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_run_one", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(source_n=2, overwrite=True)


def test_results_set_aside_by_a_run_that_never_began_are_not_made_again(run, monkeypatch):
    run()
    killed_between(monkeypatch, run)
    with pytest.raises(ValueError, match=r"dear is not there, but .*dear.replaced-1 is of this config: move it to .*/dear to go on"):
        run()
    (run.workdir / "dear.replaced-1").rename(run.workdir / "dear")
    assert run() == []


def test_a_stop_before_an_overwriting_run_moves_nothing(run, monkeypatch):
    run()
    with monkeypatch.context() as patch:
        patch.setattr(interrupts, "_requested", ["SIGTERM"])
        with pytest.raises(interrupts.Stopped):
            run(source_n=2, overwrite=True)
    assert run() == [] and not list(run.workdir.glob("*.replaced-*"))


def test_a_disk_that_is_full_before_an_overwriting_run_begins_loses_nothing(run, monkeypatch):
    run()
    with monkeypatch.context() as patch:
        patch.setattr(runner.files, "write_json", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            run(source_n=2, overwrite=True)
    assert run() == [] and not list(run.workdir.glob("*.replaced-*"))


def test_what_is_overwritten_stays_until_the_new_result_is_complete(run, monkeypatch, capsys):
    run()
    killed_between(monkeypatch, run)
    kept = run.workdir / "dear.replaced-1" / "out.txt"
    assert kept.read_text() == "dear of same" and not (run.workdir / "dear").exists()
    assert "what was there (0.0 MB) is in" in capsys.readouterr().out
    assert run(source_n=2)[0] == "dear" and not kept.parent.exists()


def test_an_overwriting_run_that_fails_at_once_puts_back_what_was_there(run, monkeypatch):
    run()

    def fail(task, out):
        raise ValueError("wrong path")

    with monkeypatch.context() as patch:
        patch.setattr(fake_stages, "work", fail)
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
    def fail(task, out):
        raise ValueError("damaged model")

    log = run.workdir / "error.log"
    with monkeypatch.context() as patch:
        patch.setattr(fake_stages, "work", fail)
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


def test_a_workdir_that_cannot_be_made(run, tmp_path):
    (tmp_path / "w").write_text("a file")
    with pytest.raises(ValueError, match="--workdir=.*cannot be written"):
        run()


@pytest.mark.parametrize("ours", [True, False])
def test_a_users_own_files_of_these_names_stay(run, monkeypatch, ours):
    """`2> error.log` is a common thing to write; a folder that is refused is left as it was."""
    theirs = {name: f"mine: {name}" for name in ("error.log", ".lock", ".writable")}
    run.workdir.mkdir()
    for name, text in theirs.items():
        (run.workdir / name).write_text(text)
    if not ours:
        (run.workdir / "dear").mkdir()
        (run.workdir / "dear" / "mine.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(fake_stages, "work", lambda *args: 1 // 0)
        with pytest.raises((ZeroDivisionError, ValueError)):
            run()
    assert {name: (run.workdir / name).read_text() for name in theirs} == theirs


def test_an_overwriting_run_that_fails_in_any_way_puts_back_what_was_there(run, monkeypatch):
    run()
    with monkeypatch.context() as patch:
        patch.setattr(fake_stages, "work", lambda *args: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            run(source_n=2, overwrite=True)
    assert run() == []


def test_a_killed_overwriting_run_says_where_the_old_results_are(run, monkeypatch):
    run()
    with monkeypatch.context() as patch:
        patch.setattr(fake_stages, "work", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(source_n=2, overwrite=True)
    with pytest.raises(ValueError, match=r"is of config.source.n=2, .*dear.replaced-1 of 1: move it to .*/dear to go on"):
        run()
    assert (run.workdir / "dear.replaced-1" / "out.txt").exists()


def test_the_record_of_another_workdir_does_not_take_the_place_of_the_copy(run, capsys):
    run()
    path = run.workdir / "dear" / "stage.json"
    whole = path.read_bytes()
    record = files.read_record(path, "", None)
    record["fingerprint"]["config"]["source.n"] = 2
    record["outputs"]["out.txt"]["sha256"] = "0" * 64
    files.write_record(path, record)
    assert run() == [] and path.read_bytes() == whole
    assert "stage.json is of other results, and is written again from" in capsys.readouterr().out


def test_two_processes_do_not_share_a_workdir(run):
    run()
    with workdirs.alone(epath.Path(run.workdir)), pytest.raises(ValueError, match="another process runs there; wait for it"):
        run()
    run()


def test_an_address_is_no_path(run):
    with pytest.raises(ValueError, match="config.lm.path='https://x.y/z' is an address: give a folder, a file or a hub id"):
        run(paths={"lm.path": "https://x.y/z"})


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(fingerprint={}),
        lambda r: r.update(outputs=[]),
        lambda r: r["outputs"]["out.txt"].pop("bytes"),
        lambda r: r.update(outputs={}),
        lambda r: r.update(status=3),
    ],
)
def test_a_record_without_checksum_and_of_another_shape_is_damaged(run, change):
    run()
    path = run.workdir / "dear" / "stage.json"
    record = files.read_record(path, "", None)
    whole = path.read_bytes()
    change(record)
    files.write_json(path, record)
    assert run() == [] and path.read_bytes() == whole


def test_a_file_of_the_name_that_results_are_moved_to_is_left(run):
    run()
    (run.workdir / "middle.replaced-1").write_text("mine")
    assert run(analysis_a=2) == ["middle"]
    assert (run.workdir / "middle.replaced-1").read_text() == "mine" and not (run.workdir / "middle.replaced-2").exists()
