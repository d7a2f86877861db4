"""Only what is listed is removed, and never through a link."""

import zlib

import pytest
from etils import epath

from storage import files, ownership


@pytest.fixture
def folder(tmp_path):
    place = epath.Path(tmp_path / "stage")
    with ownership.recording(place):
        files.write_bytes(place / "out.txt", b"ours")
        files.write_bytes(place / "deep" / "er" / "out.txt", b"ours")
        files.append_line(place / "metrics.jsonl", "{}\n")
    files.write_bytes(place / "late.txt", b"written when nobody recorded")
    return place


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() or p.is_symlink())


def test_what_is_listed_goes_and_the_rest_is_named(folder, tmp_path):
    (folder / "deep" / "mine.txt").write_text("mine")
    assert ownership.written(folder) and ownership.size(folder) > 20
    assert ownership.remove(folder) == ["deep/mine.txt", "late.txt"]
    assert names(tmp_path) == ["stage/deep/mine.txt", "stage/late.txt"] and not (tmp_path / "stage/deep/er").exists()
    assert not ownership.written(folder)


def test_a_folder_that_is_all_ours_goes(folder):
    assert ownership.remove(folder, also=["late.txt"]) == [] and not folder.exists()


def test_a_write_that_was_cut_is_ours_too(folder):
    (folder / "out.txt.partial").write_text("ha")
    assert ownership.remove(folder) == ["late.txt"]


def line(name):
    return f"{zlib.crc32(name.encode()):08x} {name}\n"


@pytest.mark.parametrize("name", ["../precious.txt", "{tmp}/precious.txt", "link/precious.txt", "deep/../../precious.txt", ".", "./", "/"])
def test_no_name_leads_out_of_the_folder(folder, tmp_path, name):
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "stage" / "link").symlink_to(tmp_path)
    with (folder / "written.txt").open("a") as handle:
        handle.write(line(name.format(tmp=tmp_path)))
    ownership.remove(folder)
    assert (tmp_path / "precious.txt").read_text() == "mine" and (tmp_path / "stage" / "link").is_symlink()


def test_a_damaged_line_names_nobodys_file(folder):
    (folder / "lute.txt").write_text("mine")
    ledger = folder / "written.txt"
    ledger.write_text(ledger.read_text() + line("late.txt").replace("late", "lute"))
    assert ownership.remove(folder) == ["late.txt", "lute.txt"]


def test_a_users_file_of_the_lists_name_is_no_list(tmp_path):
    (tmp_path / "written.txt").write_text("a list of what I have written\n")
    assert not ownership.written(tmp_path) and ownership.remove(tmp_path) == ["written.txt"]


def test_of_checkpoints_the_steps_go(tmp_path):
    place = epath.Path(tmp_path / "stage")
    with ownership.recording(place):
        ownership.note_checkpoints(place / "checkpoints")
    for name in ("3", "5.orbax-checkpoint-tmp-17", "mine"):
        (tmp_path / "stage" / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "stage" / "checkpoints" / name / "_CHECKPOINT_METADATA").write_text("x")
    (tmp_path / "stage" / "checkpoints" / "2024").mkdir()
    (tmp_path / "stage" / "checkpoints" / "2024" / "photo").write_text("mine")
    (tmp_path / "stage" / "checkpoints" / "7").symlink_to(tmp_path)
    assert ownership.remove(place) == ["checkpoints/2024/photo", "checkpoints/7", "checkpoints/mine/_CHECKPOINT_METADATA"]


def test_discarding_what_is_being_recorded(tmp_path):
    place = epath.Path(tmp_path / "stage")
    with ownership.recording(place):
        files.write_bytes(place / "train" / "shard", b"x")
        files.write_bytes(place / "eval" / "shard", b"x")
        (place / "train" / "mine").write_text("mine")
        ownership.discard(place / "train")
    assert names(tmp_path) == ["stage/eval/shard", "stage/train/mine", "stage/written.txt"]


def test_a_relative_folder_is_recorded_whichever_way_files_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ownership.recording("w/stage"):
        files.write_bytes(epath.Path("w/stage/a"), b"x")
        files.write_bytes(tmp_path / "w" / "stage" / "b", b"x")
        ownership.note_checkpoints(tmp_path / "w" / "stage" / "checkpoints")
    assert sorted(line[9:] for line in (tmp_path / "w/stage/written.txt").read_text().splitlines()) == ["a", "b", "checkpoints/"]
    assert ownership.remove("w/stage") == [] and not (tmp_path / "w/stage").exists()


def test_what_a_linked_folder_points_to_is_not_ours_to_remove(folder, tmp_path):
    (tmp_path / "linked").symlink_to(tmp_path / "stage")
    before = names(tmp_path)
    assert ownership.remove(tmp_path / "linked") == []
    ownership.remove_checkpoints(tmp_path / "linked")
    assert names(tmp_path) == before


def test_a_folder_in_the_place_of_a_file_stays(folder):
    (folder / "out.txt").unlink()
    (folder / "out.txt").mkdir()
    (folder / "out.txt" / "mine").write_text("mine")
    assert ownership.remove(folder) == ["late.txt", "out.txt/mine"]


def test_a_line_that_was_cut_takes_no_other_along(tmp_path):
    with ownership.recording(tmp_path):
        files.write_bytes(tmp_path / "a\u2028b", b"x")
        files.write_bytes(tmp_path / "c", b"x")
    ledger = tmp_path / "written.txt"
    ledger.write_bytes(ledger.read_bytes()[:-2])
    with ownership.recording(tmp_path):
        files.write_bytes(tmp_path / "d", b"x")
    assert ownership.remove(tmp_path) == ["c"]
