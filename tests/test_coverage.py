"""docs/coverage.md is what the simulation gives."""

import pathlib

import pytest

from tests import coverage

LINES = (pathlib.Path(__file__).parents[1] / "docs" / "coverage.md").read_text().splitlines()
ROWS = {
    cells[1].strip(): [float(c) for c in cells[3:-1]]
    for line in LINES
    if (cells := line.split("|"))[1:2] and cells[1].strip() in coverage.KINDS
}


def test_the_page_has_all_kinds_and_none_is_far_from_what_it_says():
    assert ROWS.keys() == coverage.KINDS.keys()
    assert all(0.91 <= share <= 0.98 for shares in ROWS.values() for share in shares)


@pytest.mark.parametrize(("kind", "seeds"), [("mean over seeds", 5), ("ratio between labels", 3), ("share with a label", 5)])
def test_the_simulation_gives_what_the_page_says(kind, seeds):
    assert coverage.coverage(coverage.KINDS[kind][1], seeds, 500) == pytest.approx(ROWS[kind][coverage.SEEDS.index(seeds)], abs=6e-3)


@pytest.mark.slow
def test_the_whole_page():
    assert coverage.page(500).splitlines() == LINES
