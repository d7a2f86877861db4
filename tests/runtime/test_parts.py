"""Finished parts of a stage that was killed: every value comes back as it was, a damaged one is made again."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from experiments.training.population import Cell, Member
from runtime import parts
from saes.config import SAEConfig
from stability.estimates import Count, Estimate
from storage import ownership


class Theirs(NamedTuple):
    x: int


def never():
    raise AssertionError("made again")


def back(folder, value):
    """What is read of a part; it is the same as what was given out when it was made."""
    made = parts.load_or_make(epath.Path(folder), "key", lambda: value)
    read = parts.load_or_make(epath.Path(folder), "key", never)
    assert same(made, read)
    return read


def same(a, b):
    """Equal in value and type, all the way down; NaN is NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(x, y) for x, y in zip(a.values(), b.values(), strict=True))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


RNG = np.random.default_rng(0)
VALUES = {
    "nothing": None,
    "numbers": [0, -1, 2**60, 0.1, 1e-308, -0.0, True, False],
    "no finite numbers": (math.nan, math.inf, -math.inf),
    "strings": ["", "p̂ ≥ 1−ε", 'a "line"\nand another', "\x00"],
    "numpy's scalars": (np.float32(0.1), np.float64(math.nan), np.int64(-3), np.bool_(True), np.uint8(200)),
    "arrays": [RNG.normal(size=(3, 4)), np.arange(5, dtype=np.int32), np.array(7.0), np.zeros((0, 3), np.float32), RNG.random(4) > 0.5],
    "an array not in order": np.asfortranarray(RNG.normal(size=(3, 4))).T[::2],
    "no finite arrays": np.array([np.nan, np.inf, -0.0]),
    "an array of strings": np.array(["a", "p̂"]),
    "dicts": {"a": 1, (0, "b"): [2.0], 3: {None: np.arange(2)}, (1, (2, 3)): "deep", 0.5: ()},
    "empty": {"list": [], "tuple": (), "dict": {}},
    "a named tuple": Member(cell=0, seed=3, init_seed=1, order_seed=2, half=None),
    "named tuples": [(Cell("k=4", np.float64(0.1), 4, math.nan), {"x": (None,)})],
    "a figure": Estimate(value=0.5, low=math.nan, high=1.0, null=None, n=Count(3, "seeds"), unit="share"),
    "a dataclass": SAEConfig(n_features=32, k=4),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_comes_back_as_it_was(tmp_path, kind):
    assert same(back(tmp_path, VALUES[kind]), VALUES[kind])


def test_arrays_of_a_device_come_back_as_numpys_whether_made_or_read(tmp_path):
    found = back(tmp_path, {"x": jnp.arange(3.0)})
    assert same(found, {"x": np.arange(3.0, dtype=np.float32)})


@pytest.mark.parametrize("value", [Theirs(1), {1, 2}, object(), jnp.zeros(2, jnp.bfloat16), np.array([None]), tuple])
def test_what_no_part_can_hold_is_refused_when_it_is_made(tmp_path, value):
    with pytest.raises(TypeError, match="no part can hold a"):
        parts.load_or_make(epath.Path(tmp_path), "key", lambda: [value])
    assert list(tmp_path.iterdir()) == []


def test_names_that_make_one_file_name_are_two_parts(tmp_path):
    folder = epath.Path(tmp_path)
    for key in ("null 1", "null/1", "null_1", "../null 1"):
        assert parts.load_or_make(folder, key, lambda key=key: key) == key
    assert [parts.load_or_make(folder, key, never) for key in ("null 1", "null/1", "null_1", "../null 1")] == [
        "null 1",
        "null/1",
        "null_1",
        "../null 1",
    ]
    assert len(list(tmp_path.glob("*.part"))) == 4


def test_a_damaged_part_is_made_again(tmp_path):
    folder = epath.Path(tmp_path)
    parts.load_or_make(folder, "key", lambda: {"x": np.arange(3), "of": "first"})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damages = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(0, len(whole), 7)]
    for damaged in (*damages, b"", whole[:-1], whole + b"x", b"\n", whole[:100]):
        path.write_bytes(damaged)
        assert parts.load_or_make(folder, "key", lambda: "again") == "again"
        assert parts.load_or_make(folder, "key", never) == "again"
        path.unlink()


def test_parts_are_removed_and_what_others_put_beside_them_stays(tmp_path):
    stage = epath.Path(tmp_path)
    parts.remove(stage)  # there are none
    with ownership.recording(stage):
        parts.load_or_make(stage / parts.FOLDER, "key", lambda: 1)
        parts.remove(stage)
    assert [p.name for p in tmp_path.iterdir()] == ["written.txt"]
    parts.load_or_make(stage / parts.FOLDER, "key", lambda: 1)
    for name in ("mine.txt", "film.part"):
        (tmp_path / "parts" / name).write_text("mine")
    parts.remove(stage)
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == ["film.part", "mine.txt"]


def test_a_part_of_an_older_version_whose_class_is_gone_is_made_again(tmp_path, monkeypatch):
    folder, cell = epath.Path(tmp_path), Cell("k=4", 0.1, 4, 0.2)
    parts.load_or_make(folder, "key", lambda: cell)
    (path,) = tmp_path.iterdir()
    monkeypatch.setattr(parts, "_ours", lambda value: f"{type(value).__module__}:OldName")
    path.unlink()
    with pytest.raises(AssertionError):  # what is written now cannot be read
        parts.load_or_make(folder, "key", lambda: cell)
    monkeypatch.undo()
    assert parts.load_or_make(folder, "key", lambda: cell) == cell
