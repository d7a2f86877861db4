"""Rules on trained worlds: the script that trains and asks, on one very small world."""

import json
import re
from pathlib import Path

import pytest
from absl import app
from etils import epath

from benchmarks import power_on_worlds
from benchmarks.power_on_worlds import LAWS, Law, Size

SIDES = ("yes", "no", "undecided")
WORLD = {"width": 12, "free_atoms": 8, "free_active": 1, "block_rank": 3, "block_atoms": 12, "block_active": 1}
SMALL = Size(
    64, 512, 2, {"train.steps_per_dispatch": 5, "train.checkpoint_every": 10, "subspace.min_features": 2, "subspace.subsamples": 2}
)


def test_the_table_has_eight_worlds_of_each_kind():
    known = json.loads(power_on_worlds.TABLE.read_text())
    assert known.keys() == {"C4", "C5"}
    for entry in known.values():
        for kind in ("true", "false"):
            assert sum(entry[kind][side] for side in SIDES) >= 8 and entry[kind]["law"] in {law.words for law in LAWS.values()}
        assert entry["seeds"] == power_on_worlds.SEEDS and entry["worlds"] == sum(
            entry[kind][side] for kind in ("true", "false") for side in SIDES
        )


def test_the_page_says_what_the_table_holds():
    known, page = json.loads(power_on_worlds.TABLE.read_text()), Path("docs/claims.md").read_text()
    for claim, entry in known.items():
        (row,) = re.findall(rf"^\| {claim} \| ((?:yes|no|undecided) \d.*)$", page, re.MULTILINE)
        for kind, cell in zip(("true", "false"), row.split("|"), strict=False):
            assert dict(re.findall(r"(yes|no|undecided) (\d)", cell)) == {
                side: str(entry[kind][side]) for side in SIDES if entry[kind][side]
            }


def test_a_small_world_is_trained_once(tmp_path, monkeypatch):
    law = Law("small", {"C4": True, "C5": True}, WORLD, {"n_features": 16, "k": 2}, 10)
    found = power_on_worlds.answers(law, 7, SMALL, epath.Path(tmp_path))
    assert found.keys() == {"C4", "C5"} and all(answer["side"] in SIDES for answer in found.values())
    assert (tmp_path / "study/gaussian/train/dictionaries.json").exists() and not (tmp_path / "train.npy").exists()
    config = json.loads((tmp_path / "study/config.json").read_text())
    assert config["seeds"] == [*range(56, 64)] and json.loads((tmp_path / "truth/config.json").read_text())["synthetic"]["seed"] == 7
    monkeypatch.setattr(power_on_worlds.run, "run", None)
    assert power_on_worlds.answers(law, 7, SMALL, epath.Path(tmp_path)) == found
    with pytest.raises(app.UsageError, match="another law or size"):
        power_on_worlds.answers(law._replace(batches=11), 7, SMALL, epath.Path(tmp_path))


def test_answers_are_counted_by_whether_the_claim_is_true():
    answer = lambda side: {
        "side": side,
        "parts": {"a part": side} if side != "no" else {},
        "withheld": "too few" * (side == "no"),
        "measured": "",
    }
    sides = {"crowded": ("yes", "undecided"), "scattered": ("undecided", "undecided"), "few": ("yes", "no")}
    table = power_on_worlds.table({name: [{c: answer(side) for c in LAWS[name].truth} for side in both] for name, both in sides.items()})
    counts = lambda claim, kind: [table[claim][kind][side] for side in SIDES]
    assert counts("C4", "true") == [1, 0, 1] and counts("C4", "false") == [0, 0, 2] and counts("C5", "false") == [1, 1, 0]
    assert table["C4"]["true"]["parts"] == {"a part": {"yes": 1, "undecided": 1}} and table["C5"]["false"]["withheld"] == {"too few": 1}


@pytest.mark.parametrize("claim", ["C4", "C5"])
def test_each_claim_is_true_in_one_law_and_false_in_another(claim):
    assert sorted(law.truth[claim] for law in LAWS.values() if claim in law.truth) == [False, True]
