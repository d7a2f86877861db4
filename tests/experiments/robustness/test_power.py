"""How often rules say yes: the committed table, what it must show, and what `--plan` says of it."""

import json

import pytest

from experiments.robustness import power

KNOWN = json.loads(power.FILE.read_text())


def test_the_table_has_every_claim_of_a_single_study():
    assert KNOWN.keys() == {"C1", *power.LAWS}
    for entry in KNOWN.values():
        assert list(entry["power"]) == [str(s) for s in power.SIZES] and entry["law"]


@pytest.mark.parametrize("claim", list(power.LAWS))
@pytest.mark.parametrize("seeds", [6, 21])
def test_the_table_is_what_the_simulation_gives(claim, seeds):
    assert power.power(claim, seeds) == pytest.approx(KNOWN[claim]["power"][str(seeds)], abs=5e-3)  # last bits of a processor


def test_c1_by_fewer_tables():
    assert power.power("C1", 6, 25) == pytest.approx(KNOWN["C1"]["power"]["6"], abs=0.25)


def test_a_margin_of_nothing_is_rarely_a_yes(monkeypatch):
    """At the threshold itself an interval lies above it in 1 of 40."""
    monkeypatch.setitem(power.LAWS, "C3b", power.Stated("", (power.Law(0.0, 0.1),)))
    assert power.power("C3b", 8, 4000) == pytest.approx(0.025, abs=0.01)


def test_plan_names_rules_that_are_too_weak(monkeypatch):
    monkeypatch.setattr(power, "at_size", lambda seeds: {"C1": 0.9, "C7": 0.3})
    assert power.text(8).endswith("too small to tell: C7 (0.30); C1 0.90")
    monkeypatch.undo()
    assert "decide no claim" in power.text(5) and power.at_size(7) == power.at_size(6)
