"""The study of a world of known atoms at toy size, as a user starts it."""

import json

import pytest

from storage.tables import read_records
from tests.launch.test_end_to_end import launch


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("synthetic")
    done = launch(workdir, config="configs/synthetic.py:tiny")
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_latents_and_subspace_stand_in_one_table_beside_their_chance(finished):
    workdir, done = finished
    rows = read_records(workdir / "recovery" / "recovery.parquet")
    assert {(r["group"], r["level"]) for r in rows} == {
        ("free", "latents"), ("block", "latents"), ("block", "subspace"), ("blocks", "subspace")
    }  # fmt: skip
    assert all(r["null"] is not None for r in rows if r["figure"] != "latents")
    assert "free atoms found" in done.stdout and "block span, planted" in done.stdout
    summary = json.loads((workdir / "summary.json").read_text())
    free = summary["recovery"]["free, latents: atoms found at 0.9"]
    assert free["value"] > 0.7 > 0.01 > free["null"]
    assert "chosen without the truth" in summary["report"]["claims"]["C5"]["measured"]


def test_angles_to_the_planted_plane_lie_below_those_of_directions_chosen_alike(finished):
    workdir, _ = finished
    of = {}
    for r in read_records(workdir / "recovery" / "angles.parquet"):
        of.setdefault(r["planes"], []).append(r["angle"])
    assert all(len(angles) == 4 and angles == sorted(angles) for angles in of.values())
    planted, null = (of[f"{what} and the planted one"] for what in ("a seed", "random directions chosen alike"))
    assert all(a < b - 5 for a, b in zip(planted, null, strict=True))


def test_the_spectrum_of_latents_ends_with_the_planted_rank(finished):
    workdir, _ = finished
    rows = read_records(workdir / "recovery" / "spectra.parquet")
    beyond = {w: sum(r["share"] for r in rows if r["what"] == w and r["index"] > 4) for w in {r["what"] for r in rows}}
    assert beyond["as many atoms"] < 1e-6 < beyond["latents of a seed"] < 0.8 * beyond["as many random directions chosen alike"]


def test_the_page_shows_both(finished):
    workdir, _ = finished
    page = (workdir / "report" / "index.html").read_text()
    assert "Found as latents, found as a subspace" in page and "Principal angles to the planted plane" in page
    assert "Spectra of the block" in page


def test_parts_of_what_is_explained_are_near_what_is_planted(finished):
    workdir, _ = finished
    s = json.loads((workdir / "summary.json").read_text())["function"]
    truth = s["truth"]
    assert sum(e["planted"] for e in truth.values()) == pytest.approx(1.0)
    assert sum(e["value"] for e in truth.values()) == pytest.approx(1.0, abs=0.05)  # rare latents are in neither
    for e in truth.values():
        assert abs(e["value"] - e["planted"]) < 0.2
