import jax.numpy as jnp
import numpy as np
import pytest

from runtime import checkpoints as checkpoints_of
from runtime.checkpoints import Checkpoints

STATE = {"a": jnp.arange(5.0), "b": {"c": jnp.ones((2, 3), jnp.int32)}}


def saved(folder, steps=(2, 4), keep=2):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, {"a": STATE["a"] + step, "b": STATE["b"]})
    checkpoints.close()


def restore(folder):
    checkpoints = Checkpoints(folder)
    found = checkpoints.restore_latest(STATE)
    checkpoints.close()
    return found


def data_files(folder):
    return [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 30 and "/d/" in str(p)]


def test_the_newest_comes_back(tmp_path):
    saved(tmp_path / "c")
    state, step = restore(tmp_path / "c")
    assert step == 4 and (np.asarray(state["a"]) == np.arange(5) + 4).all() and state["b"]["c"].dtype == jnp.int32


def test_only_the_newest_are_kept_with_their_manifests(tmp_path):
    saved(tmp_path / "c", steps=(1, 2, 3, 4))
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == ["3", "4"]
    assert sorted(p.name for p in (tmp_path / "c_sha256").iterdir()) == ["3.json", "4.json"]


def test_every_flipped_bit_is_found_and_the_older_step_used(tmp_path, capsys):
    saved(tmp_path / "c")
    files = data_files(tmp_path / "c" / "4")
    assert files
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[:17] + bytes([data[17] ^ 8]) + data[18:])
        state, step = restore(tmp_path / "c")
        assert step == 2 and float(state["a"][0]) == 2
        assert str(path) in capsys.readouterr().err
        path.write_bytes(data)
    assert restore(tmp_path / "c")[1] == 4


def test_a_step_without_manifest_is_not_used_and_can_be_saved_again(tmp_path):
    saved(tmp_path / "c")
    (tmp_path / "c_sha256" / "4.json").unlink()
    assert restore(tmp_path / "c")[1] == 2
    saved(tmp_path / "c", steps=(4,))
    assert restore(tmp_path / "c")[1] == 4


def test_saving_goes_on_between_the_good_step_and_a_damaged_one(tmp_path):
    saved(tmp_path / "c", steps=(2, 6))
    path = data_files(tmp_path / "c" / "6")[0]
    path.write_bytes(path.read_bytes()[:-1])
    checkpoints = Checkpoints(tmp_path / "c")
    _, step = checkpoints.restore_latest(STATE)
    assert step == 2
    checkpoints.save(4, STATE)
    checkpoints.close()
    assert restore(tmp_path / "c")[1] == 4


def test_nothing_to_restore(tmp_path):
    assert restore(tmp_path / "c") is None


def test_another_structure_is_refused(tmp_path):
    saved(tmp_path / "c")
    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(ValueError, match="does not fit"):
        checkpoints.restore_latest({"other": jnp.zeros(3)})
    checkpoints.close()


def test_the_caller_may_overwrite_the_state_at_once(tmp_path):
    """What donation does to the buffers while the save still runs."""
    checkpoints = Checkpoints(tmp_path / "c")
    state = {"a": jnp.arange(300_000.0)}
    checkpoints.save(1, state)
    state["a"].delete()
    checkpoints.wait()
    restored, _ = checkpoints.restore_latest({"a": jnp.zeros(300_000)})
    assert (np.asarray(restored["a"]) == np.arange(300_000.0)).all()
    checkpoints.close()


@pytest.mark.parametrize("name", ["7", "999999"])
def test_a_users_numbered_folder_is_no_step(tmp_path, name):
    saved(tmp_path / "c")
    (tmp_path / "c" / name).mkdir()
    (tmp_path / "c" / name / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=f"c/{name} is no checkpoint of the program: move it out of"):
        Checkpoints(tmp_path / "c")
    assert (tmp_path / "c" / name / "mine.txt").read_text() == "mine"


def test_a_users_numbered_json_is_no_manifest(tmp_path):
    saved(tmp_path / "c")
    (tmp_path / "c_sha256" / "2024.json").write_text('{"sales": 3}')
    saved(tmp_path / "c", steps=(6, 8))
    assert sorted(p.name for p in (tmp_path / "c_sha256").iterdir()) == ["2024.json", "6.json", "8.json"]
    checkpoints_of.remove(tmp_path / "c")
    assert [p.name for p in (tmp_path / "c_sha256").iterdir()] == ["2024.json"]
